"""The alerts that exist in a cluster only: each fires for its fault, and is silent without it. promtool evaluates them."""

from __future__ import annotations

import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
COMPONENTS = ROOT / "deploy/kubernetes/components"
SOURCES = tuple(COMPONENTS / name for name in ("monitoring/cluster.yaml", "operators-monitoring/operators.yaml", "aws-monitoring/backups.yaml"))
N = 'namespace="linnet"'
BACKUP = f"barman_cloud_cloudnative_pg_io_last_available_backup_timestamp{{{N}}}"
ARCHIVED, FAILED = (f"cnpg_pg_stat_archiver_last_{word}_time{{{N}}}" for word in ("archived", "failed"))
WAITING = f'cnpg_collector_pg_wal_archive_status{{{N},value="ready"}}'
CREATED = f'kube_cronjob_created{{{N},cronjob="restore-test"}}'
TESTED = f'kube_cronjob_status_last_successful_time{{{N},cronjob="restore-test"}}'
DUMPS, DUMPED = (name.replace("restore-test", "backup") for name in (CREATED, TESTED))
DAYS9, HOURS27 = "9d", "27h"
# Alert, when it is looked at, series of a fault, series without it. Values are those of every 5 minutes for days, and of every minute for hours.
CASES: list[tuple[str, str, dict[str, str], dict[str, str]]] = [
    ("ClusterBackupTooOld", HOURS27, {BACKUP: "0x330"}, {BACKUP: "0x100 7200x230"}),
    ("ClusterBackupTooOld", "2h", {}, {BACKUP: "0x200"}),
    ("ClusterArchiveBacklog", "30m", {ARCHIVED: "1x60", FAILED: "-1x60", WAITING: "21x60"}, {ARCHIVED: "1x60", FAILED: "-1x60", WAITING: "3x60"}),
    ("ClusterArchiveBacklog", "30m", {ARCHIVED: "5x60", FAILED: "6x60"}, {ARCHIVED: "7x60", FAILED: "6x60"}),
    ("ClusterArchiveBacklog", "30m", {}, {ARCHIVED: "7x60"}),
    ("ClusterRestoreTestTooOld", DAYS9, {CREATED: "0x2600", TESTED: "0x2600"}, {CREATED: "0x2600", TESTED: "0x1300 360000x1300"}),
    ("ClusterRestoreTestTooOld", DAYS9, {CREATED: "0x2600"}, {CREATED: "360000x2600"}),
    ("ClusterRestoreTestTooOld", "2h", {}, {CREATED: "0x200"}),
    ("ClusterDumpTooOld", HOURS27, {DUMPS: "0x330", DUMPED: "0x330"}, {DUMPS: "0x330", DUMPED: "0x100 7200x230"}),
    ("ClusterDumpTooOld", HOURS27, {DUMPS: "0x330"}, {DUMPS: "7200x330"}),
    ("ClusterDumpTooOld", "2h", {}, {DUMPS: "0x200"}),
    (
        "ClusterRestoreTestFailed", "30m",
        {f'kube_job_failed{{{N},job_name="restore-test-29",condition="true"}}': "1x60"},
        {f'kube_job_failed{{{N},job_name="restore-test-29",condition="false"}}': "1x60"},
    ),
    (
        "ClusterMigrationFailed", "30m",
        {f'kube_job_failed{{{N},job_name="migrate",condition="true"}}': "1x60"},
        {f'kube_job_failed{{{N},job_name="migrate",condition="true"}}': "0x60"},
    ),
    (
        "ClusterStandbyMissing", "30m",
        {f'cnpg_pg_replication_streaming_replicas{{{N},pod="postgres-1"}}': "1x60"},
        {f'cnpg_pg_replication_streaming_replicas{{{N},pod="postgres-1"}}': "2x60", f'cnpg_pg_replication_streaming_replicas{{{N},pod="postgres-2"}}': "0x60"},
    ),
    ("ClusterStandbyLags", "30m", {f"cnpg_pg_replication_lag{{{N}}}": "61x60"}, {f"cnpg_pg_replication_lag{{{N}}}": "59x60"}),
    ("ClusterRedisReplicaMissing", "30m", {f'redis_connected_slaves{{job="redis",{N}}}': "1x60"}, {f'redis_connected_slaves{{job="redis",{N}}}': "2x60"}),
    (
        "ClusterRedisMasters", "30m",
        {f'redis_instance_info{{job="redis",{N},role="master",pod="{n}"}}': "1x60" for n in (0, 1)},
        {f'redis_instance_info{{job="redis",{N},role="master",pod="0"}}': "1x60", f'redis_instance_info{{job="redis",{N},role="slave",pod="1"}}': "1x60"},
    ),
]


def rules(source: Path) -> dict[str, Any]:
    """The groups of a PrometheusRule, without texts, which promtool would compare."""
    documents = list(yaml.safe_load_all(source.read_text()))
    spec = next(obj["spec"] for obj in documents if obj["kind"] == "PrometheusRule")
    for group in spec["groups"]:
        for rule in group["rules"]:
            rule["labels"] = {}
            del rule["annotations"]
    return dict(spec)


def alerts(groups: dict[str, Any]) -> set[str]:
    """The names of the alerts."""
    return {rule["alert"] for group in groups["groups"] for rule in group["rules"]}


def cases(names: set[str]) -> list[dict[str, Any]]:
    """The tests of these alerts, for promtool."""
    tests = []
    for alert, at, fault, healthy in (case for case in CASES if case[0] in names):
        for series, expected in ((fault, [{"exp_labels": {}}]), (healthy, [])):
            tests.append({
                "interval": "5m" if at in {DAYS9, HOURS27} else "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": expected}],
            })
    return tests


class Rules(unittest.TestCase):
    """All alerts of the files."""

    def test_each_alert_fires_for_its_fault_only(self) -> None:
        subprocess.run([ROOT / "scripts/install-packages", "promtool"], check=True, capture_output=True)
        tested = {case[0] for case in CASES}
        self.assertEqual(set().union(*(alerts(rules(source)) for source in SOURCES)), tested)
        for source in SOURCES:
            groups = rules(source)
            tests = {"rule_files": ["rules.yml"], "tests": cases(alerts(groups)), "evaluation_interval": "15m"}
            with self.subTest(source.name), tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "rules.yml").write_text(yaml.safe_dump(groups))
                (Path(folder) / "tests.yml").write_text(yaml.safe_dump(tests))
                done = subprocess.run(["promtool", "test", "rules", "tests.yml"], cwd=folder, capture_output=True, text=True, timeout=600, check=False)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
