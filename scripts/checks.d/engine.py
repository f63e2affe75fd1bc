"""The containers of one project: commands, requests, waits."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from checks import Failed as Failed, require as require, wait as wait

ROOT = Path(__file__).resolve().parents[2]
PORT = int(os.environ["LINNET_PORT"])
SITE = f"http://127.0.0.1:{PORT}"
SECRETS = Path(os.environ["LINNET_SECRETS"])
SCRATCH = Path(os.environ["LINNET_SCRATCH"])
PROJECT = os.environ["LINNET_PROJECT"]
# scripts/compose-lib.sh writes this file.
BY_TAG = ("deploy/run/images-by-tag.yaml",) if os.environ.get("LINNET_IMAGES_BY_TAG") == "yes" else ()
WITHOUT = set(filter(None, os.environ.get("LINNET_WITHOUT", "").split(",")))

CORE = ("nginx", "gateway-blue", "shortener-blue", "worker", "postgres", "redis")


def run(*command: str, check: bool = True, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout, check=False)
    if check and done.returncode:
        raise Failed(f"{' '.join(command)} failed with exit code {done.returncode}:\n{done.stdout}")
    return done


def compose(*words: str, check: bool = True, files: tuple[str, ...] = (), timeout: float = 300) -> subprocess.CompletedProcess[str]:
    options = [word for file in ("deploy/compose.yaml", *BY_TAG, *files) for word in ("-f", file)]
    return run("docker", "compose", *options, "--profile", "green", "--profile", "monitoring", *words, check=check, timeout=timeout)


def containers(service: str | None = None, *, all_states: bool = False) -> list[str]:
    words = ["docker", "ps", "-q", "--no-trunc", "--filter", f"label=com.docker.compose.project={PROJECT}",
             "--filter", "label=com.docker.compose.oneoff=False"]
    if all_states:
        words.append("-a")
    if service:
        words += ["--filter", f"label=com.docker.compose.service={service}"]
    return run(*words).stdout.split()


def inspect(container: str) -> dict:
    return json.loads(run("docker", "inspect", container).stdout)[0]


def service_of(details: dict) -> str:
    return details["Config"]["Labels"]["com.docker.compose.service"]


def print_logs() -> None:
    """The state of each container of the project, and the end of its log."""
    print(compose("ps", "-a", check=False).stdout)
    for container in containers(all_states=True):
        lines = run("docker", "logs", "--tail", "15", container, check=False).stdout
        print(f"--- {service_of(inspect(container))}:\n{lines}")


def http(path: str, *, site: str = SITE, method: str = "GET", body: dict | None = None, key: str | None = None,
         timeout: float = 10) -> tuple[int, str]:
    """Status and text; the status is 0 without a response. Redirects are not followed."""
    request = urllib.request.Request(site + path, method=method, data=None if body is None else json.dumps(body).encode())
    request.add_header("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
    if body is not None:
        request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with OPENER.open(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (OSError, ValueError):
        return 0, ""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args, **_more):
        return None


OPENER = urllib.request.build_opener(NoRedirect)


def admin_key() -> str:
    return (SECRETS / "admin_key").read_text().strip()


def shorten(code: str, target: str = "https://example.com/") -> None:
    status, text = http("/api/v1/urls", method="POST", body={"original_url": target, "short_code": code}, key=admin_key())
    if status != 201:
        raise Failed(f"POST /api/v1/urls: {status} {text}")


def is_redirected(code: str) -> bool:
    return http(f"/{code}", timeout=2)[0] == 302


def prometheus(path: str) -> dict:
    """Queries Prometheus by its container's address, because its network publishes no port."""
    details = inspect(containers("prometheus")[0])
    address = next(iter(details["NetworkSettings"]["Networks"].values()))["IPAddress"]
    status, text = http(path, site=f"http://{address}:9090")
    require(status == 200, f"Prometheus returned {status} for {path}: {text}")
    return json.loads(text)["data"]


def address_of(container: str, network: str) -> str:
    networks = inspect(container)["NetworkSettings"]["Networks"]
    return next(details["IPAddress"] for name, details in networks.items() if name.endswith(f"_{network}"))


def post_csv(rows: str, *, check: bool = True) -> tuple[int, str]:
    file = SCRATCH / f"rows-{time.time_ns()}.csv"
    file.write_text(rows)
    try:
        done = run("curl", "-sS", "-w", "\\n%{http_code}", "-H", f"Authorization: Bearer {admin_key()}", "-F", f"file=@{file};type=text/csv",
                   f"{SITE}/api/v1/urls/bulk", check=check)
    finally:
        file.unlink()
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def redis_cli(*words: str) -> str:
    password = (SECRETS / "redis_password").read_text()
    return run("docker", "exec", "-e", f"REDISCLI_AUTH={password}", containers("redis")[0], "redis-cli", "--user", "operator", *words).stdout


def sql(statement: str) -> str:
    """Runs a statement as superuser and returns its output."""
    return run("docker", "exec", containers("postgres")[0], "psql", "-XqAt", "-U", "postgres", "-d", "linnet", "-c", statement).stdout.strip()


@contextmanager
def open_transaction(statement: str):
    """Keeps a transaction open after this statement."""
    command = ("docker", "exec", "-i", containers("postgres")[0], "psql", "-XqAt", "-U", "postgres", "-d", "linnet")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        session.stdin.write(f"BEGIN;\n{statement};\nSELECT 'held';\n")
        session.stdin.flush()
        require(session.stdout.readline().strip() == "held", f"PostgreSQL rejects {statement}")
        try:
            yield
        finally:
            session.stdin.close()
