"""Checks that every alert has its labels, annotations, a runbook, and tests in which it fires, resolves and stays silent.

    "$(scripts/python-tools)/python" monitoring/prometheus/check_alerts.py [ROOT]

promtool and amtool do not check these. Prints one line for each fault and exits with 1 if there is any.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SEVERITIES = ("page", "ticket", "info")
ANNOTATIONS = {"summary", "description", "first_check", "runbook_url", "dashboard"}
RUNBOOKS = "https://github.com/linnet-url/linnet/blob/main/docs/runbooks/"
DASHBOARDS = {
    f"/grafana/d/linnet-{name}"
    for name in ("overview", "resolve", "clicks", "jobs", "gateway", "postgres", "redis", "nginx", "host", "releases", "logs")
}
# Always fires, so it can neither stay silent nor resolve.
ALWAYS_FIRING = {"Watchdog"}
# The form of a line that `make monitor` replaces.
DISCOVERY = re.compile(r"    dns_sd_configs: \[\{names: \[([a-z-]+)\], type: A, port: \d+, refresh_interval: 5s\}\]")
# A label of the alert in an annotation.
LABEL = re.compile(r"\{\{ \$labels\.\w+ \}\}")
RECORDED = re.compile(r"[a-z_]+:[a-z0-9_]+(:[a-z0-9_]+)?")


@dataclass
class Proof:
    """The states of one alert that tests prove."""

    fires: bool = False
    resolves: bool = False
    is_silent: bool = False


@dataclass
class Alert:
    """An alert rule and its file."""

    file: Path
    rule: dict[str, Any]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = str(self.rule["alert"])

    def label(self, name: str) -> str:
        return str(self.rule.get("labels", {}).get(name, ""))

    def annotation(self, name: str) -> str:
        return str(self.rule.get("annotations", {}).get(name, ""))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def seconds(duration: str) -> int:
    """Prometheus's `1h30m`, in seconds."""
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)([smhdwy])", str(duration)))


def anchors(markdown: str) -> set[str]:
    """The anchors that GitHub gives the headings."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", markdown, flags=re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-"))
    return found


def label_faults(alert: Alert, explained: set[str]) -> Iterator[str]:
    if alert.label("severity") not in SEVERITIES:
        yield f"severity is '{alert.label('severity')}', not one of {', '.join(SEVERITIES)}"
    if not alert.label("service"):
        yield "the label `service` is missing"
    for service in filter(None, alert.label("depends_on").split(",")):
        if service not in explained:
            yield f"depends_on names '{service}', but alertmanager.yml has no inhibit rule for it"


def check_pattern(command: str) -> re.Pattern[str]:
    """Matches the command in a runbook, which has words in capitals or an example instead of labels."""
    return re.compile(r"[^\s\"]+".join(re.escape(part) for part in LABEL.split(command)))


def annotation_faults(alert: Alert, runbooks: Path) -> Iterator[str]:
    names = {name for name, text in alert.rule.get("annotations", {}).items() if str(text).strip()}
    if names != ANNOTATIONS:
        yield f"annotations are {sorted(names)}, not {sorted(ANNOTATIONS)}"
    if alert.annotation("dashboard") not in DASHBOARDS:
        yield f"unknown dashboard '{alert.annotation('dashboard')}'"
    url = alert.annotation("runbook_url")
    if not url.startswith(RUNBOOKS):
        yield f"runbook_url must begin with {RUNBOOKS}"
        return
    name, _, anchor = url.removeprefix(RUNBOOKS).partition("#")
    if not (runbooks / name).is_file():
        yield f"docs/runbooks/{name} does not exist"
        return
    if not check_pattern(alert.annotation("first_check")).search((runbooks / name).read_text(encoding="utf-8")):
        yield f"docs/runbooks/{name} does not have the command of `first_check`"
    if anchor and anchor not in anchors((runbooks / name).read_text(encoding="utf-8")):
        yield f"docs/runbooks/{name} has no heading for #{anchor}"


def read_tests(folder: Path) -> dict[str, Proof]:
    """The proofs of the test groups, by alert. An expectation without annotations proves nothing."""
    proofs: dict[str, Proof] = {}
    for path in sorted(folder.glob("*.yml")):
        for group in load(path)["tests"]:
            moments: dict[str, list[tuple[int, bool]]] = {}
            for test in group.get("alert_rule_test", []):
                expected = test.get("exp_alerts") or []
                is_complete = all(set(one.get("exp_annotations", {})) == ANNOTATIONS for one in expected)
                if is_complete and all(one.get("exp_labels") for one in expected):
                    moments.setdefault(test["alertname"], []).append((seconds(test["eval_time"]), bool(expected)))
            for name, seen in moments.items():
                proof = proofs.setdefault(name, Proof())
                firing = [time for time, fires in seen if fires]
                proof.fires |= bool(firing)
                proof.is_silent |= not firing
                proof.resolves |= bool(firing) and any(time > max(firing) for time, fires in seen if not fires)
    return proofs


def test_faults(alert: Alert, proof: Proof) -> Iterator[str]:
    if not proof.fires:
        yield "no test in which it fires, with labels and annotations"
    if alert.name in ALWAYS_FIRING:
        return
    if not proof.resolves:
        yield "no test in which it resolves after firing"
    if not proof.is_silent:
        yield "no test in which it stays silent throughout"


def explained_services(alertmanager: Path) -> set[str]:
    """Services that have an inhibit rule on `depends_on`."""
    text = alertmanager.read_text(encoding="utf-8")
    return set(re.findall(r'depends_on =~ "\(\.\*,\)\?([a-z-]+)\(,\.\*\)\?"', text))


def discovery_faults(config: Path) -> Iterator[str]:
    for number, line in enumerate(config.read_text(encoding="utf-8").splitlines(), start=1):
        if re.match(r"\s*-?\s*[a-z_]+_sd_configs:|\s*-?\s*static_configs:", line) and not DISCOVERY.fullmatch(line):
            yield f"{config.name}:{number}: `make monitor` cannot replace this form of discovery"


def rule_faults(root: Path) -> Iterator[str]:
    prometheus = root / "monitoring/prometheus"
    runbooks = root / "docs/runbooks"
    explained = explained_services(root / "monitoring/alertmanager/alertmanager.yml")
    jobs = {job["job_name"] for job in load(prometheus / "prometheus.yml")["scrape_configs"]}
    proofs = read_tests(prometheus / "tests")
    overview = (runbooks / "README.md").read_text(encoding="utf-8") if (runbooks / "README.md").is_file() else ""
    used: set[str] = set()
    names: set[str] = set()
    for path in sorted((prometheus / "rules").glob("*.yml")):
        for rule in (rule for group in load(path)["groups"] for rule in group["rules"]):
            for job in re.findall(r'job="([^"]+)"', rule["expr"]):
                if job not in jobs:
                    yield f"{path.name}: an expression uses the job '{job}', which is not scraped"
            if "record" in rule:
                if not RECORDED.fullmatch(rule["record"]):
                    yield f"{path.name}: '{rule['record']}' does not have the form `level:metric:operation`"
                continue
            alert = Alert(path, rule)
            faults = [
                *label_faults(alert, explained),
                *annotation_faults(alert, runbooks),
                *test_faults(alert, proofs.get(alert.name, Proof())),
            ]
            target = alert.annotation("runbook_url").removeprefix(RUNBOOKS)
            if alert.name in names:
                faults.append("the name is not unique")
            if f"[{alert.name}]({target})" not in overview:
                faults.append(f"docs/runbooks/README.md has no [{alert.name}]({target})")
            names.add(alert.name)
            used.add(target.partition("#")[0])
            yield from (f"{path.name}: {alert.name}: {fault}" for fault in faults)
    yield from (f"tests: unknown alert '{name}'" for name in sorted(set(proofs) - names))
    for page in sorted(runbooks.glob("*.md")):
        if page.name not in used | {"README.md"}:
            yield f"docs/runbooks/{page.name}: no alert links to it"
    if not names:
        yield "no alerts found"


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    faults = [*discovery_faults(root / "monitoring/prometheus/prometheus.yml"), *rule_faults(root)]
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
