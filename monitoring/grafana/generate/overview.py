"""The first page: is it up, do users suffer, where, and since when."""

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
    "Is it up?",
    (
        stat(
            "Alerts that wake somebody",
            "Firing alerts of severity page. Anything but 0: read the table below and open the runbook.",
            "none",
            'count(ALERTS{alertstate="firing",severity="page"}) or vector(0)',
            steps=ZERO_IS_GOOD,
        ),
        stat(
            "Alerts for working hours",
            "Firing alerts of severity ticket. They can wait until morning, not for a week.",
            "none",
            'count(ALERTS{alertstate="firing",severity="ticket"}) or vector(0)',
            steps=Steps(warn=1),
        ),
        stat(
            "Alerting itself",
            "The Watchdog alert always fires; 0 means that Prometheus evaluates no rules, and that a silent pager says nothing.",
            "none",
            'count(ALERTS{alertname="Watchdog",alertstate="firing"}) or vector(0)',
            steps=Steps(bad=1, falling=True),
            runbook="monitoring#watchdog",
        ),
        stat(
            "Targets down",
            "What Prometheus finds in the DNS and cannot scrape. A service that is gone altogether is not counted here: it shows "
            "as a gap in the timeline below.",
            "none",
            "count(up == 0) or vector(0)",
            steps=ZERO_IS_GOOD,
            runbook="monitoring#targetmissing",
        ),
        stat(
            "Instances",
            "How many of each service answer. Fewer than were started: one has died or left the DNS.",
            "none",
            f'sum by (job) (up{{job=~"{PRODUCT}"}})',
            legend="{{job}}",
            width=5,
            steps=Steps(bad=1, falling=True),
            runbook="instance-down",
        ),
        stat(
            "Data stores",
            "Whether the exporters reach PostgreSQL and Redis. Redirects survive either for a while; the API needs PostgreSQL.",
            "none",
            'label_replace(min(pg_up), "store", "PostgreSQL", "", "") or label_replace(min(redis_up), "store", "Redis", "", "")',
            legend="{{store}}",
            width=3,
            meanings=UP_OR_DOWN,
            runbook="postgres-down",
        ),
        Panel(
            "What is up",
            "Each service over time, by its worst instance. Red: it is there and does not answer its scrapes. A gap: it is not "
            "even in the DNS, as when its container is stopped.",
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
            "Alerts that fire or are about to. The name leads to the list of runbooks. Empty is good.",
            "none",
            (Query('ALERTS{alertname!="Watchdog"}', instant=True),),
            kind="table",
            width=12,
            height=10,
            empty="nothing fires",
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
    "Do users suffer?",
    (
        Panel(
            "Redirects by status",
            "Answers of the shorteners' public listener. 302 is a redirect; 404 an unknown or ended link; 429 a client that "
            "guesses codes; 5xx is our fault.",
            "reqps",
            (Query(rate(f"{DURATION}_count", REDIRECT, "http_response_status_code"), "{{http_response_status_code}}"),),
            stacked=True,
            least=0,
            more="linnet-resolve",
        ),
        Panel(
            "Redirects that failed",
            "Share of 5xx among redirects. Above 0.05 % the error budget of the month is used up faster than it comes back.",
            "percentunit",
            (Query(f"1 - ({good_share(REDIRECT, WINDOW)})", "failed"),),
            steps=Steps(bad=1 - REDIRECTS_GOOD),
            least=0,
            more="linnet-resolve",
            runbook="error-budget",
        ),
        Panel(
            "Time to redirect",
            "At the shorteners, without nginx and the network. 99 % should take at most 10 ms; more means that look-ups miss the "
            "caches or wait for the database.",
            "s",
            quantiles(DURATION, REDIRECT),
            steps=Steps(bad=0.01),
            least=0,
            more="linnet-resolve",
            runbook="error-budget",
        ),
        Panel(
            "API requests by status",
            "Answers of the gateway. 401 and 403 are callers without a right, 429 callers over their rate, 499 callers who left; "
            "5xx is our fault.",
            "reqps",
            (Query(rate(f"{DURATION}_count", API, "http_response_status_code"), "{{http_response_status_code}}"),),
            stacked=True,
            least=0,
            more="linnet-gateway",
        ),
        Panel(
            "API requests that failed",
            "Share of 5xx among the gateway's answers. Above 0.1 % the error budget of the month is used up faster than it comes "
            "back.",
            "percentunit",
            (Query(f"1 - ({good_share(API, WINDOW)})", "failed"),),
            steps=Steps(bad=1 - API_GOOD),
            least=0,
            more="linnet-gateway",
            runbook="error-budget",
        ),
        Panel(
            "Time of API requests",
            "From a request's head to the end of its answer, exports and live streams included: the 99 % line may be long without "
            "harm. A half line that rises means that everybody waits.",
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
            f"Of the 0.05 % of redirects that may fail {MONTH}. At 0 % the objective is missed: changes wait, repairs go first.",
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
            "How many times faster than allowed the budget is used. 1 uses it up in exactly 30 days; 14.4 in two days and pages.",
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
    "Where?",
    (
        Panel(
            "Redirects by instance",
            "Each shortener's share. nginx spreads evenly; one that gets much less is slow, unhealthy, or has just come up.",
            "reqps",
            (Query(rate(f"{DURATION}_count", REDIRECT, "instance"), "{{instance}}"),),
            least=0,
            more="linnet-resolve",
        ),
        Panel(
            "Which cache answers",
            "Look-ups by the tier that answered. Much `database` after the first minutes of a process means cold or broken caches.",
            "ops",
            (Query(rate("linnet_cache_lookups_total", "", "tier"), "{{tier}}"),),
            stacked=True,
            least=0,
            more="linnet-resolve",
            runbook="redis-memory#cachehitratiolow",
        ),
        Panel(
            "Age of the oldest unwritten click",
            "How far the recording of clicks lags behind. Redirects don't wait for it; statistics do. Beyond minutes the workers "
            "are down, too few, or PostgreSQL is slow.",
            "s",
            (Query("max(linnet_clicks_stream_lag_seconds)", "lag"),),
            steps=Steps(warn=60, bad=300),
            least=0,
            more="linnet-clicks",
            runbook="clicks#clickstreamlag",
        ),
        Panel(
            "Database connections in use",
            "Share of each pool that is taken, of the fullest process. At 100 % requests wait and then fail with 503.",
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
            "Jobs that wait and run",
            "Imports and other bulk work. Queues that grow while nothing runs: the workers are down.",
            "short",
            (Query("max by (state) (linnet_jobs)", "{{state}}"),),
            least=0,
            more="linnet-jobs",
            runbook="jobs",
        ),
        Panel(
            "Links between the processes",
            "1 is good: news of changes and of revoked keys arrives, Redis answers, and the gateway's shorteners take traffic. "
            "0: caches fall back to short lives and the database gets more to do.",
            "none",
            (
                Query("min(linnet_change_feed_live)", "changes → shorteners"),
                Query("min(linnet_gateway_change_feed_live)", "revoked keys → gateways"),
                Query('1 - clamp_max(sum(linnet_redis_links{state="down"}), 1)', "shorteners → Redis"),
                Query("min(linnet_gateway_upstream_up)", "gateways → shorteners"),
            ),
            kind="state-timeline",
            height=8,
            meanings=UP_OR_DOWN,
            runbook="change-feed",
        ),
    ),
)

SINCE = Row(
    "Since when?",
    (
        Panel(
            "Releases",
            "What runs. Two releases of one service are normal during a deployment, and a forgotten one half an hour later.",
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
            "Time since start",
            "Saw teeth are restarts. All services at once: the host, or a deployment.",
            "s",
            (Query(f'time() - process_start_time_seconds{{job=~"{PRODUCT}"}}', "{{job}} {{instance}}"),),
            least=0,
            more="linnet-host",
            runbook="instance-down#processrestartloop",
        ),
        Panel(
            "Scrapes",
            "Time that scraping each service takes. Near 10 s metrics have holes, and so have alerts.",
            "s",
            (Query(f'max by (job) (scrape_duration_seconds{{job=~"{CORE}"}})', "{{job}}"),),
            least=0,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-overview",
    title="Linnet: overview",
    description="Is Linnet up, do its users suffer, and where does it come from?",
    rows=(UP, USERS, OBJECTIVES, WHERE, SINCE),
    refresh="1m",
)
