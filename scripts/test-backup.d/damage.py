"""Damaged and foreign repositories: a restore is refused or fails, and the database stays."""

from __future__ import annotations

import random
import time
from pathlib import Path

from stack import (
    bucket, compose, log, lose_everything, metric, once, require, require_refused, restore, sql, up, volume, wait, wait_until_drained,
)


def flip(path: Path) -> None:
    """Changes one byte in the middle of a file, where neither a header nor padding is."""
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at] ^= 0xFF
    path.write_bytes(data)


def assert_found(what: str, *texts: str) -> None:
    """The restore test fails and names the reason; so does the restore, and the database is as it was."""
    rows = sql("SELECT count(*) FROM urls")
    done = once("restore-test", check=False)
    require_refused(done, "error:")
    wait(60, "the metric of the failed test", lambda: metric("restore_test_ok") == 0)
    require(not (volume("backup-state") / "scratch").exists(), "the scratch folder is left")
    done = restore(check=False)
    require_refused(done, "the database is as it was", *texts)
    wait(60, "PostgreSQL", lambda: sql("SELECT 1", check=False) == "1")
    require(sql("SELECT count(*) FROM urls") == rows, f"rows have changed after the restore with {what}")
    sql("INSERT INTO events (event_type) VALUES ('test.after_damage')")


def assert_repaired() -> None:
    once("backup", "--full")
    once("restore-test")
    wait(60, "the metric of the test that succeeded", lambda: metric("restore_test_ok") == 1)


def damaged_wal_fails_the_test_and_the_restore_and_keeps_the_database(figure) -> None:
    once("backup", "--full")
    wait_until_drained()
    backed_up = time.time()
    sql("INSERT INTO urls (short_code, original_url) SELECT 'wal' || n, 'https://example.com/' || md5(n::text) FROM generate_series(1, 5000) n")
    sql("SELECT pg_switch_wal()")
    wait_until_drained()
    segments = [path for path in bucket().rglob("archive/linnet/*/*/0000*.zst") if path.stat().st_mtime > backed_up]
    require(segments, f"no segments in {bucket()}")
    flip(max(segments, key=lambda path: path.stat().st_size))
    assert_found("damaged WAL")
    assert_repaired()


def damaged_backup_fails_the_test_and_the_restore_and_keeps_the_database(figure) -> None:
    done = once("backup", "--full")
    label = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("backup "))
    bundles = sorted((bucket() / "linnet/backup/linnet" / label).rglob("bundle/*"), key=lambda path: path.stat().st_size)
    require(bundles, f"no bundles of {label}")
    flip(bundles[-1])
    assert_found("a damaged bundle")
    assert_repaired()


def repository_of_another_database_is_refused(figure) -> None:
    """An empty database was created where the old one was lost: it must not write into the old one's backups."""
    rows = sql("SELECT count(*) FROM urls")
    sql("SELECT pg_switch_wal()")
    wait_until_drained()
    lose_everything("postgres", "archive", "backup-state")
    up("postgres")
    compose("up", "--detach", "--no-build", "backup")
    sql(f"CREATE TABLE other AS SELECT {random.randint(1, 9)} AS n")
    sql("SELECT pg_switch_wal()")
    wait(120, "the refusal", lambda: "the repository belongs to another database" in log("backup"))
    require_refused(once("backup", check=False), "the repository belongs to another database", "choose an empty path")
    # The segments of the other database are in the archive folder. They are given up, like that database.
    require_refused(restore(check=False), "WAL segment(s) cannot be pushed")
    restore("--without-newest")
    require(sql("SELECT count(*) FROM urls") == rows, "the lost database is not back")
