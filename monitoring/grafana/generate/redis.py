"""Redis: cache, click stream, rate limits and invalidation bus in one instance."""

from __future__ import annotations

from .model import Dashboard, Meaning, Panel, Query, Row, Steps
from .parts import UP_OR_DOWN, ZERO_IS_GOOD, errors_in_log, increase, rate, stat

FAILED_OR_NOT = (Meaning(1, "ok", "green"), Meaning(0, "failed", "red"))
HITS, MISSES = "redis_keyspace_hits_total", "redis_keyspace_misses_total"
FULL = "max(redis_memory_used_bytes / (redis_memory_max_bytes > 0))"

UP = Row(
    "Is Redis up, and is its data safe?",
    (
        stat(
            "Redis",
            "Whether its exporter reaches it. Down: redirects and the API work, but more slowly. Clicks wait in the "
            "shorteners' spools.",
            "none",
            "min(redis_up)",
            meanings=UP_OR_DOWN,
            runbook="redis-down",
        ),
        stat(
            "Memory in use",
            "Share of `maxmemory`. At 100 % Redis evicts cached links. When nothing is left to evict, it refuses "
            "writes, and clicks go to the spools.",
            "percentunit",
            FULL,
            steps=Steps(warn=0.8, bad=0.9),
            decimals=1,
            runbook="redis-memory#redismemoryhigh",
        ),
        stat(
            "Evictions in the last hour",
            "Keys with an expiry that Redis removed early. Streams have no expiry and are never evicted. Many: "
            "`maxmemory` is too small.",
            "short",
            increase("redis_evicted_keys_total", window="1h"),
            steps=Steps(warn=1),
            decimals=0,
            runbook="redis-memory#redisevictions",
        ),
        stat(
            "Last write to the append-only file",
            "Failed: the disk is full or broken, and a restart loses clicks in the stream.",
            "none",
            "min(redis_aof_last_write_status)",
            meanings=FAILED_OR_NOT,
            more="linnet-host",
        ),
        stat(
            "Linnet's Redis clients down",
            "Redis clients of the shorteners whose circuit breaker is open. It also detects a broken network, which "
            "the exporter does not.",
            "none",
            'sum(linnet_redis_clients{state="down"})',
            steps=ZERO_IS_GOOD,
            more="linnet-resolve",
            runbook="redis-down",
        ),
        stat(
            "Uptime",
            "Time since Redis started. Short without a restart by an operator: it was killed, most likely for its "
            "memory.",
            "s",
            "min(redis_uptime_in_seconds)",
            more="linnet-host",
        ),
    ),
)

MEMORY = Row(
    "What uses its memory?",
    (
        Panel(
            "Memory",
            "Used, and the maximum. The container's limit counts the resident size, which is larger while a child "
            "process rewrites the append-only file.",
            "bytes",
            (
                Query("max(redis_memory_used_bytes)", "used"),
                Query("max(redis_memory_max_bytes)", "maxmemory"),
                Query("max(redis_memory_used_rss_bytes)", "resident"),
            ),
            least=0,
            runbook="redis-memory#redismemoryhigh",
        ),
        Panel(
            "Keys",
            "All keys, and those with an expiry. The few others are streams and similar.",
            "short",
            (Query("sum(redis_db_keys)", "all"), Query("sum(redis_db_keys_expiring)", "with an expiry")),
            least=0,
        ),
        Panel(
            "Expired and evicted keys",
            "Expired: at their expiry. Evicted: early, for lack of memory. Evictions cause lookups in PostgreSQL.",
            "ops",
            (Query(rate("redis_expired_keys_total"), "expired"), Query(rate("redis_evicted_keys_total"), "evicted")),
            least=0,
        ),
        Panel(
            "Click stream",
            "Clicks that wait for a worker, or are kept for live watchers. It is never evicted and grows up to "
            "`clicks.stream_bytes` while workers are down.",
            "bytes",
            (Query("max(linnet_clicks_stream_bytes)", "stream"),),
            least=0,
            more="linnet-clicks",
        ),
        Panel(
            "Entries of the click stream",
            "By Redis's exporter, which also reports while no worker runs. It grows while workers are down or frozen.",
            "short",
            (Query('max(redis_stream_length{stream="linnet:clicks"})', "entries"),),
            least=0,
            runbook="worker-down",
        ),
        Panel(
            "Keyspace hit ratio",
            "Share of reads that found their key. It drops after a restart and recovers as caches fill.",
            "percentunit",
            (Query(f"{rate(HITS)} / ({rate(HITS)} + {rate(MISSES)} > 0)", "hit ratio"),),
            least=0,
            most=1,
        ),
        Panel(
            "Fragmentation",
            "Resident divided by used memory. Above 1.5 with much data: wasted memory. Below 1: the machine swaps.",
            "short",
            (Query("max(redis_mem_fragmentation_ratio)", "resident ÷ used"),),
            least=0,
        ),
    ),
)

WORK = Row(
    "Is Redis slow, and why?",
    (
        Panel(
            "Commands",
            "By command. A command that suddenly leads the list explains a new load.",
            "ops",
            (Query(f"topk(10, {rate('redis_commands_total', '', 'cmd')})", "{{cmd}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Mean command duration",
            "Time within Redis, without the network. Milliseconds: large values, slow scripts or too little CPU.",
            "s",
            (
                Query(
                    f"topk(10, {rate('redis_commands_duration_seconds_total', '', 'cmd')} / "
                    f"({rate('redis_commands_total', '', 'cmd')} > 0))",
                    "{{cmd}}",
                ),
            ),
            least=0,
        ),
        Panel(
            "Slow commands",
            "Entries of the slow log. `SLOWLOG GET` shows them.",
            "short",
            (Query("max(redis_slowlog_length)", "entries"),),
            least=0,
        ),
        Panel(
            "Clients",
            "Connected clients, and those in a blocking read. Workers block while there are no clicks.",
            "short",
            (
                Query("max(redis_connected_clients)", "connected"),
                Query("max(redis_blocked_clients)", "blocked"),
                Query(increase("redis_rejected_connections_total"), "refused"),
            ),
            least=0,
        ),
        Panel(
            "Network",
            "Bytes in and out. A jump without more redirects: caches were lost and fill again.",
            "Bps",
            (
                Query(rate("redis_net_input_bytes_total"), "in"),
                Query(rate("redis_net_output_bytes_total"), "out"),
            ),
            least=0,
        ),
        Panel(
            "CPU",
            "Cores that Redis uses. It executes commands on one core, so at 1 it is the bottleneck.",
            "short",
            (
                Query(
                    f"{rate('redis_cpu_user_seconds_total')} + {rate('redis_cpu_sys_seconds_total')}",
                    "user and system",
                ),
            ),
            least=0,
            steps=Steps(warn=0.7, bad=0.95),
        ),
        Panel(
            "Append-only file",
            "Its size. It shrinks with each rewrite. If it only grows, rewrites fail for lack of memory or disk space.",
            "bytes",
            (Query("max(redis_aof_current_size_bytes)", "size"),),
            width=12,
            least=0,
            more="linnet-host",
        ),
        Panel(
            "Fork duration",
            "Duration of the last fork, which blocks Redis. Users notice hundreds of milliseconds.",
            "s",
            (Query("max(redis_latest_fork_seconds)", "last fork"),),
            width=12,
            least=0,
        ),
        errors_in_log("redis"),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-redis",
    title="Linnet: Redis",
    description="Redis: cache, click stream, rate limits, invalidation bus. Is it reachable, does it have memory, is "
                "it slow?",
    rows=(UP, MEMORY, WORK),
)
