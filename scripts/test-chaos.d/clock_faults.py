"""The clocks of Linnet and PostgreSQL jump by an hour, as after a wrong correction of the host's clock, and back.

The released programs are static, so nothing can be loaded before their libc, and a time namespace moves only the
monotonic clock. So these faults run the programs that tests use, with libfaketime, in place of the released ones, in the
same containers. PostgreSQL is the released one, with libfaketime. The others keep their clock; Redis does not start with
libfaketime, because of its allocator.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import ROOT, SCRATCH, compose, containers, http, inspect, is_redirected, wait
from fault import Fault, Stage
from installation import OVERLAY, is_healthy

PROGRAMS = Path(os.environ.get("LINNET_CLOCK_PROGRAMS") or Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug")
LINNET = {"shortener-blue": "linnet-shortener", "gateway-blue": "linnet-gateway", "worker": "linnet-shortener"}
STORES = ("postgres",)
JUMP_S = 3600
# After the jump back; the jump forward lasts until its alert.
AFTER_S = 20


def library() -> str:
    return next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), "")


def missing() -> str:
    """The reason for which these faults cannot run, or nothing."""
    if not library():
        return "libfaketime is not installed"
    absent = [name for name in sorted(set(LINNET.values())) if not (PROGRAMS / name).is_file()]
    return f"{PROGRAMS} has no {', '.join(absent)}: cargo build -p linnet-shortener -p linnet-gateway" if absent else ""


def _overlay() -> Path:
    folder = SCRATCH / "clock"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    (folder / "libfaketime.so").write_bytes(Path(library()).read_bytes())
    _set_clock(0)
    debian = inspect(containers("postgres")[0])["Config"]["Image"]
    environment = ("LD_PRELOAD: /clock/libfaketime.so, FAKETIME_TIMESTAMP_FILE: /clock/offset, FAKETIME_CACHE_DURATION: '1', "
                   # The monotonic clock of a machine whose wall clock is stepped continues.
                   "FAKETIME_DONT_FAKE_MONOTONIC: '1', DONT_FAKE_MONOTONIC: '1'")
    text = "services:\n"
    for service in STORES:
        text += f"  {service}: {{environment: {{{environment}}}, volumes: ['{folder}:/clock:ro']}}\n"
    for service, program in LINNET.items():
        role = "worker" if service == "worker" else "serve"
        command = f"entrypoint: [/{program}]" + (f", command: [{role}]" if program == "linnet-shortener" else "")
        # The image of the released program sets some too, such as the address of the admin listener.
        settings = ", ".join(f"{name}: '{value}'" for name, value in settings_of(service).items())
        check = f"[CMD, /{program}, healthcheck{', --worker' if service == 'worker' else ''}]"
        text += (f"  {service}: {{image: '{debian}', user: '65532:65532', {command}, environment: {{{environment}, {settings}}}, "
                 f"healthcheck: {{test: {check}, interval: 3s, timeout: 3s, start_period: 20s}}, "
                 f"volumes: ['{folder}:/clock:ro', '{PROGRAMS / program}:/{program}:ro']}}\n")
    overlay = SCRATCH / "clock.yaml"
    overlay.write_text(text)
    return overlay


def settings_of(service: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in inspect(containers(service)[0])["Config"]["Env"])
    return {name: value for name, value in pairs if name.startswith("LINNET__")}


def _set_clock(offset_s: int) -> None:
    file = SCRATCH / "clock" / "offset"
    # In place: the processes keep the file open.
    file.write_text(f"{offset_s:+d}\n")
    file.chmod(0o644)


def _recreate(*files: str) -> None:
    compose("up", "-d", "--no-build", "--no-deps", "--force-recreate", *STORES, *LINNET, files=(str(OVERLAY), *files))
    for service in (*STORES, *LINNET):
        wait(90, f"{service} to be healthy", lambda service=service: is_healthy(service))
    wait(30, "a redirect", lambda: is_redirected("first") and http("/health", timeout=2)[0] == 200)


@contextmanager
def with_clock(_stage: Stage) -> Iterator[None]:
    _recreate(str(_overlay()))
    try:
        yield
    finally:
        _recreate()


def jumps(offset_s: int):
    @contextmanager
    def inject(stage: Stage) -> Iterator[None]:
        begun = time.monotonic()
        _set_clock(offset_s)
        try:
            yield
        finally:
            _set_clock(0)
        stage.notes.append(f"the clocks were wrong for {time.monotonic() - begun:.0f} s")
        time.sleep(AFTER_S)
    return inject


FAULTS = (
    Fault("clock-forward", "the clocks of Linnet and PostgreSQL jump an hour forward, then back", jumps(JUMP_S), prepare=with_clock, hold_s=30, alert="ClockStepped",
          person="corrects the clock"),
    Fault("clock-back", "the clocks of Linnet and PostgreSQL jump an hour back, then forward", jumps(-JUMP_S), prepare=with_clock, hold_s=30, alert="ClockStepped",
          person="corrects the clock"),
)
