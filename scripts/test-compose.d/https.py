"""`make up TLS=on` as a whole: placeholder, certificate, redirect over HTTPS, a second `make up`, `make down`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager

from engine import PROJECT, SCRATCH, SECRETS, compose, containers, require, run, wait
from startup import make_up

NAME = "go.example.com"
# Pebble's name, which its certificate has and the ACME client's container resolves to this machine.
CA_NAME = "pebble.example"
# nginx looks for the first certificate once a minute to send HSTS.
HSTS_WITHIN_S = 70
# After the first failed order, the ACME client tries again within some minutes, also after a restart.
ORDERED_WITHIN_S = 300


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Pebble:
    """Pebble with a name server for which every name is this machine. Containers reach it."""

    def __init__(self, http_port: int) -> None:
        self.folder = SCRATCH / "pebble"
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.http_port, self.port, self.management, self.names = http_port, free_port(), free_port(), free_port()
        self.ca, self.root = self.folder / "ca.pem", self.folder / "root.pem"
        self.directory = f"https://{CA_NAME}:{self.port}/dir"
        self.processes: list[subprocess.Popen[bytes]] = []

    def create_certificate(self) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        (self.folder / "names").write_text(f"subjectAltName=DNS:{CA_NAME}\n")

        def openssl(*words: str) -> None:
            run("openssl", *words)

        ca_key, request, certificate = (str(self.folder / name) for name in ("ca.key", "request.pem", "cert.pem"))
        openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=test CA", "-addext", "keyUsage=critical,keyCertSign",
                "-keyout", ca_key, "-out", str(self.ca))
        openssl("req", *key, "-subj", "/CN=pebble", "-keyout", str(self.folder / "key.pem"), "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", str(self.ca), "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
                "-out", certificate, "-extfile", str(self.folder / "names"))
        self.ca.chmod(0o444)

    def start(self) -> None:
        self.create_certificate()
        profile = {"description": "a test", "validityPeriod": 86_400}
        config = {"listenAddress": f"0.0.0.0:{self.port}", "managementListenAddress": f"127.0.0.1:{self.management}",
                  "certificate": str(self.folder / "cert.pem"), "privateKey": str(self.folder / "key.pem"),
                  "httpPort": self.http_port, "tlsPort": free_port(), "ocspResponderURL": "",
                  "externalAccountBindingRequired": False, "retryAfter": {"authz": 1, "order": 1},
                  "certificateValidityPeriod": 86_400, "profiles": {"default": profile, "tlsserver": profile}}
        file = self.folder / "pebble.json"
        file.write_text(json.dumps({"pebble": config}))
        names = f"127.0.0.1:{self.names}"
        self.spawn("pebble-challtestsrv", *name_server_options(names))
        self.spawn("pebble", "-config", str(file), "-dnsserver", names, PEBBLE_VA_NOSLEEP="1")
        wait(20, "Pebble", self.save_root)

    def spawn(self, *command: str, **environment: str) -> None:
        with (self.folder / f"{command[0]}.log").open("wb") as log:
            self.processes.append(subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log))

    def save_root(self) -> bool:
        """Saves the root under which it issues certificates."""
        done = run("curl", "-fsS", "-m", "2", "--noproxy", "*", "--cacert", str(self.ca), "--resolve",
                   f"{CA_NAME}:{self.management}:127.0.0.1", "-o", str(self.root), f"https://{CA_NAME}:{self.management}/roots/0",
                   check=False)
        return done.returncode == 0

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def name_server_options(address: str) -> Iterator[str]:
    usage = run("pebble-challtestsrv", "-h", check=False).stdout
    # Version 2.10 renamed it.
    listen = "-dns01" if "-dns01 " in usage else "-dnsserver"
    options = {listen: address, "-management": f"127.0.0.1:{free_port()}", "-defaultIPv4": "127.0.0.1", "-defaultIPv6": "",
               "-http01": "", "-https01": "", "-tlsalpn01": "", "-doh": ""}
    for option, value in options.items():
        if f"{option} " in usage:
            yield from (option, value)


@contextmanager
def pebble(http_port: int) -> Iterator[Pebble]:
    server = Pebble(http_port)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def https_from_the_first_start_to_the_end(figure) -> None:
    """The certificate is ordered from Pebble, which is let into the ACME client's container by another Compose file."""
    http_port, https_port = free_port(), free_port()
    origin = f"https://{NAME}:{https_port}"
    run("scripts/down", VOLUMES="yes")
    (SECRETS / "admin_key").unlink(missing_ok=True)
    with pebble(http_port) as ca:
        settings = {"TLS": "on", "LINNET_NAMES": NAME, "LINNET_HTTP_PORT": str(http_port), "LINNET_HTTPS_PORT": str(https_port),
                    "LINNET_BASE_URL": origin, "LINNET_ACME_DIRECTORY": ca.directory}

        def get(path: str, *options: str, port: int = https_port, scheme: str = "https") -> str:
            """Status and headers; nothing without a response, or with a certificate of another CA."""
            return run("curl", "-sS", "-m", "5", "--noproxy", "*", "--resolve", f"{NAME}:{port}:127.0.0.1", "--cacert", str(ca.root),
                       "-D", "-", "-o", "/dev/null", *options, f"{scheme}://{NAME}:{port}{path}", check=False).stdout

        require(make_up(**settings).returncode == 0, "`make up TLS=on` failed")
        # The CA cannot be reached yet. The placeholder serves, and no client trusts it.
        require("HTTP/2 200" in get("/health", "--insecure"), f"no response with the placeholder:\n{get('/health', '--insecure')}")
        require("HTTP/2" not in get("/health"), "the placeholder is trusted")
        plain = get("/x?y=1", port=http_port, scheme="http")
        require(" 308 " in plain and f"location: {origin}/x?y=1" in plain.replace("Location", "location"), f"no redirect to HTTPS:\n{plain}")
        require("strict-transport-security" not in get("/health", "--insecure").lower(), "HSTS with the placeholder")

        file = SCRATCH / "pebble.yaml"
        file.write_text(
            f"services:\n  acme:\n    environment: {{LINNET__ACME__CA_FILE: /ca.pem, LINNET__ACME__PROBE_ADDRESS: '{NAME}:{http_port}'}}\n"
            f"    volumes: ['{ca.ca}:/ca.pem:ro']\n    extra_hosts: ['{CA_NAME}:host-gateway', '{NAME}:host-gateway']\n")
        with environment(settings | {"LINNET_PORT": str(http_port), "LINNET_HOST": "0.0.0.0"}):
            compose("up", "-d", "--no-build", "--no-deps", "acme", files=("deploy/compose.tls.yaml", str(file)))
        took = wait(ORDERED_WITHIN_S, "a certificate of Pebble", lambda: "HTTP/2 200" in get("/health"))
        figure("`make up TLS=on`: the first certificate after the CA can be reached", f"{took:.0f} s", "")
        wait(HSTS_WITHIN_S, "HSTS", lambda: "strict-transport-security: max-age=" in get("/health").lower())

        key = (SECRETS / "admin_key").read_text().strip()
        created = get("/api/v1/urls", "-H", f"Authorization: Bearer {key}", "--json",
                      json.dumps({"original_url": "https://example.com/", "short_code": "over-tls"}))
        require("HTTP/2 201" in created, f"a link was not created:\n{created}")
        require("location: https://example.com/" in get("/over-tls").lower(), "the link does not resolve")
        # nginx is recreated, and the volume has the certificate.
        require(make_up(**settings).returncode == 0, "the second `make up TLS=on` failed")
        wait(30, "HTTPS after a second start", lambda: "HTTP/2 302" in get("/over-tls"))
    run("scripts/down")
    require(not containers(all_states=True), "`make down` left containers")
    require(not left("network"), f"`make down` left networks: {left('network')}")
    require(any("certificates" in volume for volume in left("volume")), "`make down` deleted the certificate")
    run("scripts/down", VOLUMES="yes")
    require(not left("volume"), f"`make down VOLUMES=yes` left volumes: {left('volume')}")


def left(kind: str) -> list[str]:
    """The networks or volumes of the project."""
    names = ("--format", "{{.Name}}", "--filter", f"label=com.docker.compose.project={PROJECT}")
    return run("docker", kind, "ls", *names).stdout.split()


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """For Compose, whose files read them."""
    kept = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
