"""Starts: invalid ones must fail, and the valid one must be quick."""

from __future__ import annotations

import os
import shutil
import socket
import time
from contextlib import closing, contextmanager
from pathlib import Path

from engine import (CORE, PROJECT, ROOT, SCRATCH, SECRETS, WITHOUT, address_of, compose, containers, http, inspect,
                    is_redirected, require, run, service_of, shorten, wait)

SETTINGS = ROOT / "deploy" / "linnet.env"
MONITORING = ("prometheus", "alertmanager", "grafana", "loki", "fluent-bit", "cadvisor", "node-exporter", "postgres-exporter",
              "redis-exporter", "nginx-exporter")


def make_up(**environment: str):
    return run("scripts/up", check=False, BUILD="no", **environment)


def assert_start_fails(case: str, named: tuple[str, ...], **environment: str) -> None:
    done = make_up(**environment)
    require(done.returncode != 0, f"{case}: `make up` succeeded:\n{done.stdout}")
    for name in named:
        require(name in done.stdout, f"{case}: `make up` does not name {name}:\n{done.stdout}")
    require(not containers(all_states=True), f"{case}: containers are left behind")
    print(f"    {case}: exit code {done.returncode}, names {', '.join(named)}", flush=True)


def invalid_settings_are_reported_and_start_nothing(_figure) -> None:
    run("scripts/compose-secrets")
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert_start_fails("a port in use", ("port", port), LINNET_PORT=port)
    assert_start_fails("an invalid port", ("PORT=http",), LINNET_PORT="http")
    with replaced_secret("service_token", "short"):
        assert_start_fails("a malformed token", ("service.token", "LINNET__SERVICE__TOKEN"))
    with replaced_secret("postgres_password", "p@ss:word/with#signs"):
        assert_start_fails("a malformed password", ("postgres_password",))
    with additional_setting("LINNET__CACHE__SIZE=1"):
        assert_start_fails("an unknown key", ("cache.size", "LINNET__CACHE__SIZE"))
    # A missing secret would be generated, so a directory takes its place.
    with directory_instead_of_secret("service_token"):
        assert_start_fails("an unreadable secret", ("service_token",))
    # The database was created with another password.
    require(make_up().returncode == 0, "the first start failed")
    run("scripts/down")
    with replaced_secret("postgres_password", "0123456789abcdef-another"):
        assert_start_fails("a wrong database password", ("postgres.url", "password authentication failed"))
    with unwritable_volume("uploads"):
        assert_start_fails("an unwritable volume", ("jobs.upload_dir", "ermission denied"))
    run("scripts/down", VOLUMES="yes")
    (SECRETS / "admin_key").unlink(missing_ok=True)


@contextmanager
def replaced_secret(name: str, value: str):
    file = SECRETS / name
    kept = file.read_text()
    replace_file(file, value)
    try:
        yield
    finally:
        replace_file(file, kept)
        run("scripts/compose-secrets")


def replace_file(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    file.write_text(text)
    file.chmod(0o444)


@contextmanager
def directory_instead_of_secret(name: str):
    file = SECRETS / name
    kept = file.read_text()
    file.unlink()
    file.mkdir()
    try:
        yield
    finally:
        file.rmdir()
        replace_file(file, kept)


@contextmanager
def additional_setting(line: str):
    kept = SETTINGS.read_text() if SETTINGS.exists() else None
    SETTINGS.write_text((kept or "") + "\n" + line + "\n")
    try:
        yield
    finally:
        if kept is None:
            SETTINGS.unlink()
        else:
            SETTINGS.write_text(kept)


@contextmanager
def unwritable_volume(volume: str):
    folder = Path(run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", f"{PROJECT}_{volume}").stdout.strip())
    # Docker would set the owner of an empty volume from the image.
    (folder / "something").touch()
    os.chown(folder, 0, 0)
    folder.chmod(0o755)
    try:
        yield
    finally:
        os.chown(folder, 65532, 65532)


def first_redirect_within_20_s(figure) -> None:
    begun = time.monotonic()
    done = make_up()
    require(done.returncode == 0, f"`make up` failed:\n{done.stdout}")
    shorten("first")
    wait(20, "the first redirect", lambda: is_redirected("first"))
    took = time.monotonic() - begun
    figure("`make up` from built images to the first redirect", f"{took:.1f} s", "<= 20 s")
    require(took <= 20, f"the first redirect took {took:.1f} s")
    for name in CORE:
        require(containers(name), f"{name} does not run")
    left = [service_of(inspect(one)) for one in containers(all_states=True)]
    require({"preflight", "migrate"} <= set(left), "the one-shot services did not run")
    shutil.copy(SECRETS / "admin_key", SCRATCH / "admin_key")


def monitoring_starts(_figure) -> None:
    services = [name for name in MONITORING if name not in WITHOUT]
    compose("up", "-d", "--no-build", *services, files=receiver_files())
    for name in services:
        wait(60, f"{name} to run", lambda name=name: containers(name))
    # It refuses queries until it has read its data.
    wait(60, "Prometheus to be ready", lambda: http("/-/ready", site=f"http://{address_of(containers('prometheus')[0], 'monitoring')}:9090")[0] == 200)


def receiver_files() -> tuple[str, ...]:
    """Adds this machine, where the receiver runs, to Alertmanager's hosts."""
    file = SCRATCH / "receiver.yaml"
    file.write_text("services: {alertmanager: {extra_hosts: ['receiver:host-gateway']}}\n")
    return (str(file),)
