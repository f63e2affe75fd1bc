"""Bulk jobs and maintenance tasks, both in the workers."""

from __future__ import annotations

from .model import Column, Dashboard, Panel, Query, Row, Steps
from .parts import (
    DURATION,
    ZERO_IS_GOOD,
    cpu_of_processes,
    errors_in_log,
    increase,
    memory_of_processes,
    quantiles,
    rate,
    stat,
)

LAST_SUCCESS = "linnet_maintenance_last_success_timestamp_seconds"
ROUTES = 'job="gateway",http_route=~"/api/v1/(jobs.*|urls/bulk|users/bulk)"'

JOBS = Row(
    "Do jobs finish?",
    (
        stat(
            "Dead letters",
            "Jobs that failed too often and wait for the operator. GET /api/v1/jobs/dead lists them. Replay them when "
            "the cause is fixed.",
            "none",
            'max(linnet_jobs{state="dead"})',
            steps=ZERO_IS_GOOD,
            runbook="jobs#jobdeadletters",
        ),
        stat(
            "Longest wait",
            "Time that the oldest queued job has waited. Minutes while workers are up: large jobs occupy all lanes.",
            "s",
            "max(linnet_jobs_oldest_queued_seconds)",
            steps=Steps(warn=300, bad=1800),
            decimals=0,
            runbook="jobs#jobqueuedtoolong",
        ),
        stat(
            "Queued small jobs",
            "Each worker has a lane for small jobs, so they should start within seconds.",
            "none",
            'max(linnet_jobs{state="queued_small"})',
        ),
        stat(
            "Queued large jobs",
            "Large jobs wait for each other. A queue that only grows: the workers are down or too few.",
            "none",
            'max(linnet_jobs{state="queued_large"})',
        ),
        stat(
            "Running",
            "Jobs that a worker is processing. 0 while others are queued: no worker leases them.",
            "none",
            'max(linnet_jobs{state="running"})',
        ),
        stat(
            "Workers",
            "Workers that respond to Prometheus. 0: jobs are accepted and stay queued.",
            "none",
            'sum(up{job="worker"})',
            steps=Steps(bad=1, falling=True),
            runbook="worker-down",
        ),
        Panel(
            "Jobs by state",
            "Queues should rise and fall. `dead` should be 0.",
            "short",
            (Query("max by (state) (linnet_jobs)", "{{state}}"),),
            least=0,
        ),
        Panel(
            "Rows",
            "Rows per second: written, skipped because they exist, failed because of bad input. Many failed rows are "
            "usually one user's bad file.",
            "ops",
            (Query(rate("linnet_jobs_rows_total", "", "outcome"), "{{outcome}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Ended attempts",
            "By kind of job and outcome. Empty until a job has ended.",
            "short",
            (Query(increase("linnet_jobs_ended_total", "", "kind, outcome"), "{{kind}} {{outcome}}"),),
            least=0,
            empty="none",
        ),
    ),
)

WHY_JOBS = Row(
    "Why are jobs slow?",
    (
        Panel(
            "Write duration of a chunk",
            "A chunk is up to 250 rows in one transaction, retries included. Seconds: PostgreSQL is slow or waits for "
            "locks.",
            "s",
            quantiles("linnet_jobs_chunk_duration_seconds"),
            least=0,
            more="linnet-postgres",
        ),
        Panel(
            "Failed attempts and retried chunks",
            "A failed attempt is repeated after a pause. A chunk is retried when PostgreSQL was unreachable. Only "
            "faults cause these.",
            "short",
            (
                Query(increase("linnet_jobs_failed_attempts_total"), "failed attempts"),
                Query(increase("linnet_jobs_chunk_retries_total"), "retried chunks"),
            ),
            least=0,
            empty="none",
        ),
        Panel(
            "Uploads in PostgreSQL",
            "Compressed, with `jobs.upload_store=postgres`. At `jobs.upload_total_bytes`, new ones get 507. Growth without "
            "queued or dead jobs: the maintenance task `uploads` does not remove what killed processes left.",
            "bytes",
            (Query("max(linnet_jobs_uploads_bytes)", "uploads"),),
            least=0,
            runbook="disk",
        ),
        Panel(
            "Requests for jobs",
            "Uploads and status requests at the gateway. 413: too large. 429: too many jobs of one user. 503: too many "
            "uploads at a time. 507: the upload disk is full, or PostgreSQL has `jobs.upload_total_bytes` of them.",
            "reqps",
            (Query(rate(f"{DURATION}_count", ROUTES, "http_response_status_code"), "{{http_response_status_code}}"),),
            stacked=True,
            least=0,
            more="linnet-gateway",
        ),
    ),
)

MAINTENANCE = Row(
    "Do maintenance tasks run?",
    (
        Panel(
            "Tasks",
            "Time since each task's last success. Every task is due at least hourly. Beyond 26 h, partitions may be "
            "missing or old data may be kept.",
            "none",
            (Query(f"time() - max by (task) ({LAST_SUCCESS})", instant=True),),
            kind="table",
            columns=(Column("task", "Task"), Column("Value", "Last success", unit="s")),
            runbook="maintenance#maintenancetaskoverdue",
        ),
        Panel(
            "Unsuccessful runs",
            "Over 24 h: failed, timed out, or stopped with the process. The log has the reason of each failure.",
            "short",
            (
                Query(
                    increase("linnet_maintenance_runs_total", 'outcome!="succeeded"', "task, outcome", "1d"),
                    "{{task}} {{outcome}}",
                ),
            ),
            least=0,
            steps=Steps(warn=1),
            runbook="maintenance#maintenancetaskfailing",
        ),
        Panel(
            "Task duration",
            "Mean of each task since the workers started. A task that takes longer and longer will reach its time "
            "limit.",
            "s",
            (
                Query(
                    "sum by (task) (linnet_maintenance_duration_seconds_sum) / "
                    "(sum by (task) (linnet_maintenance_duration_seconds_count) > 0)",
                    "{{task}}",
                ),
            ),
            least=0,
            runbook="maintenance",
        ),
        cpu_of_processes("worker"),
        memory_of_processes("worker"),
        Panel(
            "Worker availability",
            "1: the worker responds. 0: it does not. Gap: no worker with this name exists.",
            "short",
            (Query('max by (instance) (up{job="worker"})', "{{instance}}"),),
            least=0,
            most=1,
        ),
        errors_in_log("worker"),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-jobs",
    title="Linnet: jobs",
    description="Imports and other bulk jobs, and the maintenance tasks.",
    rows=(JOBS, WHY_JOBS, MAINTENANCE),
    since="now-6h",
)
