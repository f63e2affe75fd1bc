"""Lost disks and mistakes: what a restore brings back, and how long it takes."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import random
import shutil
import socket
import threading
import time
from pathlib import Path

from stack import (
    NOW, PROJECT, ROOT, SECRETS, Writer, compose, container, lose_everything, metric, once, require, restore, run, sql, up,
    volume, wait, wait_for_first_backup, wait_until_drained,
)

SHORT = os.environ.get("FORM") == "short"
TRIALS = int(os.environ.get("TRIALS") or (2 if SHORT else 10))
LINKS = int(os.environ.get("LINKS") or (20_000 if SHORT else 1_000_000))
CLICKS = int(os.environ.get("CLICKS") or (0 if SHORT else 10_000_000))


def first_backup_follows_the_start(figure) -> None:
    up("s3", "postgres", "redis", "backup")
    compose("run", "--rm", "-T", "--no-deps", "migrate")
    sql("INSERT INTO urls (short_code, original_url) SELECT 'start' || n, 'https://example.com/' || n FROM generate_series(1, 500) n")
    wait_for_first_backup()
    wait(300, "the first restore test", lambda: metric("restore_test_ok") >= 0)
    require(metric("restore_test_ok") == 1, f"the first restore test failed: {once('status').stdout}")
    require(metric("restore_test_resolved_links") == 100, "the restored database did not resolve 100 links")
    print(once("status").stdout, flush=True)


def point_in_time_brings_deleted_rows_back_and_only_these(figure) -> None:
    before = int(sql("SELECT count(*) FROM urls"))
    time.sleep(1.1)  # The target is between two commits: whole seconds apart.
    target = sql(NOW)
    time.sleep(1.1)
    sql("DELETE FROM urls WHERE id IN (SELECT id FROM urls ORDER BY id LIMIT 400)")
    sql("INSERT INTO urls (short_code, original_url) VALUES ('later-marker', 'https://example.com/')")
    version = int(sql("SELECT last_value FROM url_version_seq"))
    sql("SELECT pg_switch_wal()")
    wait_until_drained()
    compose("exec", "-T", "redis", "sh", "-c", 'REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli --user operator set l:stale x')
    restore("--to", target)
    require(int(sql("SELECT count(*) FROM urls")) == before, "the deleted rows are not back")
    require(sql("SELECT count(*) FROM urls WHERE short_code = 'later-marker'") == "0", "a row of after the target is there")
    require(int(sql("SELECT nextval('url_version_seq')")) > version, "a version can be given out twice")
    cached = compose("exec", "-T", "redis", "sh", "-c",
                     'REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli --user operator exists l:stale').stdout.strip()
    require(cached == "0", f"a cached link survived the restore: {cached}")
    require(sql("SELECT pg_is_in_recovery()") == "f", "the database is read-only")
    for setting in ("restore_command", "recovery_target_time"):
        require(sql(f"SHOW {setting}") == "", f"{setting} is still set")
    # The timeline that began must be in the repository, or the next restore would end before it.
    sql("INSERT INTO urls (short_code, original_url) VALUES ('new-timeline', 'https://example.com/')")
    sql("SELECT pg_switch_wal()")
    wait_until_drained()
    restore()
    require(sql("SELECT count(*) FROM urls WHERE short_code = 'new-timeline'") == "1", "the second restore lost the new timeline")
    # The mistake of a wrong target can be undone.
    restore("--timeline", "1")
    require(sql("SELECT count(*) FROM urls WHERE short_code = 'later-marker'") == "1", "the first timeline is lost")
    once("backup", "--full")


def must_35_lost_disk_costs_at_most_a_minute(figure) -> None:
    losses, durations = [], []
    for trial in range(TRIALS):
        writer = Writer()
        seconds = random.uniform(35, 70)
        time.sleep(seconds)
        run("docker", "kill", "--signal", "KILL", container("postgres"))
        at = time.time()
        run("docker", "kill", "--signal", "KILL", container("backup"))
        writer.stop()
        require(len(writer.acknowledged) > seconds * 5, f"only {len(writer.acknowledged)} rows were written")
        # Everything on the host is gone but the bucket: also WAL that waited, and the state of the sidecar.
        lose_everything("postgres", "archive", "backup-state")
        started = time.monotonic()
        restore()
        durations.append(time.monotonic() - started)
        rows, age = writer.lost(at)
        losses.append(age)
        print(f"    trial {trial + 1}: killed after {seconds:.0f} s, {rows} of {len(writer.acknowledged)} rows lost, the first written {age:.1f} s "
              f"before; restored in {durations[-1]:.1f} s", flush=True)
        require(age <= 60, f"rows that were {age:.0f} s old are lost")
        up("postgres", "redis", "backup")
        wait(60, "the sidecar to push", lambda: metric("archive_waiting_segments") == 0)
    losses.sort()
    figure(f"lost disk, {TRIALS} trials: age of the oldest lost row, median", f"{losses[len(losses) // 2]:.1f} s", "")
    figure(f"lost disk, {TRIALS} trials: age of the oldest lost row, worst", f"{losses[-1]:.1f} s", "≤ 60 s")


def must_35_restore_test_passes_and_leaves_nothing(figure) -> None:
    output = once("restore-test").stdout
    print(f"    {output.strip().splitlines()[-1]}", flush=True)
    state = volume("backup-state")
    require(not (state / "scratch").exists(), "the scratch folder is left")
    segments = set((volume("s3") / "backups").rglob("*.history*"))
    once("restore-test")
    require(set((volume("s3") / "backups").rglob("*.history*")) == segments, "the test wrote a timeline into the repository")


def secrets_bundle_opens_the_backups_of_a_lost_host(figure) -> None:
    """A new host has other secrets: without the bundle no backup opens; with it, roles and passphrase fit."""
    script, scratch = str(ROOT / "deploy/host/secrets"), Path(os.environ["LINNET_SCRATCH"])
    (scratch / "passphrase").write_text("correct horse battery staple\n")
    (scratch / "wrong").write_text("correct horse battery stable\n")
    bundle = scratch / "bundle"
    with_passphrase = ("--passphrase-file", str(scratch / "passphrase"))
    run("bash", "-c", f'"{script}" export --folder "$0" "$1" "$2" > "$3"', str(SECRETS), *with_passphrase, str(bundle))
    for name in ("backup_passphrase", "postgres_password"):
        require((SECRETS / name).read_text() not in bundle.read_text(), f"{name} is in the bundle as text")
    kept = scratch / "kept"
    shutil.copytree(SECRETS, kept)
    import_into = f'"{script}" import --replace --folder "$0" "$1" "$2" < "$3"'
    done = run("bash", "-c", import_into, str(scratch / "other"), "--passphrase-file", str(scratch / "wrong"), str(bundle), check=False)
    require(done.returncode != 0 and "nothing was written" in done.stdout, f"a wrong passphrase was accepted: {done.stdout}")
    text = bundle.read_text()
    middle = len(text) * 2 // 3
    (scratch / "changed").write_text(text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1:])
    done = run("bash", "-c", import_into, str(scratch / "other"), *with_passphrase, str(scratch / "changed"), check=False)
    require(done.returncode != 0 and "was changed" in done.stdout, f"a changed bundle was accepted: {done.stdout}")
    require(not (scratch / "other").exists(), "a refused import wrote something")
    run("bash", "-c", import_into, str(scratch / "other"), *with_passphrase, str(bundle))
    run("diff", "-r", str(kept), str(scratch / "other"))
    for name in ("backup_passphrase", "backup_s3_secret", "postgres_password", "postgres_url"):
        require((scratch / "other" / name).stat().st_mode == (kept / name).stat().st_mode, f"{name} has another mode")


def large_database_is_back_within_minutes(figure) -> None:
    if LINKS:
        started = time.monotonic()
        sql("INSERT INTO urls (short_code, original_url) SELECT 'large' || n, 'https://example.com/' || md5(n::text) || '/page' "
            f"FROM generate_series(1, {LINKS}) n")
        print(f"    {LINKS} links in {time.monotonic() - started:.0f} s", flush=True)
    if CLICKS:
        started = time.monotonic()
        write_clicks(CLICKS)
        print(f"    {CLICKS} clicks in {time.monotonic() - started:.0f} s", flush=True)
    size = int(sql("SELECT pg_database_size('linnet')")) >> 20
    started = time.monotonic()
    wait_until_drained(1_800)
    print(f"    {size} MiB; WAL drained in {time.monotonic() - started:.0f} s", flush=True)
    memory = MemoryOf()
    started = time.monotonic()
    once("backup", "--full", timeout=3_600)
    figure(f"full backup of {size} MiB", f"{time.monotonic() - started:.1f} s", "")
    added = int(once("status").stdout.split()[-1])
    figure("its size in the repository", f"{added / 1024:.0f} MiB", "")
    # WAL of half a day at a moderate rate follows the backup: replay is part of a restore.
    sql("INSERT INTO events (event_type) SELECT 'test.after' FROM generate_series(1, 200000)")
    sql("SELECT pg_switch_wal()")
    wait_until_drained(600)
    lose_everything("postgres", "archive", "backup-state")
    started = time.monotonic()
    restore(timeout=3_600)
    restored = time.monotonic() - started
    require(int(sql("SELECT count(*) FROM urls WHERE short_code LIKE 'large%'")) == LINKS, "links are missing")
    figure(f"restore of {LINKS} links and {CLICKS} clicks onto an empty volume", f"{restored:.1f} s", "≤ 5 min")
    service = next(name for name in compose("config", "--services").stdout.split() if name.startswith("shortener"))
    started = time.monotonic()
    compose("up", "--detach", "--no-build", "--no-deps", service)
    wait(120, "the first redirect", lambda: first_redirect(service) == 302)
    figure("… until the first redirect", f"{restored + time.monotonic() - started:.1f} s", "≤ 5 min")
    compose("rm", "--stop", "--force", service)
    up("backup")
    started = time.monotonic()
    once("restore-test", timeout=3_600)
    figure(f"restore test of {size} MiB", f"{time.monotonic() - started:.1f} s", "")
    figure("most unreclaimable memory of a sidecar's container", f"{memory.stop() / 2**20:.0f} MiB", "≤ 48 MiB")


def write_clicks(count: int) -> None:
    """Raw clicks of random links in one partition, as the worker writes them."""
    sql("CREATE TABLE raw_clicks_of_test PARTITION OF raw_clicks FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')")
    links = sql("SELECT min(id) || ' ' || max(id) - min(id) FROM urls WHERE short_code LIKE 'large%'").split()
    for part in range(0, count, 1_000_000):
        sql("INSERT INTO raw_clicks (clicked_at, url_id, agent_and_kind, visitor) SELECT timestamptz '2020-01-01' + random() * interval '30 days', "
            f"{links[0]} + (random() * {links[1]})::bigint, 0, (random() * 1e15)::bigint FROM generate_series(1, {min(1_000_000, count - part)})")


def first_redirect(service: str) -> int:
    """The status of a restored link at the resolve listener, without nginx; 0 without a response."""
    socket_path = next((path for name in ("redirects",) if (path := socket_of(name))), None)
    try:
        if socket_path:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(2)
            connection.connect(str(socket_path))
        else:
            networks = json.loads(run("docker", "inspect", container(service)).stdout)[0]["NetworkSettings"]["Networks"]
            address = networks[f"{PROJECT}_redirects"]["IPAddress"]
            connection = socket.create_connection((address, 8082), timeout=2)
        with connection:
            connection.sendall(b"GET /large1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return int(connection.recv(64).split(b" ")[1])
    except (OSError, IndexError, ValueError, KeyError):
        return 0


def socket_of(name: str) -> Path | None:
    if run("docker", "volume", "inspect", f"{PROJECT}_{name}", check=False).returncode:
        return None
    return next(iter(sorted(volume(name).glob("*.sock"))), None)


class MemoryOf:
    """Samples the memory of the sidecar's containers that the kernel cannot reclaim."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.1):
            for path in glob.glob("/sys/fs/cgroup/**/linnet-backup.slice/*/memory.stat", recursive=True):
                with contextlib.suppress(OSError, ValueError):
                    figures = dict(line.split(" ", 1) for line in Path(path).read_text().splitlines())
                    self.peak = max(self.peak, int(figures.get("total_rss") or figures.get("anon") or 0))

    def stop(self) -> int:
        self._stop.set()
        self._thread.join(5)
        return self.peak
