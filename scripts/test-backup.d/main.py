"""`scripts/test-backup`: checks backups and restores in turn, and stops at the first check that fails."""

from __future__ import annotations

import sys

import damage
import loss
import outages
from checks import run_checks, selected
from stack import compose, log

# The order matters: each check begins with the database that the one before it left, restored and backed up.
CHECKS = (
    loss.first_backup_follows_the_start,
    outages.settings_and_wrong_passphrase_are_reported,
    loss.point_in_time_brings_deleted_rows_back_and_only_these,
    loss.must_35_lost_disk_costs_at_most_a_minute,
    outages.segments_wait_while_the_repository_is_unreachable,
    outages.key_without_rights_is_named,
    outages.full_archive_disk_keeps_the_database_running,
    outages.second_disk_is_a_repository_too,
    outages.server_with_sftp_is_a_repository_too,
    outages.jobs_do_not_overlap,
    loss.must_35_restore_test_passes_and_leaves_nothing,
    loss.secrets_bundle_opens_the_backups_of_a_lost_host,
    damage.damaged_wal_fails_the_test_and_the_restore_and_keeps_the_database,
    damage.damaged_backup_fails_the_test_and_the_restore_and_keeps_the_database,
    damage.repository_of_another_database_is_refused,
    loss.large_database_is_back_within_minutes,
)


def main() -> int:
    return run_checks(selected(CHECKS, (loss.first_backup_follows_the_start,)), print_logs, widths=(72, 14))


def print_logs() -> None:
    print(compose("ps", "-a", check=False).stdout)
    for service in ("backup", "postgres"):
        print(f"--- {service}:\n{log(service)[-3000:]}")


if __name__ == "__main__":
    sys.exit(main())
