"""Bulk jobs and the upkeep, both in the workers."""

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
    "Do jobs get done?",
    (
        stat(
            "Dead letters",
            "Jobs that failed too often and wait for a person. Look at them with GET /api/v1/jobs/dead, replay them when the cause is "
            "gone.",
            "none",
            'max(linnet_jobs{state="dead"})',
            steps=ZERO_IS_GOOD,
            runbook="jobs#jobdeadletters",
        ),
        stat(
            "Waiting longest",
            "How long the first in the queue has been waiting. Minutes with workers up: large jobs fill all lanes.",
            "s",
            "max(linnet_jobs_oldest_queued_seconds)",
            steps=Steps(warn=300, bad=1800),
            decimals=0,
            runbook="jobs#jobqueuedtoolong",
        ),
        stat(
            "Small jobs waiting",
            "They have a lane of their own in each worker and should start within seconds.",
            "none",
            'max(linnet_jobs{state="queued_small"})',
        ),
        stat(
            "Large jobs waiting",
            "They wait for one another. A queue that only grows: the workers are down or too few.",
            "none",
            'max(linnet_jobs{state="queued_large"})',
        ),
        stat(
            "Running",
            "Jobs that a worker is at. 0 while others wait: no worker takes them.",
            "none",
            'max(linnet_jobs{state="running"})',
        ),
        stat(
            "Workers",
            "How many answer scrapes. None: jobs are accepted and wait.",
            "none",
            'sum(up{job="worker"})',
            steps=Steps(bad=1, falling=True),
            runbook="worker-down",
        ),
        Panel(
            "Jobs by state",
            "Queues should rise and fall. `dead` should stay at 0.",
            "short",
            (Query("max by (state) (linnet_jobs)", "{{state}}"),),
            least=0,
        ),
        Panel(
            "Rows",
            "Rows of jobs a second: written, skipped as they were there already, failed as bad input. Many failed: one user's bad "
            "file, as a rule.",
            "ops",
            (Query(rate("linnet_jobs_rows_total", "", "outcome"), "{{outcome}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Attempts that ended",
            "By kind of job and how it ended. It has lines once jobs have ended.",
            "short",
            (Query(increase("linnet_jobs_ended_total", "", "kind, outcome"), "{{kind}} {{outcome}}"),),
            least=0,
            empty="none so far",
        ),
    ),
)

WHY_JOBS = Row(
    "Why are jobs slow?",
    (
        Panel(
            "Time to write a chunk",
            "Up to 2,000 rows in one transaction, retries included. Seconds: PostgreSQL is slow or waits for locks.",
            "s",
            quantiles("linnet_jobs_chunk_duration_seconds"),
            least=0,
            more="linnet-postgres",
        ),
        Panel(
            "Failed attempts and repeated chunks",
            "An attempt that failed is made again after a pause; a chunk is repeated when the database was away. Only faults fill this.",
            "short",
            (
                Query(increase("linnet_jobs_failed_attempts_total"), "failed attempts"),
                Query(increase("linnet_jobs_chunk_retries_total"), "repeated chunks"),
            ),
            least=0,
            empty="none so far",
        ),
        Panel(
            "Requests about jobs",
            "Uploads and questions at the gateway. 413 too large, 429 too many jobs of one user, 503 too many uploads at a time, 507 "
            "the disk of uploads is full.",
            "reqps",
            (Query(rate(f"{DURATION}_count", ROUTES, "http_response_status_code"), "{{http_response_status_code}}"),),
            stacked=True,
            least=0,
            more="linnet-gateway",
        ),
    ),
)

UPKEEP = Row(
    "Is the upkeep done?",
    (
        Panel(
            "Tasks",
            "When each task last succeeded. Most run at least once a day: beyond 26 h partitions may be missing or old data be kept.",
            "none",
            (Query(f"time() - max by (task) ({LAST_SUCCESS})", instant=True),),
            kind="table",
            columns=(Column("task", "Task"), Column("Value", "Succeeded before", unit="s")),
            runbook="maintenance#maintenancetaskoverdue",
        ),
        Panel(
            "Runs that did not succeed",
            "Over a day: failed, timed out, or stopped with the process. Failed ones say why in the log.",
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
            "Time of the tasks",
            "Mean of each task since the workers' start. A task that takes ever longer will meet its time limit some day.",
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
            "Workers' scrapes",
            "1 while a worker answers, 0 while it does not, a gap while there is none of that name.",
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
    description="Imports and other bulk jobs, and the upkeep of the database.",
    rows=(JOBS, WHY_JOBS, UPKEEP),
    since="now-6h",
)
