"""`make test-compose`: checks the containers in turn and stops at the first check that fails."""

from __future__ import annotations

import sys

import bridge
import colors
import fault_reports
import faults
import https
import isolation
import killed_stores
import load
import monitoring
import startup
from checks import run_checks, selected
from engine import WITHOUT, print_logs

# The order matters: starts that must fail, the start with its figures, the running installation, then its end and one with HTTPS.
CHECKS = (
    startup.invalid_settings_are_reported_and_start_nothing,
    startup.first_redirect_within_20_s,
    isolation.images_are_small_and_labeled,
    isolation.only_nginx_publishes_a_port,
    isolation.processes_have_no_root_and_no_privileges,
    isolation.only_nginx_and_alertmanager_have_a_route_out,
    startup.monitoring_starts,
    load.system_tests_pass_through_nginx,
    colors.green_takes_over_without_a_failed_request,
    bridge.sockets_and_bridge_are_compared,
    monitoring.every_scrape_target_is_up,
    load.memory_limits_hold_under_load,
    fault_reports.every_expression_returns_data,
    monitoring.alert_is_delivered_and_resolved,
    faults.killed_services_restart,
    fault_reports.worker_faults_are_reported,
    killed_stores.postgresql_killed_under_load_loses_nothing,
    killed_stores.redis_killed_under_load_loses_at_most_2_s_of_clicks,
    faults.eviction_spares_the_streams,
    faults.redirects_continue_without_redis,
    faults.redirects_continue_without_postgresql,
    faults.redirects_continue_with_a_full_disk,
    https.https_from_the_first_start_to_the_end,
)


def main() -> int:
    # The checks that start the containers always run.
    always = (startup.first_redirect_within_20_s, startup.monitoring_starts)
    remarks = [f"NOT tested, because their images are not available: {', '.join(sorted(WITHOUT))}"] if WITHOUT else []
    return run_checks(selected(CHECKS, always), print_logs, remarks=remarks)


if __name__ == "__main__":
    sys.exit(main())
