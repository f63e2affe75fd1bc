"""`make test-compose`: every promise of the containers, one after the other. The first that is not kept ends it."""

from __future__ import annotations

import os
import sys
import time

import faults
import killed
import limits
import shape
import start
import told
import watch
from engine import WITHOUT, Failed, compose, containers, inspect, name_of, run

# In this order: what cannot start, the start itself with its figures, then what runs.
CHECKS = (
    start.wrong_settings_are_named_and_start_nothing,
    start.it_is_up_within_20_s,
    shape.images_are_small_and_have_labels,
    shape.only_nginx_publishes_a_port,
    shape.nobody_is_root_or_may_become_it,
    shape.what_needs_no_way_out_has_none,
    start.monitoring_comes_up,
    limits.the_system_tests_pass_through_nginx,
    limits.scaled_services_are_all_used,
    watch.every_target_is_up,
    limits.limits_hold_under_load,
    told.every_expression_returns_data,
    watch.an_alert_arrives_and_is_resolved,
    faults.what_is_killed_comes_back,
    told.what_workers_meet_is_told,
    killed.postgresql_is_killed_under_load,
    killed.redis_is_killed_under_load,
    faults.eviction_takes_no_queue,
    faults.redirects_go_on_without_redis,
    faults.redirects_go_on_without_postgresql,
    faults.a_full_disk_stops_no_redirect,
)


def main() -> int:
    figures: list[tuple[str, str, str]] = []
    # While working on one: ONLY=part-of-a-name,…; what the others need of a start is done in any case.
    only = [part for part in os.environ.get("ONLY", "").split(",") if part]
    always = (start.it_is_up_within_20_s, start.monitoring_comes_up)
    checks = [check for check in CHECKS if not only or check in always or any(part in check.__name__ for part in only)]
    for check in checks:
        name = check.__name__.replace("_", " ")
        begun = time.monotonic()
        print(f"==> {name}", flush=True)
        try:
            check(lambda *figure: figures.append(figure))
        except Failed as failure:
            print(f"FAILED: {name}: {failure}", flush=True)
            tell_logs()
            return 1
        print(f"    ok, {time.monotonic() - begun:.1f} s", flush=True)
    print()
    for what, seen, bar in figures:
        print(f"{what:62} {seen:>12}  {bar}")
    if WITHOUT:
        print(f"NOT tried, since their images cannot be had here: {', '.join(sorted(WITHOUT))}")
    print(f"{len(checks)} passed, 0 failed")
    return 0


def tell_logs() -> None:
    print(compose("ps", "-a", check=False).stdout)
    for container in containers(all_states=True):
        lines = run("docker", "logs", "--tail", "15", container, check=False).stdout
        print(f"--- {name_of(inspect(container))}:\n{lines}")


if __name__ == "__main__":
    sys.exit(main())
