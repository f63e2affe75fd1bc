"""PostgreSQL, measured by its exporter and by Linnet's connection pools."""

from __future__ import annotations

from .model import Column, Dashboard, Meaning, Panel, Query, Row, Steps
from .parts import UP_OR_DOWN, errors_in_log, increase, rate, stat

# All databases except the server's own.
OURS = 'datname!~"template.*|postgres|"'
USED = 'linnet_db_connections{state="used"}'
HITS, READS = "pg_stat_database_blks_hit", "pg_stat_database_blks_read"

UP = Row(
    "Is PostgreSQL up?",
    (
        stat(
            "PostgreSQL",
            "Whether its exporter reaches it. Down: links that no cache holds return 503, and so does the API.",
            "none",
            "min(pg_up)",
            meanings=UP_OR_DOWN,
            runbook="postgres-down",
        ),
        stat(
            "Connections",
            "Used share of `max_connections`. Near 100 % new connections are refused, and requests fail.",
            "percentunit",
            "sum(pg_stat_activity_count) / min(pg_settings_max_connections)",
            steps=Steps(warn=0.7, bad=0.8),
            runbook="postgres-load#postgresconnectionshigh",
        ),
        stat(
            "Longest transaction",
            "Long transactions keep deleted rows and hold locks. Linnet's own take seconds, the deletion of a user up "
            "to 30 s.",
            "s",
            "max(pg_stat_activity_max_tx_duration)",
            steps=Steps(warn=60, bad=300),
            runbook="postgres-load#postgreslongtransaction",
        ),
        stat(
            "Deadlocks in 24 h",
            "PostgreSQL canceled one transaction of each. Any deadlock means that two statements take locks in "
            "different orders.",
            "short",
            increase("pg_stat_database_deadlocks", OURS, window="24h"),
            steps=Steps(warn=1),
            decimals=0,
            runbook="postgres-load#postgresdeadlocks",
        ),
        stat(
            "Size",
            "Linnet's database with all indexes. Clicks are kept for 90 days by default, so it should level off.",
            "bytes",
            f"sum(pg_database_size_bytes{{{OURS}}})",
            more="linnet-host",
        ),
        stat(
            "Buffer hit ratio",
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
            "Connections in use, reported by the processes. `resolve`: redirects. `api`: the API. `background`: "
            "background tasks.",
            "short",
            (Query(f"sum by (job, pool) ({USED})", "{{job}} {{pool}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Pool usage",
            "Used share of each pool. At 100 % requests wait up to `postgres.acquire_timeout_ms`, then return 503.",
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
            "Hosts",
            "With several hosts in `postgres.url`: whether a process reaches each host, by role. 0: no process does.",
            "short",
            (Query("max by (host, role) (linnet_db_host_up)", "{{host}} {{role}}"),),
            least=0,
            most=1,
            empty="One host, which is not observed.",
            runbook="postgres-down#postgreshostdown",
        ),
        Panel(
            "Reads with a replica",
            "Statistics, lists and exports per second, by the server that answered. `primary`: the replica was behind, "
            "or failed.",
            "ops",
            (Query('sum by (target) (rate(linnet_db_replica_reads_total[$__rate_interval]))', "{{target}}"),),
            stacked=True,
            least=0,
            empty="No replica.",
            runbook="postgres-down#postgresreplicaunused",
        ),
        Panel(
            "Replica lag",
            "Time for which the primary has been past the replica's position. From `postgres.replica_max_lag_ms` on, the "
            "primary answers.",
            "s",
            (Query("max(linnet_db_replica_lag_seconds)", "lag"),),
            least=0,
            empty="No replica.",
            runbook="postgres-down#postgresreplicaunused",
        ),
        Panel(
            "Sessions by state",
            "Reported by PostgreSQL. Many `active`: slow statements. `idle in transaction`: a client has not committed.",
            "short",
            (Query("sum by (state) (pg_stat_activity_count)", "{{state}}"),),
            stacked=True,
            least=0,
        ),
    ),
)

WORK = Row(
    "What is it working on?",
    (
        Panel(
            "Transactions",
            "Committed and rolled back. Rollbacks that rise with API errors: see the log below.",
            "ops",
            (
                Query(rate("pg_stat_database_xact_commit", OURS), "committed"),
                Query(rate("pg_stat_database_xact_rollback", OURS), "rolled back"),
            ),
            least=0,
        ),
        Panel(
            "Rows",
            "`returned` far above `fetched`: statements scan tables without an index.",
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
            "Blocks that were not in shared buffers; the system's file cache may have had them. Rising with slow "
            "redirects: memory is short.",
            "ops",
            (Query(rate(READS, OURS), "blocks"),),
            least=0,
        ),
        Panel(
            "Longest transaction by state",
            "`active`: a slow statement, or one that waits for a lock. `idle in transaction`: a client that has not "
            "committed.",
            "s",
            (Query("max by (state) (pg_stat_activity_max_tx_duration)", "{{state}}"),),
            least=0,
        ),
        Panel(
            "Locks",
            "Held and awaited locks by mode. An `accessexclusivelock` blocks every statement on its table.",
            "short",
            (Query(f"sum by (mode) (pg_locks_count{{{OURS}}})", "{{mode}}"),),
            least=0,
        ),
        Panel(
            "Deadlocks and conflicts",
            "Transactions that PostgreSQL canceled. Should be 0.",
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
    "Is there enough space?",
    (
        Panel(
            "Size by database",
            "A steady rise beyond the retention of clicks: roll-ups and links grow, or vacuum does not keep tables "
            "small.",
            "bytes",
            (Query(f"max by (datname) (pg_database_size_bytes{{{OURS}}})", "{{datname}}"),),
            least=0,
            runbook="disk",
        ),
        Panel(
            "Temporary files",
            "Written by sorts that exceed `work_mem`. Exports write some. A constant stream indicates a bad plan.",
            "Bps",
            (Query(rate("pg_stat_database_temp_bytes", OURS), "temporary files"),),
            least=0,
        ),
        Panel(
            "Write-ahead log",
            "Size on disk. It grows when checkpoints are late or something retains it. A full disk stops PostgreSQL.",
            "bytes",
            (Query("max(pg_wal_size_bytes)", "WAL"),),
            least=0,
            more="linnet-host",
        ),
        Panel(
            "Tables with the most dead rows",
            "Rows that vacuum has yet to remove. More dead than live rows: autovacuum cannot keep up, or a long "
            "transaction blocks it.",
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
            "Scrape duration of the exporter",
            "Time for all queries of the exporter. It rises when PostgreSQL is busy.",
            "s",
            (Query('max by (instance) (scrape_duration_seconds{job="postgres"})', "{{instance}}"),),
            width=12,
            least=0,
        ),
        errors_in_log("postgres"),
    ),
)

BACKUPS = Row(
    "Can it be restored?",
    (
        stat(
            "Age of the last backup",
            "Due every 24 h. Later backups make a restore slow: it replays all WAL since the backup. Empty: the "
            "installation has no backups.",
            "s",
            'time() - max(linnet_backup_last_success_timestamp_seconds{kind="any"})',
            steps=Steps(warn=93600, bad=172800),
            decimals=0,
            runbook="backup#backuptooold",
        ),
        stat(
            "Age of the last full backup",
            "Due every 7 days. Differential backups need it.",
            "s",
            'time() - max(linnet_backup_last_success_timestamp_seconds{kind="full"})',
            steps=Steps(warn=691200),
            decimals=0,
            runbook="backup#backuptooold",
        ),
        stat(
            "Oldest WAL that waits",
            "A lost disk would lose all changes since then. Above 5 min: the repository refuses WAL or is "
            "unreachable.",
            "s",
            "max(linnet_backup_archive_oldest_seconds)",
            steps=Steps(warn=60, bad=300),
            decimals=0,
            runbook="backup#archivebacklog",
        ),
        stat(
            "Last restore test",
            "Whether the last weekly restore into a scratch database passed its checks.",
            "none",
            "max(linnet_backup_restore_test_ok)",
            meanings=(Meaning(1, "passed", "green"), Meaning(0, "failed", "red")),
            runbook="backup#restoretestfailed",
        ),
        stat(
            "Age of the last passed test",
            "Due every 7 days. Until one passes, it is not known whether the backups can be restored.",
            "s",
            "time() - max(linnet_backup_restore_test_success_timestamp_seconds)",
            steps=Steps(warn=691200),
            decimals=0,
            runbook="backup#restoretesttooold",
        ),
        stat(
            "Duration of the restore test",
            "About what a restore would take, without the start of the service.",
            "s",
            "max(linnet_backup_restore_test_duration_seconds)",
            decimals=0,
        ),
        Panel(
            "WAL that waits",
            "Segments that PostgreSQL has archived and the sidecar has not pushed, and those that `archive_command` has "
            "not taken. Both should be near 0.",
            "short",
            (
                Query("max(linnet_backup_archive_waiting_segments)", "not pushed"),
                Query("max(linnet_backup_archive_unarchived_segments)", "not archived"),
            ),
            least=0,
            runbook="backup#archivebacklog",
        ),
        Panel(
            "Pushed WAL",
            "Segments per minute. While anything is written, at least two. Failures: see the sidecar's log.",
            "short",
            (
                Query(f"60 * {rate('linnet_backup_archive_pushed_total')}", "pushed"),
                Query(f"60 * {rate('linnet_backup_archive_push_failures_total')}", "failures"),
                Query(f"60 * {rate('linnet_backup_archiver_failures_total')}", "failures of archive_command"),
            ),
            least=0,
            runbook="backup#archivebacklog",
        ),
        Panel(
            "Failed jobs in 24 h",
            "Backups and restore tests. A failed one is repeated after minutes.",
            "short",
            (
                Query(
                    increase("linnet_backup_runs_total", 'outcome="failed"', "kind", "1d"),
                    "{{kind}}",
                ),
            ),
            least=0,
            steps=Steps(warn=1),
            runbook="backup",
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-postgres",
    title="Linnet: PostgreSQL",
    description="PostgreSQL: availability, connections, activity, disk space.",
    rows=(UP, CONNECTIONS, WORK, SPACE, BACKUPS),
)
