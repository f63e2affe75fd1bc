"""Releases: what runs, the course of the last deployment, and the releases side by side while two of them serve."""

from __future__ import annotations

from .model import Column, Dashboard, Meaning, Panel, Query, Row, Steps
from .parts import API, DURATION, PRODUCT, REDIRECT, WINDOW, ZERO_IS_GOOD, braces, stat

# Each process reports its release in `build_info`. Joined by target, it adds the label to the process's other series.
RELEASE = "on (job, instance) group_left (release) build_info"


def by_release(metric: str, labels: str = "", by: str = "release") -> str:
    """The rate per second, summed over the processes of each release."""
    return f"sum by ({by}) (rate({metric}{braces(labels)}[{WINDOW}]) * {RELEASE})"


def share_by_release(labels: str, status: str) -> str:
    """The share of responses with a status. A release without any has no series for them: 0."""
    every = by_release(f"{DURATION}_count", labels)
    some = by_release(f"{DURATION}_count", f'{labels},http_response_status_code=~"{status}"')
    return f"({some} or 0 * {every}) / ({every} > 0)"


def quantile_by_release(q: float, labels: str) -> str:
    return f"histogram_quantile({q:g}, {by_release(f'{DURATION}_bucket', labels, 'release, le')})"


DEPLOYMENT = Row(
    "What runs, and how did the last deployment end?",
    (
        stat(
            "Releases",
            "Releases that gateways, shorteners and workers report. 2 during a deployment and ten minutes after it; "
            "longer: it was interrupted.",
            "none",
            f'count(count by (release) (build_info{{job=~"{PRODUCT}"}}))',
            steps=Steps(warn=2),
            runbook="two-releases",
        ),
        stat(
            "Deployment",
            "Whether one is running, with the time in which the old release is kept for a fast return. No data: this "
            "server was not set up by deploy.sh.",
            "none",
            "max(linnet_deployment_open)",
            meanings=(Meaning(0, "none", "green"), Meaning(1, "running", "orange")),
            empty="not used",
            runbook="deployment#deploymentstuck",
        ),
        stat(
            "Began",
            "Start of the last deployment, whatever its outcome.",
            "dateTimeFromNow",
            "1000 * max(linnet_deployment_started_seconds)",
            empty="not used",
        ),
        stat(
            "Completed",
            "End of the last deployment, if it succeeded.",
            "dateTimeFromNow",
            '1000 * max(linnet_deployment_ended_seconds{outcome="succeeded"} > 0)',
            empty="no",
        ),
        stat(
            "Rolled back or failed",
            "End of the last deployment, if the previous release serves again. `deploy.sh status` states why.",
            "dateTimeFromNow",
            '1000 * max(linnet_deployment_ended_seconds{outcome!="succeeded"} > 0)',
            empty="no",
            runbook="deployment#deploymentrolledback",
        ),
        stat(
            "Drift",
            "Differences between the server and what was prepared and deployed. Not 0: it was changed by hand, or a "
            "deployment is open. `deploy.sh check` names them.",
            "none",
            "max(linnet_host_drift)",
            steps=ZERO_IS_GOOD,
            empty="not used",
            runbook="deployment#serverdrifted",
        ),
        Panel(
            "Processes",
            "The release of each process. Worker and ACME client follow after the gateway and the shortener.",
            "none",
            (Query(f'build_info{{job=~"{PRODUCT}"}}', instant=True),),
            kind="table",
            width=12,
            columns=(
                Column("instance", "Process"),
                Column("release", "Release"),
                Column("version", "Version"),
            ),
        ),
        Panel(
            "Steps of the last deployment",
            "When each step began. Steps of an earlier pass remain after `resume`.",
            "none",
            (Query("1000 * linnet_deployment_step_seconds", instant=True),),
            kind="table",
            width=12,
            columns=(Column("step", "Step"), Column("Value", "Began", unit="dateTimeAsLocal")),
            empty="not used",
        ),
    ),
)

SIDE_BY_SIDE = Row(
    "Does the new release serve as well as the old one?",
    (
        Panel(
            "Redirects by release",
            "Requests for short links per second. During a deployment the new release gets 10 %, 50 % and all of them.",
            "reqps",
            (Query(by_release(f"{DURATION}_count", REDIRECT), "{{release}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Failed redirects by release",
            "Share of 5xx. Higher for the new release: the deployment goes back by itself.",
            "percentunit",
            (Query(share_by_release(REDIRECT, "5.."), "{{release}}"),),
            least=0,
        ),
        Panel(
            "Slow redirects by release",
            "p99 of redirects. A new release begins with an empty L1, so its first minute is slower.",
            "s",
            (Query(quantile_by_release(0.99, REDIRECT), "{{release}}"),),
            least=0,
        ),
        Panel(
            "Unknown links by release",
            "Share of 404. Visitors of the same links must get the same answers: a difference is a defect.",
            "percentunit",
            (Query(share_by_release(REDIRECT, "404"), "{{release}}"),),
            least=0,
        ),
        Panel(
            "Failed API requests by release",
            "Share of 5xx at the gateway. Higher for the new release: the deployment goes back by itself.",
            "percentunit",
            (Query(share_by_release(API, "5.."), "{{release}}"),),
            least=0,
        ),
        Panel(
            "Slow API requests by release",
            "p99 at the gateway, with the time that the shortener needs.",
            "s",
            (Query(quantile_by_release(0.99, API), "{{release}}"),),
            least=0,
        ),
        Panel(
            "CPU of a request by release",
            "Processor time of the shorteners for each redirect. Higher at the same traffic: the release costs more.",
            "s",
            (
                Query(
                    f'{by_release("process_cpu_seconds_total", REDIRECT.split(",")[0])} '
                    f'/ ({by_release(f"{DURATION}_count", REDIRECT)} > 0)',
                    "{{release}}",
                ),
            ),
            least=0,
        ),
        Panel(
            "Memory by release",
            "Resident memory of each process. The new one grows while its L1 fills.",
            "bytes",
            (
                Query(
                    f'sum by (job, release) (process_resident_memory_bytes{{job=~"gateway|shortener"}} * {RELEASE})',
                    "{{job}} {{release}}",
                ),
            ),
            least=0,
        ),
        Panel(
            "Waits for a database connection",
            "Statements per second that got no connection in time. Not 0 in a deployment: two shorteners need more "
            "connections than PostgreSQL has.",
            "ops",
            (Query(by_release("linnet_db_timeouts_total", 'job="shortener",kind="connection"'), "{{release}}"),),
            least=0,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-releases",
    title="Linnet: releases",
    description="Releases: what runs, how did the last deployment go, and is the new release as good as the old one?",
    rows=(DEPLOYMENT, SIDE_BY_SIDE),
)
