"""Redis: cache, queue of clicks, rates and news, all in one instance."""

from __future__ import annotations

from .model import Dashboard, Meaning, Panel, Query, Row, Steps
from .parts import UP_OR_DOWN, ZERO_IS_GOOD, errors_in_log, increase, rate, stat

FAILED_OR_NOT = (Meaning(1, "ok", "green"), Meaning(0, "failed", "red"))
HITS, MISSES = "redis_keyspace_hits_total", "redis_keyspace_misses_total"
FULL = "max(redis_memory_used_bytes / (redis_memory_max_bytes > 0))"

UP = Row(
    "Is it up, and does it keep what it must?",
    (
        stat(
            "Redis",
            "Whether the exporter reaches it. Down: redirects and the API go on, slower; clicks wait in the shorteners' spools.",
            "none",
            "min(redis_up)",
            meanings=UP_OR_DOWN,
            runbook="redis-down",
        ),
        stat(
            "Memory in use",
            "Share of `maxmemory`. At 100 % cached links are evicted; if nothing can be, writes are refused and clicks go to the spools.",
            "percentunit",
            FULL,
            steps=Steps(warn=0.8, bad=0.9),
            decimals=1,
            runbook="redis-memory#redismemoryhigh",
        ),
        stat(
            "Evictions in the last hour",
            "Keys with a life time that had to go early. Streams of clicks have none and are never evicted. Many: `maxmemory` is small.",
            "short",
            increase("redis_evicted_keys_total", window="1h"),
            steps=Steps(warn=1),
            decimals=0,
            runbook="redis-memory#redisevictions",
        ),
        stat(
            "Last write of its file",
            "Whether the last write to the append-only file succeeded. Failed: the disk is full or broken, and a restart loses the queue.",
            "none",
            "min(redis_aof_last_write_status)",
            meanings=FAILED_OR_NOT,
            more="linnet-host",
        ),
        stat(
            "Linnet's links down",
            "Links of the shorteners whose breaker is open, whatever the exporter says: the way to Redis counts as well.",
            "none",
            'sum(linnet_redis_links{state="down"})',
            steps=ZERO_IS_GOOD,
            more="linnet-resolve",
            runbook="redis-down",
        ),
        stat(
            "Running since",
            "Time since its start. Short, and nobody restarted it: it was killed, most likely for its memory.",
            "s",
            "min(redis_uptime_in_seconds)",
            more="linnet-host",
        ),
    ),
)

MEMORY = Row(
    "What is its memory used for?",
    (
        Panel(
            "Memory",
            "Used, and what it may use. The resident size is what the container's limit counts; it exceeds the used size while a child "
            "rewrites the append-only file.",
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
            "All, and those that will go by themselves. The rest are streams and the like: few.",
            "short",
            (Query("sum(redis_db_keys)", "all"), Query("sum(redis_db_keys_expiring)", "with a life time")),
            least=0,
        ),
        Panel(
            "Keys that went",
            "Expired at the end of their life, or evicted for want of memory. Evictions cost the database look-ups.",
            "ops",
            (Query(rate("redis_expired_keys_total"), "expired"), Query(rate("redis_evicted_keys_total"), "evicted")),
            least=0,
        ),
        Panel(
            "Stream of clicks",
            "What waits to be written to PostgreSQL, or is kept for a moment for live watchers. It can't be evicted, so it may fill "
            "Redis when the workers are down, up to `clicks.stream_bytes`.",
            "bytes",
            (Query("max(linnet_clicks_stream_bytes)", "stream"),),
            least=0,
            more="linnet-clicks",
        ),
        Panel(
            "Found in the keyspace",
            "Share of reads that found their key, of all kinds. It falls after a restart and comes back as caches fill.",
            "percentunit",
            (Query(f"{rate(HITS)} / ({rate(HITS)} + {rate(MISSES)} > 0)", "found"),),
            least=0,
            most=1,
        ),
        Panel(
            "Fragmentation",
            "Resident over used memory. Above 1.5 with much data: memory is wasted; below 1: the host swaps.",
            "short",
            (Query("max(redis_mem_fragmentation_ratio)", "resident ÷ used"),),
            least=0,
        ),
    ),
)

WORK = Row(
    "Is it slow, and why?",
    (
        Panel(
            "Commands",
            "By command. A new leader of the list explains a new load.",
            "ops",
            (Query(f"topk(10, {rate('redis_commands_total', '', 'cmd')})", "{{cmd}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Mean time of a command",
            "Time within Redis, without the network. Milliseconds: large values, slow scripts, or too little CPU.",
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
            "Entries of the slow log. Look at them with SLOWLOG GET.",
            "short",
            (Query("max(redis_slowlog_length)", "entries"),),
            least=0,
        ),
        Panel(
            "Clients",
            "Connected, and waiting in a blocking read: each worker's consumers do, as long as there are no clicks.",
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
            "Cores that Redis uses; it does commands on one. At 1 it is the bottleneck.",
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
            "Its size. It shrinks with each rewrite; if it only grows, rewrites fail for want of memory or disk.",
            "bytes",
            (Query("max(redis_aof_current_size_bytes)", "size"),),
            width=12,
            least=0,
            more="linnet-host",
        ),
        Panel(
            "Fork",
            "Time that the last fork took; Redis stands still meanwhile. Hundreds of milliseconds are felt by users.",
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
    description="Cache, queue of clicks, rates and news: is it reachable, does it have memory, is it slow?",
    rows=(UP, MEMORY, WORK),
)
