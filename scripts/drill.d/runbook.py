"""Reads the checks of an alert's runbook and runs them as they are written."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

from stack import ROOT, Stack, run

PAGES = "/docs/runbooks/"


def section(url: str) -> str:
    """The text of the heading that a runbook's URL names, or the whole page."""
    name, _, anchor = url.partition(PAGES)[2].partition("#")
    text = (ROOT / "docs/runbooks" / name).read_text(encoding="utf-8")
    if not anchor:
        return text
    parts = re.split(r"(?m)^(?=## )", text)
    intro = parts[0]
    found = next(part for part in parts if part.partition("\n")[0].removeprefix("## ").lower().replace(" ", "-") == anchor)
    # Commands for all alerts of a page stand before the first heading.
    return found if "The list of sessions above" not in found else found.replace("**Check**", "**Check**\n" + intro)


def commands(text: str) -> Iterator[str]:
    """The commands under **Check**. One may have several lines."""
    check = re.search(r"(?ms)^\*\*Check.*?(?=^\*\*Fix)", text)
    for block in re.findall(r"(?ms)^ *```sh\n(.*?)^ *```", check.group(0) if check else ""):
        command = ""
        for line in block.splitlines():
            command += ("\n" if command else "") + line
            if is_complete(command):
                yield command.strip()
                command = ""
        if command:
            yield command.strip()


def is_complete(command: str) -> bool:
    """Whether the shell could parse this text, that is, no quotation or pipe is open."""
    text = re.sub(r"(?<=\s)#.*", "", command).rstrip()
    if text.endswith(("|", "\\", "&&")):
        return False
    return subprocess.run(["bash", "-n", "-c", command], check=False, stderr=subprocess.DEVNULL).returncode == 0


def run_checks(stack: Stack, alert: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Runs the checks of the alert's runbook. Returns each command with its output."""
    # As docs/runbooks/README.md states it: the process of the label `instance`, otherwise the label `service`.
    instance = alert["labels"].get("instance", "")
    service = instance.partition("/")[0] if "/" in instance else alert["labels"].get("service", "")
    results = []
    for command in commands(section(alert["annotations"]["runbook_url"])):
        if re.match(r"docker |dmesg", command):
            continue
        text = command.replace("SERVICE", service).replace("https://YOUR_DOMAIN", stack.address)
        text = text.replace("MOUNTPOINT", alert["labels"].get("mountpoint", "/nowhere")).replace(".run/", f"{stack.folder}/")
        results.append((command, run("bash", "-c", text, env=stack.env, timeout=30, check=False).strip()))
    return results
