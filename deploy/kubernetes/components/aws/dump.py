#!/usr/bin/env python3
"""Stores a dump of the database in a bucket, or restores the newest one into an empty PostgreSQL.

    dump.py backup          streams pg_dump to dumps/TIME.dump; needs BUCKET_FILE and POSTGRES_URL_FILE
    dump.py restore-test    exits with 1 if a restore would fail; needs BUCKET_FILE and FOLDER, an empty one

BUCKET_FILE has s3://NAME?region=REGION, and &endpoint=URL for another server than that of AWS. The CronJobs of this component run it
with the image of CloudNativePG, which has pg_dump, PostgreSQL and boto3.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.parse
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import boto3
from boto3.s3.transfer import TransferConfig

PREFIX = "dumps/"
NAME = "%Y%m%dT%H%M%SZ"
# One part of 32 MiB in memory at a time; S3 allows 10,000, so 312 GiB.
TRANSFER = TransferConfig(multipart_threshold=32 << 20, multipart_chunksize=32 << 20, use_threads=False)
LOCK_TIMEOUT_S = 60
START_TIMEOUT_S = 120
RESTORE_TIMEOUT_S = 14400


class Failure(Exception):
    """A reason for the operator."""


class Dump:
    """The output of pg_dump as a file. Its end is an error unless pg_dump succeeded, so that no truncated dump is stored: in a
    bucket with object lock it could not be deleted."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        self.process, self.output, self.size = process, process.stdout, 0

    def read(self, count: int = -1) -> bytes:
        """The next bytes; fewer than `count` only at the end."""
        data = self.output.read(count)
        self.size += len(data)
        if (count < 0 or len(data) < count) and self.process.wait(timeout=60) != 0:
            raise Failure(f"pg_dump exited with {self.process.returncode}")
        return data


def bucket() -> tuple[Any, str]:
    """The client of S3, and the bucket's name. boto3 gets the credentials from the environment."""
    url = urllib.parse.urlsplit(Path(os.environ["BUCKET_FILE"]).read_text().strip())
    options = dict(urllib.parse.parse_qsl(url.query))
    if url.scheme != "s3" or not url.netloc or "region" not in options:
        raise Failure("BUCKET_FILE must contain s3://NAME?region=REGION")
    return boto3.client("s3", region_name=options["region"], endpoint_url=options.get("endpoint")), url.netloc


def backup() -> None:
    """Stores a dump. An unfinished upload is aborted and leaves no object."""
    client, name = bucket()
    database = Path(os.environ["POSTGRES_URL_FILE"]).read_text().strip()
    key = PREFIX + datetime.now(UTC).strftime(NAME) + ".dump"
    started = time.monotonic()
    command = ["pg_dump", "--format=custom", f"--lock-wait-timeout={LOCK_TIMEOUT_S}s", "--dbname", database]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PGCONNECT_TIMEOUT": "10"}) as process:
        dump = Dump(process)
        try:
            # A bucket with object lock refuses uploads without a checksum.
            client.upload_fileobj(dump, name, key, ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Config=TRANSFER)
        except BaseException:
            process.kill()
            raise
    print(f"stored {key}: {dump.size} bytes in {time.monotonic() - started:.0f} s")


def run(*command: str, timeout: int) -> str:
    """The output of a command; fails with the end of its error."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise Failure(f"{command[0]}: {done.stderr.strip()[-800:]}")
    return done.stdout.strip()


def newest(client: Any, name: str) -> str:
    """The key of the newest dump, which must not be older than MAX_BACKUP_AGE_S."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=PREFIX)
    keys = [item["Key"] for page in pages for item in page.get("Contents", []) if item["Key"].endswith(".dump")]
    if not keys:
        raise Failure(f"there is no dump in {name}/{PREFIX}")
    key: str = max(keys)
    made = datetime.strptime(key.removeprefix(PREFIX).removesuffix(".dump"), NAME).replace(tzinfo=UTC)
    age, limit = (datetime.now(UTC) - made).total_seconds(), int(os.environ.get("MAX_BACKUP_AGE_S", "93600"))
    if age > limit:
        raise Failure(f"the newest dump, {key}, is {age:.0f} s old, more than {limit}; check the CronJob backup")
    return key


def restore_test() -> None:
    """Restores the newest dump and reads what it contains."""
    client, name = bucket()
    folder = Path(os.environ["FOLDER"])
    key = newest(client, name)
    started = time.monotonic()
    dump, data, socket = folder / "dump", folder / "data", folder / "socket"
    socket.mkdir(exist_ok=True)
    client.download_file(name, key, str(dump), Config=TRANSFER)
    run("initdb", "--pgdata", str(data), "--username", "postgres", "--auth", "trust", "--encoding=UTF8", "--locale=C.UTF-8", timeout=START_TIMEOUT_S)
    with (data / "postgresql.auto.conf").open("a") as conf:
        write_settings(conf, socket)
    log = str(folder / "log")
    run("pg_ctl", "--pgdata", str(data), "--log", log, "--timeout", str(START_TIMEOUT_S), "--wait", "start", timeout=2 * START_TIMEOUT_S)
    where = ("--host", str(socket), "--username", "postgres")
    try:
        run("createdb", *where, "linnet", timeout=START_TIMEOUT_S)
        run(
            "pg_restore", *where, "--dbname", "linnet", "--jobs", "2", "--exit-on-error", "--no-owner", "--no-privileges", str(dump),
            timeout=RESTORE_TIMEOUT_S,
        )  # fmt: skip
        query = "SELECT (SELECT count(*) FROM urls), (SELECT count(*) FROM users)"
        links, users = run("psql", *where, "-Xqtd", "linnet", "--no-align", "-c", query, timeout=1800).split("|")
    finally:
        run("pg_ctl", "--pgdata", str(data), "--mode", "immediate", "stop", timeout=START_TIMEOUT_S)
    print(f"restored {key}: {links} links and {users} users in {time.monotonic() - started:.0f} s")
    if int(users) == 0:
        raise Failure("the restored database has no user")


def write_settings(conf: IO[str], socket: Path) -> None:
    """No network, and no durability: the database is deleted afterwards."""
    conf.write(f"listen_addresses = ''\nunix_socket_directories = '{socket}'\nfsync = off\nfull_page_writes = off\nmax_wal_size = 4GB\n")


def main(arguments: list[str]) -> int:
    """Runs the command."""
    commands = {"backup": backup, "restore-test": restore_test}
    if len(arguments) != 1 or arguments[0] not in commands:
        print("usage: dump.py backup | restore-test", file=sys.stderr)
        return 64
    try:
        commands[arguments[0]]()
    except Failure as failure:
        print(f"{arguments[0]}: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
