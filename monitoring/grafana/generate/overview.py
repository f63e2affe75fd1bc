"""The first page: availability, effect on users, objectives, location and start of a fault."""

from __future__ import annotations

from .model import Column, Dashboard, Panel, Query, Row, Steps
from .parts import (
    API,
    CORE,
    DURATION,
    PRODUCT,
    REDIRECT,
    UP_OR_DOWN,
    WINDOW,
    ZERO_IS_GOOD,
    budget_left,
    burn_rate,
    fast_share,
    good_share,
    quantiles,
    rate,
    stat,
)

REDIRECTS_GOOD, REDIRECTS_FAST, API_GOOD = 0.9995, 0.99, 0.999
BUDGET = Steps(warn=0.5, bad=0.1, falling=True)
BURN = Steps(warn=6, bad=14.4)
MONTH = "over 30 days, or as far back as Prometheus keeps data (15 days by default)"

UP = Row(
    "Is Linnet up?",
    (
        stat(
            "Firing pages",
            "Firing alerts of severity page. Not 0: open the runbook of each alert in the table below.",
            "none",
            'count(ALERTS{alertstate="firing",severity="page"}) or vector(0)',
            steps=ZERO_IS_GOOD,
        ),
        stat(
            "Firing tickets",
            "Firing alerts of severity ticket. They need attention within a day.",
            "none",
            'count(ALERTS{alertstate="firing",severity="ticket"}) or vector(0)',
            steps=Steps(warn=1),
        ),
        stat(
            "Watchdog",
            "The Watchdog alert always fires. 0: Prometheus does not evaluate rules, and no alert can fire.",
            "none",
            'count(ALERTS{alertname="Watchdog",alertstate="firing"}) or vector(0)',
            steps=Steps(bad=1, falling=True),
            runbook="monitoring#watchdog",
        ),
        stat(
            "Targets down",
            "Targets that Prometheus finds in DNS and cannot scrape. A service without any container is not in DNS and "
            "not counted: it appears as a gap in the timeline below.",
            "none",
            "count(up == 0) or vector(0)",
            steps=ZERO_IS_GOOD,
            runbook="monitoring#targetmissing",
        ),
        stat(
            "Instances",
            "Instances of each service that respond. Fewer than were started: one has stopped or is missing in DNS.",
            "none",
            f'sum by (job) (up{{job=~"{PRODUCT}"}})',
            legend="{{job}}",
            width=5,
            steps=Steps(bad=1, falling=True),
            runbook="instance-down",
        ),
        stat(
            "Data stores",
            "Whether the exporters reach PostgreSQL and Redis. Without PostgreSQL, cached links resolve and the API "
            "returns 503. Without Redis, everything works with less reserve.",
            "none",
            'label_replace(min(pg_up), "store", "PostgreSQL", "", "") or label_replace(min(redis_up), "store", "Redis", "", "")',
            legend="{{store}}",
            width=3,
            meanings=UP_OR_DOWN,
            runbook="postgres-down",
        ),
        Panel(
            "Services over time",
            "The worst instance of each service. Red: it is in DNS and does not respond. Gap: it is not in DNS, for "
            "example because its container has stopped.",
            "none",
            (Query("min by (job) (up)", "{{job}}"),),
            kind="state-timeline",
            width=12,
            height=10,
            meanings=UP_OR_DOWN,
            runbook="instance-down",
        ),
        Panel(
            "Alerts",
            "Firing and pending alerts. The name links to the list of runbooks. Empty is good.",
            "none",
            (Query('ALERTS{alertname!="Watchdog"}', instant=True),),
            kind="table",
            width=12,
            height=10,
            empty="no alerts",
            columns=(
                Column("alertname", "Alert", url="https://github.com/linnet-url/linnet/blob/main/docs/runbooks/README.md"),
                Column("severity", "Severity"),
                Column("alertstate", "State"),
                Column("job", "Service"),
                Column("instance", "Instance"),
            ),
        ),
    ),
)

USERS = Row(
    "Are users affected?",
    (
        Panel(
            "Redirects by status",
            "Responses of the shorteners' resolve listener. 302: redirect. 404: unknown or expired link. 429: a client "
            "that guesses codes. 5xx: a fault of Linnet.",
            "reqps",
            (Query(rate(f"{DURATION}_count", REDIRECT, "http_response_status_code"), "{{http_response_status_code}}"),),
            stacked=True,
            least=0,
            more="linnet-resolve",
        ),
        Panel(
            "Failed redirects",
            "Share of 5xx among redirects. Above 0.05 %, the error budget is used faster than allowed.",
            "percentunit",
            (Query(f"1 - ({good_share(REDIRECT, WINDOW)})", "failed"),),
            steps=Steps(bad=1 - REDIRECTS_GOOD),
            least=0,
            more="linnet-resolve",
            runbook="error-budget",
        ),
        Panel(
            "Redirect duration",
            "Duration at the shorteners, without nginx and the network. The objective is 10 ms for 99 %. Higher "
            "values: lookups miss the caches or wait for PostgreSQL.",
            "s",
            quantiles(DURATION, REDIRECT),
            steps=Steps(bad=0.01),
            least=0,
            more="linnet-resolve",
            runbook="error-budget",
        ),
        Panel(
            "API requests by status",
            "Responses of the gateway. 401, 403: missing or insufficient key. 429: rate limit. 499: the client "
            "disconnected. 5xx: a fault of Linnet.",
            "reqps",
            (Query(rate(f"{DURATION}_count", API, "http_response_status_code"), "{{http_response_status_code}}"),),
            stacked=True,
            least=0,
            more="linnet-gateway",
        ),
        Panel(
            "Failed API requests",
            "Share of 5xx among the gateway's responses. Above 0.1 %, the error budget is used faster than allowed.",
            "percentunit",
            (Query(f"1 - ({good_share(API, WINDOW)})", "failed"),),
            steps=Steps(bad=1 - API_GOOD),
            least=0,
            more="linnet-gateway",
            runbook="error-budget",
        ),
        Panel(
            "API request duration",
            "From the request's head to the end of its response. Exports and live streams are included, so a long p99 "
            "is normal. A rising p50 affects all clients.",
            "s",
            quantiles(DURATION, API),
            least=0,
            more="linnet-gateway",
        ),
    ),
)

OBJECTIVES = Row(
    "Objectives and error budgets",
    (
        stat(
            "Redirects: budget left",
            f"Of the 0.05 % of redirects that may fail {MONTH}. At 0 % the objective is missed: postpone releases, fix "
            "faults first.",
            "percentunit",
            budget_left(good_share(REDIRECT, "30d"), REDIRECTS_GOOD),
            steps=BUDGET,
            decimals=1,
            runbook="error-budget",
        ),
        stat(
            "Fast redirects: budget left",
            f"Of the 1 % of redirects that may take longer than 10 ms {MONTH}.",
            "percentunit",
            budget_left(fast_share(REDIRECT, "0.01", "30d"), REDIRECTS_FAST),
            steps=BUDGET,
            decimals=1,
            runbook="error-budget",
        ),
        stat(
            "API: budget left",
            f"Of the 0.1 % of API requests that may fail {MONTH}.",
            "percentunit",
            budget_left(good_share(API, "30d"), API_GOOD),
            steps=BUDGET,
            decimals=1,
            runbook="error-budget",
        ),
        Panel(
            "Burn rates, 1 h",
            "How many times faster than allowed the budget is used. 1 uses it in exactly 30 days. 14.4 uses it in two "
            "days and sends a page.",
            "short",
            (
                Query(burn_rate(good_share(REDIRECT, "1h"), REDIRECTS_GOOD), "redirects"),
                Query(burn_rate(fast_share(REDIRECT, "0.01", "1h"), REDIRECTS_FAST), "fast redirects"),
                Query(burn_rate(good_share(API, "1h"), API_GOOD), "API"),
            ),
            width=12,
            steps=BURN,
            least=0,
            runbook="error-budget",
        ),
    ),
)

WHERE = Row(
    "Where is the fault?",
    (
        Panel(
            "Redirects by instance",
            "Redirects of each shortener. nginx distributes them evenly. One with much less is slow, unhealthy or new.",
            "reqps",
            (Query(rate(f"{DURATION}_count", REDIRECT, "instance"), "{{instance}}"),),
            least=0,
            more="linnet-resolve",
        ),
        Panel(
            "Lookups by tier",
            "The tier that answered each lookup. Much `database` after a process's first minutes: caches are cold, too "
            "small or out of use.",
            "ops",
            (Query(rate("linnet_cache_lookups_total", "", "tier"), "{{tier}}"),),
            stacked=True,
            least=0,
            more="linnet-resolve",
            runbook="redis-memory#cachehitratiolow",
        ),
        Panel(
            "Click lag",
            "Age of the oldest click that is not in PostgreSQL. Redirects do not wait for it, statistics do. Minutes: "
            "workers are down or too few, or PostgreSQL is slow.",
            "s",
            (Query("max(linnet_clicks_stream_lag_seconds)", "lag"),),
            steps=Steps(warn=60, bad=300),
            least=0,
            more="linnet-clicks",
            runbook="clicks#clickstreamlag",
        ),
        Panel(
            "Database connections in use",
            "Used share of each pool, of the process with the highest. At 100 % requests wait, then fail with 503.",
            "percentunit",
            (
                Query(
                    'max by (job, pool) (linnet_db_connections{state="used"} / ignoring (state) linnet_db_connections_max)',
                    "{{job}} {{pool}}",
                ),
            ),
            steps=Steps(warn=0.8, bad=1),
            least=0,
            most=1,
            more="linnet-postgres",
            runbook="postgres-load#databasepoolexhausted",
        ),
        Panel(
            "Jobs by state",
            "Imports and other bulk jobs. Queues that grow while nothing runs: the workers are down.",
            "short",
            (Query("max by (state) (linnet_jobs)", "{{state}}"),),
            least=0,
            more="linnet-jobs",
            runbook="jobs",
        ),
        Panel(
            "Connections between processes",
            "Up: the invalidation bus is live, Redis responds, the gateways' shorteners pass health checks. Down: "
            "cached entries live at most 1 s, and PostgreSQL has more load.",
            "none",
            (
                Query("min(linnet_invalidation_bus_live)", "invalidation bus → shorteners"),
                Query("min(linnet_gateway_invalidation_bus_live)", "invalidation bus → gateways"),
                Query('1 - clamp_max(sum(linnet_redis_clients{state="down"}), 1)', "shorteners → Redis"),
                Query("min(linnet_gateway_upstream_up)", "gateways → shorteners"),
            ),
            kind="state-timeline",
            height=8,
            meanings=UP_OR_DOWN,
            runbook="invalidation-bus",
        ),
    ),
)

SINCE = Row(
    "Since when?",
    (
        Panel(
            "Releases",
            "Running releases. Two releases of a service are normal during a deployment. After half an hour, one was "
            "left behind.",
            "none",
            (Query("count by (service, release, version) (build_info)", instant=True),),
            kind="table",
            columns=(
                Column("service", "Service"),
                Column("release", "Release"),
                Column("version", "Version"),
                Column("Value", "Processes"),
            ),
            runbook="two-releases",
        ),
        Panel(
            "Uptime",
            "Time since each process started. Sawteeth are restarts. All services at once: the machine restarted, or a "
            "deployment.",
            "s",
            (Query(f'time() - process_start_time_seconds{{job=~"{PRODUCT}"}}', "{{job}} {{instance}}"),),
            least=0,
            more="linnet-host",
            runbook="instance-down#processrestartloop",
        ),
        Panel(
            "Scrape duration",
            "Time to scrape each service. Above the timeout of 5 s, metrics have gaps and alerts do not work.",
            "s",
            (Query(f'max by (job) (scrape_duration_seconds{{job=~"{CORE}"}})', "{{job}}"),),
            least=0,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-overview",
    title="Linnet: overview",
    description="Is Linnet up, are users affected, where is the fault, and since when?",
    rows=(UP, USERS, OBJECTIVES, WHERE, SINCE),
    refresh="1m",
)
