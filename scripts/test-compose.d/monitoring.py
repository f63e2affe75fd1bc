"""Monitoring: scrape targets, and the delivery of an alert."""

from __future__ import annotations

import re
import time

from engine import ROOT, SECRETS, WITHOUT, compose, is_redirected, prometheus, require, wait
from fault_reports import assert_reported
from receiver import Receiver
from startup import receiver_files

# Without their images, these targets are missing.
ABSENT = {"grafana", "loki", "fluent-bit", "cadvisor"}


def every_scrape_target_is_up(_figure) -> None:
    def down_targets() -> dict[str, str]:
        targets = prometheus("/api/v1/targets?state=active")["activeTargets"]
        return {target["labels"]["job"]: target["lastError"] for target in targets if target["health"] != "up"}

    def jobs() -> set[str]:
        return {target["labels"]["job"] for target in prometheus("/api/v1/targets?state=active")["activeTargets"]}

    text = (ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text()
    # `acme` and `backup` belong to other Compose files.
    expected = set(re.findall(r"^  - job_name: (\S+)$", text, re.M)) - (ABSENT & WITHOUT) - {"acme", "backup"}
    require(len(expected) >= 9, f"prometheus.yml has too few jobs: {expected}")
    try:
        wait(150, "a target of each job, all of them up", lambda: not down_targets() and jobs() >= expected)
    finally:
        print(f"    up: {', '.join(sorted(jobs() - set(down_targets())))}; down: {down_targets() or 'none'}", flush=True)


def alert_is_delivered_and_resolved(figure) -> None:
    receiver = Receiver()
    webhook = SECRETS / "discord_webhook"
    kept = webhook.read_text()
    replace_file(webhook, f"http://receiver:{receiver.port}/api/webhooks/1/token")
    compose("up", "-d", "--no-build", "--no-deps", "--force-recreate", "alertmanager", files=receiver_files())
    wait(60, "Prometheus to discover Alertmanager", lambda: prometheus("/api/v1/alertmanagers")["activeAlertmanagers"])
    begun = time.monotonic()
    compose("kill", "shortener-blue", files=receiver_files())
    try:
        wait(150, "the alert message", lambda: receiver.first(begun, "hortener", "unbook"))
        took = receiver.first(begun, "hortener", "unbook") - begun
        figure("alert `service down`: from the fault to the message", f"{took:.0f} s", "<= 90 s")
        require(took <= 90, f"the alert took {took:.0f} s")
        assert_reported("service-down")
    finally:
        compose("start", "shortener-blue", files=receiver_files())
    back = time.monotonic()
    wait(60, "a redirect", lambda: is_redirected("first"))
    wait(400, "the message that it is resolved", lambda: receiver.first(back, "hortener", "esolved") or receiver.first(back, "hortener", "RESOLVED"))
    print(f"    resolved {receiver.messages[-1][0] - back:.0f} s after the restart", flush=True)
    replace_file(webhook, kept)
    receiver.server.shutdown()


def replace_file(file, text: str) -> None:
    file.unlink()
    file.write_text(text)
    file.chmod(0o444)
