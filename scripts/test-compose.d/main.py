"""`make test-compose`: tests each promise about the containers in turn and stops at the first that is broken."""

from __future__ import annotations

import os
import sys
import time

import faults
import killed
import limits
import reported
import shape
import start
import watch
from engine import WITHOUT, Failed, compose, containers, inspect, name_of, run

# In this order: starts that must fail, the start with its figures, then the running installation.
CHECKS = (
    start.invalid_settings_are_reported_and_start_nothing,
    start.first_redirect_within_20_s,
    shape.images_are_small_and_labeled,
    shape.only_nginx_publishes_a_port,
    shape.processes_have_no_root_and_no_privileges,
    shape.only_nginx_and_alertmanager_have_a_route_out,
    start.monitoring_starts,
    limits.system_tests_pass_through_nginx,
    limits.all_replicas_receive_requests,
    watch.every_scrape_target_is_up,
    limits.memory_limits_hold_under_load,
    reported.every_expression_returns_data,
    watch.alert_is_delivered_and_resolved,
    faults.killed_services_restart,
    reported.worker_faults_are_reported,
    killed.postgresql_killed_under_load_loses_nothing,
    killed.redis_killed_under_load_loses_at_most_2_s_of_clicks,
    faults.eviction_spares_the_streams,
    faults.redirects_continue_without_redis,
    faults.redirects_continue_without_postgresql,
    faults.redirects_continue_with_a_full_disk,
)


def main() -> int:
    figures: list[tuple[str, str, str]] = []
    # ONLY=part-of-a-name,… selects checks. Those that start the containers always run.
    only = [part for part in os.environ.get("ONLY", "").split(",") if part]
    always = (start.first_redirect_within_20_s, start.monitoring_starts)
    checks = [check for check in CHECKS if not only or check in always or any(part in check.__name__ for part in only)]
    for check in checks:
        name = check.__name__.replace("_", " ")
        begun = time.monotonic()
        print(f"==> {name}", flush=True)
        try:
            check(lambda *figure: figures.append(figure))
        except Failed as failure:
            print(f"FAILED: {name}: {failure}", flush=True)
            print_logs()
            return 1
        print(f"    ok, {time.monotonic() - begun:.1f} s", flush=True)
    print()
    for what, seen, bar in figures:
        print(f"{what:62} {seen:>12}  {bar}")
    if WITHOUT:
        print(f"NOT tested, because their images are not available: {', '.join(sorted(WITHOUT))}")
    print(f"{len(checks)} passed, 0 failed")
    return 0


def print_logs() -> None:
    print(compose("ps", "-a", check=False).stdout)
    for container in containers(all_states=True):
        lines = run("docker", "logs", "--tail", "15", container, check=False).stdout
        print(f"--- {name_of(inspect(container))}:\n{lines}")


if __name__ == "__main__":
    sys.exit(main())
