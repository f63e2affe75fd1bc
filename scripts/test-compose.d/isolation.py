"""Images and containers: size and labels, published ports, privileges, networks."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from pathlib import Path

from engine import PORT, SCRATCH, Failed, containers, inspect, require, run, service_of

MEGABYTE = 1_000_000


def images_are_small_and_labeled(figure) -> None:
    for name in ("gateway", "shortener"):
        details = inspect(os.environ[f"LINNET_{name.upper()}_IMAGE"])
        size = details["Size"] / MEGABYTE
        figure(f"image {name}", f"{size:.1f} MB", "<= 22 MB")
        require(size <= 22, f"the image {name} has {size:.1f} MB")
        config = details["Config"]
        require(config["User"] == "65532:65532", f"{name} runs as {config['User']}")
        require(config.get("Healthcheck"), f"{name} has no health check")
        labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
        missing = {"title", "description", "licenses", "source", "version", "revision", "created"} - {
            key for key, value in labels.items() if value}
        require(not missing, f"{name} lacks the labels {missing}")
        version = run("docker", "run", "--rm", os.environ[f"LINNET_{name.upper()}_IMAGE"], "--version").stdout
        crates = crates_in(os.environ[f"LINNET_{name.upper()}_IMAGE"], f"/linnet-{name}")
        require({"actix-web", f"linnet-{name}"} <= crates, f"the program in the image {name} lists {len(crates)} crates")
        require(labels["version"] in version, f"{name} --version prints {version.strip()}, but the image has the version {labels['version']}")


def crates_in(image: str, program: str) -> set[str]:
    """The crates that the program lists for scanners. The image has no shell, so a container that never runs is read."""
    container = run("docker", "create", image).stdout.strip()
    try:
        with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
            run("docker", "cp", f"{container}:{program}", f"{folder}/program")
            lines = run("scripts/audit-data", f"{folder}/program").stdout.splitlines()
    finally:
        run("docker", "rm", container)
    return {line.split()[0] for line in lines}


def only_nginx_publishes_a_port(_figure) -> None:
    exposed = set()
    for container in containers():
        details = inspect(container)
        name, ports = service_of(details), details["NetworkSettings"]["Ports"] or {}
        published = {port: where for port, where in ports.items() if where}
        exposed |= {int(port.split("/")[0]) for port in ports}
        require(bool(published) == (name == "nginx"), f"{name} publishes {published}")
        for where in published.values():
            for address in where:
                require(address == {"HostIp": "127.0.0.1", "HostPort": str(PORT)}, f"nginx is published at {address}")
    # The ports that the engine has really opened.
    own = re.compile(r"\bdocker-proxy\b.*-host-port (\d+)")
    opened = {int(found[1]) for line in run("ps", "-eo", "args").stdout.splitlines() if (found := own.search(line))}
    require(opened <= {PORT} or not ({PORT} - opened), f"the engine listens on {opened}")
    require({PORT} == opened & ({PORT} | exposed), f"the engine listens on {opened}")
    for port in sorted(exposed - {PORT}):
        if is_unused_by_others(port):
            require(not accepts_connections(port), f"port {port} accepts connections on 127.0.0.1")


def is_unused_by_others(port: int) -> bool:
    """False if another program of this machine listens on the same port."""
    listening = run("ss", "-Hltnp", f"sport = :{port}").stdout
    return "docker-proxy" in listening or not listening.strip()


def accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def processes_have_no_root_and_no_privileges(_figure) -> None:
    for container in containers():
        details = inspect(container)
        name = service_of(details)
        for pid in processes(container):
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
            require("0" not in status["Uid"].split(), f"{name} (pid {pid}) runs as root")
            require("0" not in status["Gid"].split() or name == "grafana", f"{name} (pid {pid}) has the group root")
            require(int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, f"{name} has capabilities: {status['CapEff']}")
            require(status["NoNewPrivs"].strip() == "1", f"{name} may gain privileges")
            mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
            root = [mount[5].split(",") for mount in mounts if mount[4] == "/"]
            require(root and "ro" in root[-1], f"{name} can write its root: {root}")
        host = details["HostConfig"]
        for limit in ("Memory", "PidsLimit", "NanoCpus"):
            require(host[limit], f"{name} has no limit: {limit}")
        require(host["LogConfig"]["Config"].get("max-size"), f"the log of {name} has no bound")
        binds = [mount["Source"] for mount in details["Mounts"]]
        require(not any("docker.sock" in bind for bind in binds), f"{name} has the engine's socket")


def processes(container: str) -> list[str]:
    lines = run("docker", "top", container, "-eo", "pid").stdout.split()
    return [word for word in lines if word.isdigit() and Path(f"/proc/{word}").exists()]


def only_nginx_and_alertmanager_have_a_route_out(_figure) -> None:
    ways_out = {"nginx": {"front"}, "alertmanager": {"out"}}
    for container in containers():
        details = inspect(container)
        name = service_of(details)
        for network in details["NetworkSettings"]["Networks"]:
            short = network.rsplit("_", 1)[-1]
            is_internal = run("docker", "network", "inspect", "-f", "{{.Internal}}", network).stdout.strip() == "true"
            if not is_internal and short not in ways_out.get(name, set()):
                raise Failed(f"{name} is on {network}, which is not internal")
