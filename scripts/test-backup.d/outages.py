"""Repositories and disks that fail while the service runs: what is reported, and what continues."""

from __future__ import annotations

import os
import threading
import time

from stack import (
    BUSY, NOW, SECRETS, Failed, at_once, compose, container, log, metric, once, require, require_refused, restore, run, sql, up, volume, wait,
    wait_until_drained,
)


def put(name: str, text: str) -> None:
    """Replaces a secret's content in place: containers have the file, not its name."""
    path = SECRETS / name
    path.chmod(0o644)
    path.write_text(text)
    path.chmod(0o444)


def settings_and_wrong_passphrase_are_reported(figure) -> None:
    require_refused(once("status", check=False, LINNET_BACKUP_REPOSITORY="s3://backups/linnet?endpoint=nowhere:9443&region=test&style=path"),
                    "the repository cannot be reached")
    require_refused(once("status", check=False, LINNET_BACKUP_REPOSITORY="/mnt/disk"), "LINNET_BACKUP_REPOSITORY has no scheme", "s3://BUCKET")
    right = (SECRETS / "backup_passphrase").read_text()
    rows = sql("SELECT count(*) FROM urls")
    started = sql("SELECT pg_postmaster_start_time()")
    try:
        put("backup_passphrase", "wrong-" + right)
        for words in (("check",), ("backup",)):
            require_refused(once(*words, check=False), "passphrase", "backup_passphrase")
        require_refused(restore("--to", sql(NOW), check=False), "passphrase", "nothing was changed")
    finally:
        put("backup_passphrase", right)
    require(sql("SELECT pg_postmaster_start_time()") == started, "the refused restore stopped PostgreSQL")
    require(sql("SELECT count(*) FROM urls") == rows, "rows have changed")
    require_refused(restore("--to", "2020-01-01T00:00:00Z", check=False), "choose a later time", "nothing was changed")
    require_refused(restore("--to", "yesterday", check=False), "--to must be a time with an offset", "nothing was changed")
    require_refused(restore("--to", "2090-01-01T00:00:00Z", check=False), "must not be in the future", "nothing was changed")
    # The time is after the last commit: found only during recovery. The database comes back as it was.
    require_refused(restore("--to", sql(NOW), check=False), "choose an earlier time", "the database is as it was")
    wait(60, "PostgreSQL", lambda: sql("SELECT 1", check=False) == "1")
    require(sql("SELECT count(*) FROM urls") == rows, "rows have changed")
    require(not (volume("postgres") / "linnet-restore").exists(), "the prepared folder is left")


def segments_wait_while_the_repository_is_unreachable(figure) -> None:
    wait_until_drained()
    run("docker", "pause", container("s3"))
    try:
        for number in range(3):
            sql(f"INSERT INTO events (event_type) VALUES ('test.away{number}')")
            sql("SELECT pg_switch_wal()")
        wait(60, "segments to wait", lambda: metric("archive_waiting_segments") >= 3)
        waited = wait(400, "the age that the alert needs", lambda: metric("archive_oldest_seconds") > (60 if os.environ.get("FORM") == "short" else 300))
        print(f"    the oldest segment is {metric('archive_oldest_seconds'):.0f} s old after {waited:.0f} s; "
              f"{metric('archive_waiting_bytes') / 1024:.0f} KiB wait", flush=True)
        require(metric("archive_waiting_bytes") < 3 * 4 * 2**20, "closed segments take 16 MiB each")
        # pgBackRest repeats a request that hangs, before it fails.
        wait(200, "a counted failure", lambda: metric("archive_push_failures_total") >= 1)
        require("WAL was not pushed" in log("backup"), "the log does not say so")
        require(sql("SELECT count(*) FROM events WHERE event_type LIKE 'test.away%'") == "3", "the database does not work")
    finally:
        run("docker", "unpause", container("s3"))
    figure("3 segments that waited are pushed, after the repository's return", f"{wait_until_drained():.1f} s", "")


def key_without_rights_is_named(figure) -> None:
    right = (SECRETS / "backup_s3_secret").read_text()
    try:
        put("backup_s3_secret", "0" * len(right))
        require_refused(once("backup", check=False), "backup_s3_key", "listing, reading and writing")
        require_refused(restore(check=False), "nothing was changed")
    finally:
        put("backup_s3_secret", right)
    once("check")


def full_archive_disk_keeps_the_database_running(figure) -> None:
    """The folder for segments is full: PostgreSQL keeps its WAL, continues, and archives when there is space."""
    wait_until_drained()
    archive = volume("archive")
    run("mount", "-t", "tmpfs", "-o", "size=64k,uid=999,gid=999,mode=0700", "tmpfs", str(archive))
    try:
        # Containers see the mount only when they start.
        compose("up", "--detach", "--no-deps", "--force-recreate", "--wait", "--wait-timeout", "120", "postgres", "backup")
        run("dd", "if=/dev/zero", f"of={archive}/filler", "bs=1k", "count=60")
        failed = int(sql("SELECT failed_count FROM pg_stat_archiver"))
        for number in range(3):
            sql(f"INSERT INTO events (event_type, details) SELECT 'test.full', jsonb_build_object('n', {number}, 't', repeat(md5(n::text), 20)) "
                "FROM generate_series(1, 500) n")
            sql("SELECT pg_switch_wal()")
        wait(90, "failures of archive_command", lambda: int(sql("SELECT failed_count FROM pg_stat_archiver")) > failed)
        wait(60, "segments that are not archived", lambda: metric("archive_unarchived_segments") >= 2)
        require("free space on its disk" in log("postgres"), "the log does not say what to do")
        require(not list(archive.glob(".*.part")), "an unfinished copy is left")
        require(sql("SELECT count(*) FROM events WHERE event_type = 'test.full'") == "1500", "the database does not work")
        (archive / "filler").unlink()
        run("mount", "-o", "remount,size=200m", str(archive))
        wait_until_drained(180)
    finally:
        compose("rm", "--stop", "--force", "postgres", "backup")
        run("umount", str(archive))
        up("postgres", "backup")
    require(sql("SELECT count(*) FROM events WHERE event_type = 'test.full'") == "1500", "rows are lost")


def second_disk_is_a_repository_too(figure) -> None:
    compose("stop", "backup")
    disk = {"LINNET_BACKUP_REPOSITORY": "file:///repository/linnet"}
    done = once("backup", **disk)
    require("backup 2" in done.stdout, f"no backup: {done.stdout}")
    done = once("restore-test", **disk)
    require("restore test succeeded" in done.stdout, f"no restore test: {done.stdout}")
    files = [path for path in volume("repository").rglob("*") if path.is_file()]
    clear = [path for path in files if b"example.com" in path.read_bytes()]
    require(files and not clear, f"targets are in the repository as text: {clear}")
    up("backup")
    # The bucket lacks the segments that went to the disk.
    once("backup", "--full")


def server_with_sftp_is_a_repository_too(figure) -> None:
    """The key that the guide names is the one that the server chooses among its host keys."""
    up("sftp")
    server = container("sftp")
    command = "rm -f /root/key*; ssh-keygen -q -t ed25519 -N '' -f /root/key; install -o linnet -m 600 /root/key.pub /home/linnet/.ssh/authorized_keys; cat /root/key"
    key = run("docker", "exec", server, "sh", "-euc", command).stdout
    # As in docs/OPERATIONS.md.
    command = "ssh-keyscan -p 2022 -t ecdsa 127.0.0.1 2>/dev/null | awk '/^[^#]/ {print $3}' | base64 -d | sha256sum | cut -c 1-64"
    host_key = run("docker", "exec", server, "sh", "-euc", command).stdout.strip()
    require(len(host_key) == 64, f"no fingerprint of the server: {host_key}")
    sftp = {"LINNET_BACKUP_REPOSITORY": "sftp://linnet@sftp:2022/srv/linnet"}
    compose("stop", "backup")
    put("backup_sftp_key", key)
    put("backup_sftp_host_key", "0" * 64)
    require_refused(once("backup", check=False, **sftp), "backup_sftp_host_key")
    put("backup_sftp_host_key", host_key)
    run("docker", "exec", server, "sh", "-c", "mv /home/linnet/.ssh/authorized_keys /root/")
    require_refused(once("backup", check=False, **sftp), "backup_sftp_key", "authorized_keys")
    run("docker", "exec", server, "sh", "-c", "mv /root/authorized_keys /home/linnet/.ssh/")
    started = time.monotonic()
    done = once("backup", **sftp)
    figure("first backup to a server with SFTP", f"{time.monotonic() - started:.1f} s", "")
    require("backup 2" in done.stdout, f"no backup: {done.stdout}")
    done = once("restore-test", **sftp)
    require("restore test succeeded" in done.stdout, f"no restore test: {done.stdout}")
    files = [path for path in volume("sftp").rglob("*") if path.is_file()]
    clear = [path for path in files if b"example.com" in path.read_bytes()]
    require(files and not clear, f"targets are in the repository as text: {clear}")
    compose("rm", "--stop", "--force", "sftp")
    up("backup")
    # The bucket lacks the segments that went to the server.
    once("backup", "--full")


def jobs_do_not_overlap(figure) -> None:
    results: list[tuple[int, str]] = []

    def backup() -> None:
        done = at_once("backup", check=False)
        results.append((done.returncode, done.stdout))

    threads = [threading.Thread(target=backup) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not any(code == 0 for code, _ in results):
        raise Failed(f"no backup succeeded: {results}")
    busy = [text for code, text in results if code != 0]
    require(busy, "three backups at a time succeeded: none waited for another")
    for text in busy:
        require(BUSY in text, f"another failure: {text}")
    time.sleep(1)
    once("backup")
