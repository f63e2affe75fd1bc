"""Three ways to record processes, and the two files that show a recording.

Each recorder returns folded stacks: lines `process;outermost function;…;innermost function weight`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from figures import say
from processes import BenchError, Processes

SAMPLES_PER_SECOND = 499
HOTTEST = 20
# The hash that distinguishes instances of a generic function.
HASH = re.compile(r"::h[0-9a-f]{16}$")
# A frame of dhat: `0x55d0c0ffee: module::function (src/file.rs:12:3)`.
DHAT_FRAME = re.compile(r"^0x[0-9a-f]+: (.*?)(?: \([^()]*:\d+:\d+\))?$")
# Functions that allocate for their callers. The list names the caller.
ALLOCATING = re.compile(r"^<?(?:&?(?:mut )?)(?:alloc|core|std|hashbrown|bytes|dhat)::|^<T as |^__r")


@dataclass
class Recorder:
    """Records nothing; the base of the three."""

    processes: Processes
    folder: Path
    inferno: Path
    #: Whether it slows the programs down so much that they get less to do.
    is_slow = False
    #: Suffix of the files it writes, and the unit of the weights.
    suffix, unit, title = "", "samples", "processor time"
    files: dict[str, Path] = field(default_factory=dict)

    def settings(self, name: str) -> dict[str, str]:
        """Environment of a process of this name that is to be recorded."""
        return {}

    def start(self, pids: dict[str, int]) -> None:
        """Starts the recording of running processes."""

    def stop(self) -> None:
        """Ends it, while the processes still run."""

    def stacks(self) -> Counter[str]:
        """The folded stacks, after the processes have exited."""
        raise NotImplementedError

    def keep(self, out: Path, name: str) -> None:
        """Copies further files to `out`."""

    def write(self, part: str, out: Path) -> None:
        """Writes the flame graph and the list of the hottest functions."""
        stacks = self.stacks()
        if not stacks:
            raise BenchError("nothing was recorded; the part was too short, or a process was killed")
        name = part + self.suffix
        folded = self.folder / "folded"
        folded.write_text("".join(f"{stack} {weight}\n" for stack, weight in sorted(stacks.items())))
        argv = [str(self.inferno / "inferno-flamegraph"), "--title", f"{part}: {self.title}", "--countname", self.unit, "--colors", "rust",
                "--deterministic", str(folded)]
        (out / f"{name}.svg").write_text(self.processes.run(argv).stdout)
        text = f"{part}, {date.today()}: {self.title}, {sum(stacks.values()):,} {self.unit}\n\n{hottest(stacks, self.innermost)}\n"
        (out / f"{name}.txt").write_text(text)
        self.keep(out, name)
        say(f"\n{text}\n{out / name}.svg\n{out / name}.txt")

    @staticmethod
    def innermost(functions: list[str]) -> str:
        """The function that a stack is charged to."""
        return functions[-1]


class Perf(Recorder):
    """perf samples user and kernel stacks from outside."""

    def start(self, pids: dict[str, int]) -> None:
        self.names = {pid: name for name, pid in pids.items()}
        self.data = self.folder / "perf.data"
        argv = ["perf", "record", "-q", "-F", str(SAMPLES_PER_SECOND), "-g", "-o", str(self.data), "-p", ",".join(map(str, pids.values()))]
        self.perf = self.processes.start("perf", argv, dict(os.environ), stop_signal=signal.SIGINT)

    def stop(self) -> None:
        self.processes.stop(self.perf)

    def stacks(self) -> Counter[str]:
        # Functions that were inlined count for the function that they are in: perf takes minutes to find them.
        script = self.folder / "perf.script"
        argv = ["perf", "script", "--no-inline", "-F", "comm,pid,tid,time,event,ip,sym,dso", "-i", str(self.data)]
        script.write_text(self.processes.run(argv).stdout)
        lines = self.processes.run([str(self.inferno / "inferno-collapse-perf"), "--pid", "--kernel", str(script)]).stdout

        def process(thread: str) -> str:
            return self.names.get(int(thread.rsplit("-", 1)[-1]), thread)

        return folded(lines, process)


class Crate(Recorder):
    """The programs sample themselves, when perf is unavailable. Time in the kernel counts for the function that calls it."""

    def settings(self, name: str) -> dict[str, str]:
        self.files[name] = self.folder / f"{name}.folded"
        return {"LINNET_PROFILE_OUT": str(self.files[name])}

    def stacks(self) -> Counter[str]:
        stacks: Counter[str] = Counter()
        for name, file in self.files.items():
            stacks += folded(file.read_text() if file.exists() else "", lambda _, name=name: name)
        return stacks


class Heap(Recorder):
    """The programs count every allocation, from their start to their end."""

    is_slow = True
    suffix, unit, title = "-heap", "bytes", "allocations"

    def settings(self, name: str) -> dict[str, str]:
        self.files[name] = self.folder / f"{name}.json"
        return {"LINNET_PROFILE_OUT": str(self.files[name])}

    def stacks(self) -> Counter[str]:
        stacks: Counter[str] = Counter()
        for name, file in self.files.items():
            if not file.exists():
                continue
            recorded = json.loads(file.read_text())
            frames = [tidy(DHAT_FRAME.sub(r"\1", frame)) for frame in recorded["ftbl"]]
            for point in recorded["pps"]:
                functions = [frames[number] for number in reversed(point["fs"])]
                stacks[";".join([name, *functions])] += point["tb"]
        return stacks

    def keep(self, out: Path, name: str) -> None:
        for process, file in self.files.items():
            if file.exists():
                shutil.copyfile(file, out / f"{name}.{process}.json")

    @staticmethod
    def innermost(functions: list[str]) -> str:
        return next((function for function in reversed(functions) if not ALLOCATING.match(function)), functions[-1])


def recorder_of(sampler: str, *arguments) -> Recorder:
    return {"perf": Perf, "crate": Crate, "heap": Heap}[sampler](*arguments)


def folded(lines: str, process) -> Counter[str]:
    """Reads folded stacks. `process` returns the name of the process of a thread, which is the first function."""
    stacks: Counter[str] = Counter()
    for line in lines.splitlines():
        stack, _, weight = line.rpartition(" ")
        thread, *functions = stack.split(";")
        stacks[";".join([process(thread), *map(tidy, functions)])] += int(weight)
    return stacks


def tidy(function: str) -> str:
    """The name without its hash, and without the separator of stacks."""
    return HASH.sub("", function).replace(";", ":")


def hottest(stacks: Counter[str], innermost) -> str:
    """The functions with most weight of their own, and their weight with the functions they call, both in percent."""
    own: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for stack, weight in stacks.items():
        process, *functions = stack.split(";")
        functions = functions or ["?"]
        own[process, innermost(functions)] += weight
        for function in set(functions):
            total[process, function] += weight
    everything = sum(stacks.values())
    lines = [f"{'self %':>7}  {'total %':>7}  process           function"]
    for (process, function), weight in own.most_common(HOTTEST):
        share = 100 * total[process, function] / everything
        lines.append(f"{100 * weight / everything:7.2f}  {share:7.2f}  {process:16}  {function}")
    return "\n".join(lines)
