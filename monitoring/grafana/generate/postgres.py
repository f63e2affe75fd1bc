"""PostgreSQL, as its exporter and as Linnet's pools see it."""

from __future__ import annotations

from .model import Column, Dashboard, Panel, Query, Row, Steps
from .parts import UP_OR_DOWN, errors_in_log, increase, rate, stat

# Every database but the server's own.
OURS = 'datname!~"template.*|postgres|"'
USED = 'linnet_db_connections{state="used"}'
HITS, READS = "pg_stat_database_blks_hit", "pg_stat_database_blks_read"

UP = Row(
    "Is it up, and can it be reached?",
    (
        stat(
            "PostgreSQL",
            "Whether the exporter reaches it. Down: links that no cache holds are 503, and so is the API.",
            "none",
            "min(pg_up)",
            meanings=UP_OR_DOWN,
            runbook="postgres-down",
        ),
        stat(
            "Connections",
            "Share of `max_connections`. Near 100 % new connections are refused, and with them requests.",
            "percentunit",
            "sum(pg_stat_activity_count) / min(pg_settings_max_connections)",
            steps=Steps(warn=0.7, bad=0.8),
            runbook="postgres-load#postgresconnectionshigh",
        ),
        stat(
            "Longest transaction",
            "Long ones keep old rows alive and locks held. Linnet's own take seconds at most, the deletion of a user up to 30 s.",
            "s",
            "max(pg_stat_activity_max_tx_duration)",
            steps=Steps(warn=60, bad=300),
            runbook="postgres-load#postgreslongtransaction",
        ),
        stat(
            "Deadlocks today",
            "Over 24 h. Each is a transaction that was ended and made again; any at all means that two of ours take locks in "
            "different orders.",
            "short",
            increase("pg_stat_database_deadlocks", OURS, window="24h"),
            steps=Steps(warn=1),
            decimals=0,
            runbook="postgres-load#postgresdeadlocks",
        ),
        stat(
            "Size",
            "Of Linnet's database with all indexes. Clicks are kept for 90 days, so it should level off.",
            "bytes",
            f"sum(pg_database_size_bytes{{{OURS}}})",
            more="linnet-host",
        ),
        stat(
            "Read from memory",
            "Share of blocks found in shared buffers, over the last hour. Below 95 %: the working set does not fit.",
            "percentunit",
            f"{increase(HITS, OURS, window='1h')} / ({increase(HITS, OURS, window='1h')} + {increase(READS, OURS, window='1h')} > 0)",
            steps=Steps(warn=0.95, bad=0.8, falling=True),
            decimals=1,
        ),
    ),
)

CONNECTIONS = Row(
    "Do requests wait for connections?",
    (
        Panel(
            "Pools",
            "Connections in use by pool, as the processes count them. `resolve` serves redirects, `api` the API, `background` the rest.",
            "short",
            (Query(f"sum by (job, pool) ({USED})", "{{job}} {{pool}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Fullest pool",
            "Share of the pool that is taken, by process. At 100 % requests wait up to `postgres.acquire_timeout_ms`, then are 503.",
            "percentunit",
            (
                Query(
                    f"max by (instance, pool) ({USED} / ignoring (state) linnet_db_connections_max)", "{{instance}} {{pool}}"
                ),
            ),
            steps=Steps(warn=0.8, bad=1),
            least=0,
            most=1,
            runbook="postgres-load#databasepoolexhausted",
        ),
        Panel(
            "Sessions by state",
            "As PostgreSQL counts them. Many `active`: slow statements. `idle in transaction`: a client that forgot to commit.",
            "short",
            (Query("sum by (state) (pg_stat_activity_count)", "{{state}}"),),
            stacked=True,
            least=0,
        ),
    ),
)

WORK = Row(
    "What does it do?",
    (
        Panel(
            "Transactions",
            "Committed and rolled back. Rollbacks that rise with errors of the API: look at the log below.",
            "ops",
            (
                Query(rate("pg_stat_database_xact_commit", OURS), "committed"),
                Query(rate("pg_stat_database_xact_rollback", OURS), "rolled back"),
            ),
            least=0,
        ),
        Panel(
            "Rows",
            "Read by the plan, returned to statements, and written. `returned` far above `fetched` is a scan without an index.",
            "ops",
            (
                Query(rate("pg_stat_database_tup_returned", OURS), "returned"),
                Query(rate("pg_stat_database_tup_fetched", OURS), "fetched"),
                Query(rate("pg_stat_database_tup_inserted", OURS), "inserted"),
                Query(rate("pg_stat_database_tup_updated", OURS), "updated"),
                Query(rate("pg_stat_database_tup_deleted", OURS), "deleted"),
            ),
            least=0,
        ),
        Panel(
            "Blocks read from disk",
            "Blocks that were not in shared buffers; the system's cache may still have had them. Rises with slow redirects: memory is "
            "short.",
            "ops",
            (Query(rate(READS, OURS), "blocks"),),
            least=0,
        ),
        Panel(
            "Longest transaction by state",
            "`active`: a slow statement or a wait for a lock. `idle in transaction`: a client that does not go on.",
            "s",
            (Query("max by (state) (pg_stat_activity_max_tx_duration)", "{{state}}"),),
            least=0,
        ),
        Panel(
            "Locks",
            "Held and awaited, by mode. Any `accessexclusivelock` for more than a moment stops everything on that table.",
            "short",
            (Query(f"sum by (mode) (pg_locks_count{{{OURS}}})", "{{mode}}"),),
            least=0,
        ),
        Panel(
            "Deadlocks and conflicts",
            "Transactions that PostgreSQL ended. 0 is right.",
            "short",
            (
                Query(increase("pg_stat_database_deadlocks", OURS), "deadlocks"),
                Query(increase("pg_stat_database_conflicts", OURS), "conflicts"),
            ),
            least=0,
        ),
    ),
)

SPACE = Row(
    "Does it have room?",
    (
        Panel(
            "Size by database",
            "A steady rise beyond the retention of clicks: roll-ups and links, or tables that vacuum does not keep small.",
            "bytes",
            (Query(f"max by (datname) (pg_database_size_bytes{{{OURS}}})", "{{datname}}"),),
            least=0,
            runbook="disk",
        ),
        Panel(
            "Temporary files",
            "Written by sorts that did not fit `work_mem`. Exports write some; a lot at every moment is a bad plan.",
            "Bps",
            (Query(rate("pg_stat_database_temp_bytes", OURS), "temporary files"),),
            least=0,
        ),
        Panel(
            "Write-ahead log",
            "Its size on disk. It grows when checkpoints are late or something holds it back; a full disk stops PostgreSQL.",
            "bytes",
            (Query("max(pg_wal_size_bytes)", "WAL"),),
            least=0,
            more="linnet-host",
        ),
        Panel(
            "Tables with the most dead rows",
            "What vacuum has yet to take away. More dead than live ones: autovacuum does not keep up, or a long transaction holds it.",
            "short",
            (
                Query("topk(10, max by (relname) (pg_stat_user_tables_n_dead_tup))", instant=True),
                Query("max by (relname) (pg_stat_user_tables_n_live_tup)", instant=True),
            ),
            kind="table",
            width=12,
            columns=(
                Column("relname", "Table"),
                Column("Value #A", "Dead rows", unit="short"),
                Column("Value #B", "Live rows", unit="short"),
            ),
        ),
        Panel(
            "Scrapes of the exporter",
            "Time that it takes to ask PostgreSQL everything. It rises when PostgreSQL is busy, or catalogues are large.",
            "s",
            (Query('max by (instance) (scrape_duration_seconds{job="postgres"})', "{{instance}}"),),
            width=12,
            least=0,
        ),
        errors_in_log("postgres"),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-postgres",
    title="Linnet: PostgreSQL",
    description="The database: reachable, free connections, what it works on, and how much room it has.",
    rows=(UP, CONNECTIONS, WORK, SPACE),
)
