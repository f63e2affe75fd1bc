"""The load tools: each function runs one and returns its result."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from processes import BenchError, Processes
from stack import Stack

HERE = Path(__file__).resolve().parent
# The same for all comparisons. wrk uses a whole core at the rates of nginx's own redirect.
WRK_THREADS, WRK_CONNECTIONS = 2, 64


@dataclass
class Peak:
    rate: float
    errors: int


class Tools:
    def __init__(self, processes: Processes, stack: Stack) -> None:
        self.processes = processes
        self.stack = stack

    def wrk_paths(self, address: str, codes: Path, seconds: float, offset: float) -> Peak:
        """GET of the codes in the list, closed loop."""
        return self._wrk("wrk_paths.lua", address, seconds, WRK_CONNECTIONS,
                         {"BENCH_LIST": str(codes), "BENCH_OFFSET": str(offset % 1.0)})

    def wrk_visits(self, address: str, codes: Path, seconds: float, offset: float) -> Peak:
        """The same with browsers' headers: fifty user agents, referrers and languages."""
        return self._wrk("wrk_visits.lua", address, seconds, WRK_CONNECTIONS,
                         {"BENCH_LIST": str(codes), "BENCH_OFFSET": str(offset % 1.0)})

    def wrk_handshakes(self, address: str, seconds: float) -> Peak:
        """A connection with a full handshake for each request, closed loop."""
        return self._wrk("wrk_handshakes.lua", address, seconds, WRK_CONNECTIONS, {})

    def wrk_create(self, address: str, key: str, seed: str, seconds: float, connections: int) -> Peak:
        """POST of new links, closed loop."""
        return self._wrk("wrk_create.lua", address, seconds, connections, {"BENCH_KEY": key, "BENCH_SEED": seed})

    def _wrk(self, script: str, address: str, seconds: float, connections: int, variables: dict[str, str]) -> Peak:
        argv = ["wrk", f"-t{WRK_THREADS}", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "5s", "-s", str(HERE / script),
                f"{address if '://' in address else f'http://{address}'}/"]
        result = result_of(self.processes.run(argv, env=self.stack.environment | variables).stdout)
        return Peak(result["requests"] / result["seconds"], result["errors"])

    def pgbench(self, script: str, user_id: int, seconds: float, connections: int) -> float:
        """Runs a script and returns its transactions a second."""
        file = self.stack.folder / "insert.sql"
        file.write_text(script)
        argv = [str(self.stack.pg_bin / "pgbench"), "-n", "-M", "prepared", "-c", str(connections), "-j", str(WRK_THREADS),
                "-T", f"{seconds:g}", "-D", f"uid={user_id}", "-f", str(file)]
        out = self.processes.run(argv, env=self.stack.pg_environment).stdout
        failed = re.search(r"failed transactions: (\d+)", out)
        if failed and int(failed.group(1)):
            raise BenchError(f"pgbench reports failed transactions:\n{out}")
        return float(re.search(r"^tps = ([\d.]+)", out, re.M).group(1))

    def replay(self, address: str, codes: Path, connections: int = WRK_CONNECTIONS) -> dict:
        """Requests each code of the list exactly once and checks each target."""
        return self._generator("replay", "--address", address, "--list", str(codes), "--connections", str(connections))

    def pace(self, address: str, codes: Path, rate: float, seconds: float) -> dict:
        """Open loop at a fixed rate. Latency counts from when a request is due."""
        return self._generator("pace", "--address", address, "--list", str(codes), "--rate", f"{rate:.1f}", "--seconds",
                               f"{seconds:g}")

    def codes(self, links: int) -> Path:
        file = self.stack.folder / f"codes-{links}"
        if not file.exists():
            self.processes.run([self._bench, "codes", "--links", str(links), "--out", str(file)])
        return file

    def draw(self, links: int, draws: int, seed: int) -> tuple[Path, int]:
        """A list of codes in a Zipf distribution, and its number of distinct codes."""
        file = self.stack.folder / f"draws-{links}-{draws}-{seed}"
        argv = [self._bench, "draw", "--links", str(links), "--draws", str(draws), "--seed", str(seed), "--out", str(file)]
        return file, json.loads(self.processes.run(argv).stdout)["distinct"]

    @property
    def _bench(self) -> str:
        return self.stack.binary("linnet-bench")

    def _generator(self, *words: str) -> dict:
        return json.loads(self.processes.run([self._bench, *words]).stdout)


def result_of(stdout: str) -> dict:
    found = re.search(r"^RESULT (\{.*\})$", stdout, re.M)
    if not found:
        raise BenchError(f"wrk printed no result:\n{stdout}")
    return json.loads(found.group(1))
