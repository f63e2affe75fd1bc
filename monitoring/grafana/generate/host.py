"""The host, its containers, and the monitoring itself."""

from __future__ import annotations

from .model import Column, Dashboard, Panel, Query, Row, Steps
from .parts import PRODUCT, WINDOW, cpu_of_processes, increase, memory_of_processes, rate, stat

# Real disks; the rest are views of them or of memory.
DISK = 'fstype!~"tmpfs|overlay|squashfs|ramfs|nsfs|fuse.*|autofs|proc|sysfs",mountpoint!~"/(run|proc|sys|dev)(/.*)?"'
NETWORK = 'device!~"lo|veth.*|br-.*|docker.*"'
# Without Docker's socket cAdvisor knows no names: `name` is the beginning of the container's number, `service` is Compose's.
CONTAINER = 'name!=""'
BY = "service, name"
FREE_DISK = f"node_filesystem_avail_bytes{{{DISK}}} / node_filesystem_size_bytes{{{DISK}}}"
LIMITED = f"(container_spec_memory_limit_bytes{{{CONTAINER}}} > 0)"

HOST = Row(
    "Is the host at its limits?",
    (
        stat(
            "CPU",
            "Share of all cores that is busy, over five minutes. Above 90 % everything is slow.",
            "percentunit",
            '1 - avg(rate(node_cpu_seconds_total{mode="idle"}[5m]))',
            steps=Steps(warn=0.8, bad=0.9),
        ),
        stat(
            "Memory in use",
            "Share that is not available. Above 95 % the kernel soon kills something; monitoring dies before PostgreSQL.",
            "percentunit",
            "1 - min(node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)",
            steps=Steps(warn=0.85, bad=0.95),
            runbook="memory",
        ),
        stat(
            "Fullest disk",
            "Share that is used, of the fullest file system. At 100 % PostgreSQL stops writing: redirects go on, nothing else.",
            "percentunit",
            f"1 - min({FREE_DISK})",
            steps=Steps(warn=0.8, bad=0.9),
            runbook="disk#diskalmostfull",
        ),
        stat(
            "Disk full in",
            "If the disk that fills fastest goes on as in the last six hours. Less than a day: act today. A year stands for never.",
            "s",
            f"clamp_max(min(node_filesystem_avail_bytes{{{DISK}}} / clamp_min(-deriv(node_filesystem_avail_bytes{{{DISK}}}[6h]), 1))"
            f", {365 * 86400})",
            steps=Steps(warn=7 * 86400, bad=86400, falling=True),
            decimals=0,
            runbook="disk#diskfullsoon",
        ),
        stat(
            "Killed for memory",
            "Processes that the kernel killed in the last 24 h. Not 0: a limit is too low or something leaks.",
            "none",
            increase("node_vmstat_oom_kill", window="24h"),
            decimals=0,
            steps=Steps(bad=1),
            runbook="memory#oomkill",
        ),
        stat(
            "Running since",
            "Time since the host's start. Short, and nobody restarted it: a crash, or its provider.",
            "s",
            "min(time() - node_boot_time_seconds)",
        ),
        Panel(
            "CPU by mode",
            "Cores that are busy. `iowait`: the disk is slow. `steal`: the host gives the machine less than it was promised.",
            "short",
            (Query(rate("node_cpu_seconds_total", 'mode!="idle"', "mode"), "{{mode}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Memory",
            "What there is and what is available without swapping. A falling line is a leak somewhere: see the containers below.",
            "bytes",
            (
                Query("sum(node_memory_MemTotal_bytes)", "all"),
                Query("sum(node_memory_MemAvailable_bytes)", "available"),
                Query("sum(node_memory_SwapTotal_bytes - node_memory_SwapFree_bytes)", "swapped out"),
            ),
            least=0,
            runbook="memory",
        ),
        Panel(
            "Load",
            "Processes that run or wait, over the number of cores. Above 1 for long: too much work, or a slow disk.",
            "short",
            (
                Query('max(node_load1) / count(count by (cpu) (node_cpu_seconds_total))', "1 min"),
                Query('max(node_load15) / count(count by (cpu) (node_cpu_seconds_total))', "15 min"),
            ),
            least=0,
        ),
        Panel(
            "Disks",
            "Share in use by file system. Loki's and PostgreSQL's data grow up to their retention, logs up to their rotation.",
            "percentunit",
            (Query(f"1 - max by (mountpoint) ({FREE_DISK})", "{{mountpoint}}"),),
            steps=Steps(warn=0.8, bad=0.9),
            least=0,
            most=1,
        ),
        Panel(
            "Disk traffic",
            "Read and written. Writes come from PostgreSQL, the append-only file and Loki.",
            "Bps",
            (
                Query(rate("node_disk_read_bytes_total"), "read"),
                Query(rate("node_disk_written_bytes_total"), "written"),
            ),
            least=0,
        ),
        Panel(
            "Network",
            "Bytes in and out, without the bridges of the containers.",
            "Bps",
            (
                Query(rate("node_network_receive_bytes_total", NETWORK), "in"),
                Query(rate("node_network_transmit_bytes_total", NETWORK), "out"),
            ),
            least=0,
        ),
    ),
)

CONTAINERS = Row(
    "Which container?",
    (
        Panel(
            "Memory, share of the limit",
            "At 100 % the kernel kills the container's largest process. Page cache that can be given back is not counted.",
            "percentunit",
            (
                Query(
                    f"max by ({BY}) (container_memory_working_set_bytes{{{CONTAINER}}} / {LIMITED})",
                    "{{service}} {{name}}",
                    instant=True,
                ),
            ),
            kind="bargauge",
            steps=Steps(warn=0.8, bad=0.9),
            least=0,
            most=1,
            height=12,
            runbook="memory#containermemoryhigh",
        ),
        Panel(
            "Memory by container",
            "Working sets. A line that rises for hours under even traffic is a leak.",
            "bytes",
            (Query(f"max by ({BY}) (container_memory_working_set_bytes{{{CONTAINER}}})", "{{service}} {{name}}"),),
            least=0,
            height=12,
        ),
        Panel(
            "CPU by container",
            "Cores that each container uses.",
            "short",
            (Query(rate("container_cpu_usage_seconds_total", CONTAINER, BY), "{{service}} {{name}}"),),
            stacked=True,
            least=0,
            height=12,
        ),
        Panel(
            "Restarts and kills today",
            "Starts within 24 h beyond the first, and kills for memory. A container that restarts again and again shows why in its log.",
            "none",
            (
                Query(f"max by ({BY}) (changes(container_start_time_seconds{{{CONTAINER}}}[24h]))", instant=True),
                Query(increase("container_oom_events_total", CONTAINER, BY, "24h"), instant=True),
            ),
            kind="table",
            columns=(
                Column("service", "Service"),
                Column("name", "Container"),
                Column("Value #A", "Restarts"),
                Column("Value #B", "Killed for memory"),
            ),
            runbook="instance-down#containerrestartloop",
        ),
        Panel(
            "CPU withheld",
            "Share of scheduling periods in which a container wanted more CPU than its limit. Above 25 %: its answers are late.",
            "percentunit",
            (
                Query(
                    f"{rate('container_cpu_cfs_throttled_periods_total', CONTAINER, BY)} / "
                    f"({rate('container_cpu_cfs_periods_total', CONTAINER, BY)} > 0)",
                    "{{service}} {{name}}",
                ),
            ),
            steps=Steps(warn=0.25),
            least=0,
        ),
        Panel(
            "Network by container",
            "Bytes received. A container that should be idle and is not deserves a question.",
            "Bps",
            (Query(rate("container_network_receive_bytes_total", CONTAINER, BY), "{{service}} {{name}}"),),
            least=0,
        ),
        memory_of_processes(PRODUCT),
        cpu_of_processes(PRODUCT),
        Panel(
            "Restarts of Linnet's processes",
            "Starts within an hour as the processes themselves tell, so that it is known without cAdvisor, too.",
            "short",
            (Query(f'changes(process_start_time_seconds{{job=~"{PRODUCT}"}}[1h])', "{{job}} {{instance}}"),),
            least=0,
            runbook="instance-down#processrestartloop",
        ),
    ),
)

MONITORING = Row(
    "Can the monitoring be believed?",
    (
        Panel(
            "Series",
            "Series that Prometheus holds. 20,000 and more need more memory than its container has.",
            "short",
            (Query("max(prometheus_tsdb_head_series)", "series"),),
            least=0,
        ),
        Panel(
            "Rules that failed",
            "Evaluations of recording and alert rules that ended in an error. 0 is right; otherwise alerts are blind.",
            "short",
            (Query(increase("prometheus_rule_evaluation_failures_total"), "failures"),),
            least=0,
            runbook="monitoring#ruleevaluationfailing",
        ),
        Panel(
            "Messages of alerts",
            "What Alertmanager sent, and what it could not send. Failed ones: the webhook's address, or the way out.",
            "short",
            (
                Query(increase("alertmanager_notifications_total", "", "integration"), "{{integration}} sent"),
                Query(increase("alertmanager_notifications_failed_total", "", "integration"), "{{integration}} failed"),
            ),
            least=0,
            runbook="monitoring#alertdeliveryfailing",
        ),
        Panel(
            "Memory of the monitoring",
            "Prometheus, Alertmanager, Grafana and Loki. They have limits, and die before PostgreSQL does.",
            "bytes",
            (Query('process_resident_memory_bytes{job=~"prometheus|alertmanager|grafana|loki"}', "{{job}}"),),
            least=0,
        ),
        Panel(
            "Samples",
            "Samples a second that Prometheus takes in. A jump: something has begun to export far more series.",
            "short",
            (Query(f"max(rate(prometheus_tsdb_head_samples_appended_total[{WINDOW}]))", "samples"),),
            least=0,
        ),
        Panel(
            "Space of Prometheus",
            "Blocks on disk. It levels off after the retention of 15 days.",
            "bytes",
            (Query("max(prometheus_tsdb_storage_blocks_bytes)", "blocks"),),
            least=0,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="linnet-host",
    title="Linnet: host and containers",
    description="CPU, memory, disks and network of the host, which container uses them, and whether the monitoring can be believed.",
    rows=(HOST, CONTAINERS, MONITORING),
    since="now-6h",
)
