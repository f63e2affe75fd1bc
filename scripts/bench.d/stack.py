"""The measured servers: private PostgreSQL and Redis, Linnet's release binaries on unix sockets, and Linnet's nginx
configuration in front of them and of the bare handler.

Settings have their production defaults, with two exceptions for a single client: rate limits are counted but too high to
be reached, and PostgreSQL also accepts the connections of pgbench.
"""

from __future__ import annotations

import http.client
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from processes import BenchError, Process, Processes

ROOT = Path(__file__).resolve().parents[2]
SERVICE = str(ROOT / "scripts" / "service")
UNREACHED_LIMITS = {
    # 32 of them are for the API, as many as pgbench has, so that both sides commit in groups of the same size.
    "LINNET__POSTGRES__MAX_CONNECTIONS": "50",
    "LINNET__LIMITS__KEY_PER_MINUTE": "60000000",
    "LINNET__LIMITS__KEY_BURST": "1000000",
    "LINNET__LIMITS__USER_PER_MINUTE": "60000000",
    "LINNET__LIMITS__USER_BURST": "1000000",
    # No address is exempt, not even this machine's.
    "LINNET_NGINX_UNLIMITED": "",
    "LINNET_NGINX_API_RATE": "100000r/s",
    "LINNET_NGINX_API_BURST": "20000",
    "LINNET_NGINX_CONNECTIONS_PER_ADDRESS": "2000",
}


@dataclass
class Shortener:
    process: Process
    resolve: str
    api: str
    admin: str

    def lookups(self) -> dict[str, float]:
        """`linnet_cache_lookups_total` by tier."""
        return self._by_label("linnet_cache_lookups_total", "tier")

    def redirects(self) -> int:
        """Redirects served so far."""
        return int(self._by_label("linnet_resolve_responses_total", "outcome").get("redirected", 0))

    def _by_label(self, name: str, label: str) -> dict[str, float]:
        status, text = http_get(self.admin, "/metrics")
        if status != 200:
            raise BenchError(f"/metrics of {self.process.name} returned {status}")
        return {value: float(count)
                for value, count in re.findall(rf'^{name}\{{[^}}]*{label}="(\w+)"[^}}]*\}} (\S+)$', text, re.M)}


# Clicks in the roll-up of the whole installation, which is written with one half of a batch, and batches that lack a
# half.
RECORDED = "SELECT COALESCE(sum(clicks + bots + prefetches + heads), 0) FROM click_days WHERE subject = 0"
UNEVEN_BATCHES = "SELECT count(*) FROM (SELECT FROM click_batches WHERE shard > 0 GROUP BY id HAVING count(*) < 2) AS uneven"


class Stack:
    def __init__(self, processes: Processes, folder: Path, sockets: Path, binaries: Path) -> None:
        self.processes = processes
        self.folder = folder
        self.sockets = sockets
        self.binaries = binaries
        self.taken: set[int] = set()
        self.pg_bin = Path(bash("postgres_bin ''"))
        self.environment = {name: value for name, value in os.environ.items()
                            if not name.startswith(("LINNET_", "OTEL_", "PG", "PYTHON"))}
        self.environment |= UNREACHED_LIMITS
        self.environment["LINNET__SERVICE__TOKEN"] = secrets.token_hex(32)
        # Each process creates its own directory in it.
        self.environment["LINNET__CLICKS__SPOOL_DIR"] = str(folder / "spool")
        self.environment["LINNET__JOBS__UPLOAD_DIR"] = str(folder / "uploads")

    # --- PostgreSQL and Redis ---

    def start_databases(self) -> None:
        self.pg_port, self.redis_port = self.port(), self.port()
        environment = self.environment | {"LINNET_PG_MAX_CONNECTIONS": "200", "LINNET_REDIS_MAXMEMORY": "512mb",
                                          "LINNET_REDIS_OPEN": "1"}
        folder = self.folder / "postgres"
        self.postgres = self.processes.start("postgres", [SERVICE, "postgres", str(folder), str(self.pg_port)], environment,
                                             stop_signal=signal.SIGINT)
        self.redis = self.processes.start("redis", [SERVICE, "redis", str(self.folder / "redis"), str(self.redis_port)],
                                          environment, grace_s=10)
        ready = [str(self.pg_bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.pg_port)]
        self.processes.wait_until(self.postgres, "PostgreSQL to accept connections", lambda: subprocess.run(ready).returncode == 0)
        self.processes.wait_until(self.redis, "Redis to accept connections", lambda: self.redis_command("PING") == "+PONG")
        url = (folder / "url-socket").read_text().strip()
        self.environment |= {
            "LINNET__POSTGRES__URL": url,
            "LINNET__REDIS__URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "LINNET__PUBLIC__BASE_URL": "http://bench.local",
        }
        host = re.search(r"host=(.*)$", url)
        self.pg_environment = self.environment | {
            "PGHOST": host.group(1).replace("%20", " ") if host else "127.0.0.1",
            "PGPORT": str(self.pg_port), "PGUSER": "linnet", "PGDATABASE": "linnet",
            "PGPASSWORD": (folder / "password").read_text().strip(),
        }
        self.processes.run([self.binary("linnet-shortener"), "migrate"], env=self.environment)

    def sql(self, statement: str) -> str:
        argv = [str(self.pg_bin / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement]
        return self.processes.run(argv, env=self.pg_environment).stdout.strip()

    def load(self, links: int) -> None:
        """Loads the links and finishes vacuum and checkpoint, so that the server has no background work left."""
        with subprocess.Popen([self.binary("linnet-bench"), "rows", "--links", str(links)], stdout=subprocess.PIPE,
                              start_new_session=True) as rows:
            copy = "COPY urls (short_code, original_url, clicks) FROM STDIN"
            argv = [str(self.pg_bin / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-c", copy]
            self.processes.run(argv, env=self.pg_environment, stdin=rows.stdout)
        if int(self.sql("SELECT count(*) FROM urls")) != links:
            raise BenchError("some links were not loaded")
        self.sql("VACUUM (FREEZE, ANALYZE) urls")
        self.as_superuser("CHECKPOINT")

    def copy_in(self, target: str, file: Path) -> None:
        """COPY of a file in text format, through the same socket as Linnet."""
        argv = [str(self.pg_bin / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-c", f"COPY {target} FROM STDIN"]
        with file.open() as rows:
            self.processes.run(argv, env=self.pg_environment, stdin=rows)

    def as_superuser(self, statement: str) -> None:
        password = (self.folder / "postgres" / "superuser-password").read_text().strip()
        environment = self.pg_environment | {"PGUSER": "postgres", "PGPASSWORD": password}
        self.processes.run([str(self.pg_bin / "psql"), "-Xq", "-c", statement], env=environment)

    def redis_command(self, *words: str) -> str:
        """Sends a command and returns the first line of the reply."""
        try:
            with socket.create_connection(("127.0.0.1", self.redis_port), timeout=60) as connection:
                connection.sendall((" ".join(words) + "\r\n").encode())
                return connection.makefile().readline().strip()
        except OSError:
            return ""

    def create_key(self, scopes: str = "urls:read,urls:write") -> tuple[str, int]:
        """Creates a key of the only user, by default for reading and writing links. Returns the key and the user's id."""
        argv = [self.binary("linnet-shortener"), "admin", "create-key", "--username", "bench", "--email", "bench@example.com",
                "--scopes", scopes, "--name", "bench"]
        key = self.processes.run(argv, env=self.environment).stdout.strip().splitlines()[-1]
        return key, int(self.sql("SELECT id FROM users WHERE email = 'bench@example.com'"))

    def generate(self, links: int, clicks: int, days: int, seed: int, *flags: str) -> None:
        """Generates links of the key's user, and clicks on them."""
        argv = [self.binary("linnet-shortener"), "admin", "generate", "--links", str(links), "--clicks", str(clicks), "--days",
                str(days), "--seed", str(seed), "--user", "bench@example.com", *flags]
        self.processes.run(argv, env=self.environment, timeout_s=7200)

    def recorded(self) -> int:
        """Recorded clicks, from the roll-up of the whole installation."""
        return int(self.sql(RECORDED))

    def forget_clicks(self) -> None:
        """Deletes the stream, after the shorteners have flushed their buffers (`clicks.flush_ms`)."""
        time.sleep(0.5)
        self.redis_command("UNLINK", "linnet:clicks")

    def wait_recorded(self, wanted: int, timeout_s: float) -> int:
        """Waits until this many clicks are recorded, with both halves of each batch. Returns the last count."""
        deadline = time.monotonic() + timeout_s
        # One psql for all polls: a new connection for each would add a few percent to the measured time.
        argv = [str(self.pg_bin / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"]
        environment = self.pg_environment | {"PGOPTIONS": "-c statement_timeout=60s"}
        with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              start_new_session=True) as psql:
            while True:
                psql.stdin.write(f"{RECORDED}; {UNEVEN_BATCHES};\n")
                psql.stdin.flush()
                recorded, uneven = (int(psql.stdout.readline() or -1) for _ in range(2))
                if recorded < 0 or uneven < 0:
                    raise BenchError("psql exited while counting the recorded clicks")
                if (recorded >= wanted and uneven == 0) or time.monotonic() > deadline:
                    return recorded
                time.sleep(0.2)

    # --- Linnet ---

    def binary(self, name: str) -> str:
        return str(self.binaries / name)

    def socket(self, name: str) -> str:
        return f"unix:{self.sockets}/{name}.sock"

    def start_shortener(self, name: str, *, resolve: str | None = None, wait: bool = True, **settings: str) -> Shortener:
        resolve = resolve or self.socket(name)
        api, admin = self.socket(f"{name}-api"), f"127.0.0.1:{self.port()}"
        environment = self.environment | {
            "LINNET__SHORTENER__RESOLVE_LISTEN": resolve,
            "LINNET__SHORTENER__API_LISTEN": api,
            "LINNET__SHORTENER__ADMIN_LISTEN": admin,
        } | settings
        process = self.processes.start(name, [self.binary("linnet-shortener"), "serve"], environment)
        shortener = Shortener(process, resolve, api, admin)
        if wait:
            self.processes.wait_until(process, f"{name} to be ready", lambda: is_ok(admin, "/readyz"))
        return shortener

    def start_worker(self, name: str, **settings: str) -> Process:
        admin = f"127.0.0.1:{self.port()}"
        environment = self.environment | {"LINNET__WORKER__ADMIN_LISTEN": admin} | settings
        return self.processes.start(name, [self.binary("linnet-shortener"), "worker"], environment)

    def start_gateway(self, name: str, shorteners: list[Shortener], **settings: str) -> tuple[Process, str]:
        listen, admin = self.socket(name), f"127.0.0.1:{self.port()}"
        environment = self.environment | {
            "LINNET__GATEWAY__LISTEN": listen,
            "LINNET__GATEWAY__ADMIN_LISTEN": admin,
            "LINNET__UPSTREAM__SHORTENERS": ",".join(s.api for s in shorteners),
        } | settings
        process = self.processes.start(name, [self.binary("linnet-gateway"), "serve"], environment)
        self.processes.wait_until(process, f"{name} to be ready", lambda: is_ok(admin, "/readyz"))
        return process, listen

    def start_bare(self, name: str, listen: str) -> Process:
        process = self.processes.start(name, [self.binary("linnet-bench-bare"), listen], self.environment, grace_s=10)
        self.processes.wait_until(process, f"{name} to accept connections", lambda: listens(listen))
        return process

    # --- nginx ---

    def start_nginx(self, name: str, resolve: list[str], gateway: str) -> tuple[Process, str]:
        """Starts nginx with Linnet's configuration. Returns process and address."""
        address = f"127.0.0.1:{self.port()}"
        environment = self.environment | {
            "LINNET_NGINX_RESOLVE": ",".join(resolve),
            "LINNET_NGINX_GATEWAY": gateway,
            "LINNET_NGINX_LISTEN": address,
        }
        return self.nginx(name, [SERVICE, "nginx", str(self.folder / name)], environment, address), address

    def certificate(self) -> Path:
        """A folder with a self-signed certificate for P-256, as CAs issue for Linnet."""
        folder = self.folder / "certificate"
        folder.mkdir(mode=0o711)
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
                "/CN=bench.local", "-addext", "subjectAltName=DNS:bench.local", "-keyout", str(folder / "key.pem"),
                "-out", str(folder / "cert.pem")]
        self.processes.run(argv)
        # nginx's worker processes read it at each handshake.
        (folder / "key.pem").chmod(0o644)
        return folder

    def start_tls_nginx(self, name: str, resolve: list[str], gateway: str, certificate: Path) -> tuple[Process, str, str]:
        """Starts nginx with Linnet's configuration and HTTPS. Returns process, address of HTTP and address of HTTPS."""
        plain, address = f"127.0.0.1:{self.port()}", f"127.0.0.1:{self.port()}"
        environment = self.environment | {
            "LINNET_NGINX_RESOLVE": ",".join(resolve),
            "LINNET_NGINX_GATEWAY": gateway,
            "LINNET_NGINX_LISTEN": plain,
            "LINNET_NGINX_TLS": "on",
            "LINNET_NGINX_TLS_LISTEN": address,
            "LINNET_NGINX_CERTIFICATE": str(certificate),
        }
        return self.nginx(name, [SERVICE, "nginx", str(self.folder / name)], environment, address), plain, address

    def curves(self, name: str) -> str:
        """The curves that the configuration of an nginx has."""
        text = (self.folder / name / "conf/conf.d/linnet.conf").read_text()
        return re.search(r"ssl_ecdh_curve ([^;]+);", text).group(1)

    def start_fixed_tls_nginx(self, certificate: Path, curves: str) -> tuple[Process, str]:
        """Starts a minimal nginx with a fixed certificate. Returns process and address."""
        folder = self.folder / "nginx-fixed"
        (folder / "logs").mkdir(parents=True)
        own = f"127.0.0.1:{self.port()}"
        text = (Path(__file__).parent / "tls.nginx.conf").read_text()
        user = "user root;" if os.geteuid() == 0 else ""
        for word, value in {"@OWN@": own, "@CERTIFICATE@": str(certificate), "@CURVES@": curves, "@USER@": user}.items():
            text = text.replace(word, value)
        (folder / "nginx.conf").write_text(text)
        argv = [bash("find_binary nginx"), "-p", f"{folder}/", "-e", "stderr", "-c", str(folder / "nginx.conf")]
        return self.nginx("nginx-fixed", argv, self.environment, own), own

    def start_minimal_nginx(self, bare: str) -> tuple[str, str]:
        """Starts a minimal nginx. Returns the address of a proxy to the bare handler, and of nginx's own redirect."""
        folder = self.folder / "nginx-minimal"
        (folder / "logs").mkdir(parents=True)
        proxy, own = f"127.0.0.1:{self.port()}", f"127.0.0.1:{self.port()}"
        template = (Path(__file__).parent / "minimal.nginx.conf").read_text()
        for word, value in {"@BARE@": bare, "@PROXY@": proxy, "@OWN@": own, "@USER@": "user root;" if os.geteuid() == 0 else ""}.items():
            template = template.replace(word, value)
        (folder / "nginx.conf").write_text(template)
        argv = [bash("find_binary nginx"), "-p", f"{folder}/", "-e", "stderr", "-c", str(folder / "nginx.conf")]
        self.nginx("nginx-minimal", argv, self.environment, own)
        return proxy, own

    def nginx(self, name: str, argv: list[str], environment: dict[str, str], address: str) -> Process:
        process = self.processes.start(name, argv, environment, stop_signal=signal.SIGTERM, grace_s=25)
        self.processes.wait_until(process, f"{name} to accept connections", lambda: listens(address))
        return process

    def port(self) -> int:
        """A free port below the range of outgoing connections."""
        for port in range(21_000, 30_000):
            if port in self.taken:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            self.taken.add(port)
            return port
        raise BenchError("no free port")

    def remove(self) -> None:
        """Deletes the files of the run, and those that scripts/service keeps elsewhere for it."""
        for name in ("postgres", "redis", "nginx", "nginx-bare", "nginx-cold", "nginx-tls", "nginx-unrecorded"):
            home = self.folder / name / "home"
            if home.is_symlink():
                shutil.rmtree(home.resolve(), ignore_errors=True)
        if self.sockets.parent != self.folder:
            shutil.rmtree(self.sockets, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def bash(command: str) -> str:
    """Runs a function of scripts/lib.sh and returns its output."""
    script = f'source "$1"; {command}'
    ran = subprocess.run(["bash", "-c", script, "bash", str(ROOT / "scripts" / "lib.sh")], capture_output=True, text=True)
    if ran.returncode != 0:
        raise BenchError(f"{command}: {ran.stderr.strip() or 'failed'}")
    return ran.stdout.strip()


def http_get(address: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def is_ok(address: str, path: str) -> bool:
    try:
        return http_get(address, path)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def listens(address: str) -> bool:
    try:
        if address.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(address.removeprefix("unix:"))
        else:
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=2).close()
        return True
    except OSError:
        return False
