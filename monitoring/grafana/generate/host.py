"""The machine, its containers, and the monitoring itself."""

from __future__ import annotations

from .model import Column, Dashboard, Panel, Query, Row, Steps
from .parts import PRODUCT, WINDOW, cpu_of_processes, increase, memory_of_processes, rate, stat

# Disks only. Other file systems are in memory or views of these.
DISK = 'fstype!~"tmpfs|overlay|squashfs|ramfs|nsfs|fuse.*|autofs|proc|sysfs",mountpoint!~"/(run|proc|sys|dev)(/.*)?"'
NETWORK = 'device!~"lo|veth.*|br-.*|docker.*"'
# prometheus.yml sets both labels: `name` is the beginning of the container's id, `service` is its Compose service.
CONTAINER = 'name!=""'
BY = "service, name"
FREE_DISK = f"node_filesystem_avail_bytes{{{DISK}}} / node_filesystem_size_bytes{{{DISK}}}"
LIMITED = f"(container_spec_memory_limit_bytes{{{CONTAINER}}} > 0)"

HOST = Row(
    "Is the machine at its limits?",
    (
        stat(
            "CPU",
            "Busy share of all cores over five minutes. Above 90 % everything is slow.",
            "percentunit",
            '1 - avg(rate(node_cpu_seconds_total{mode="idle"}[5m]))',
            steps=Steps(warn=0.8, bad=0.9),
        ),
        stat(
            "Memory in use",
            "Share that is not available. Above 95 % the kernel soon kills a process, monitoring before PostgreSQL.",
            "percentunit",
            "1 - min(node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)",
            steps=Steps(warn=0.85, bad=0.95),
            runbook="memory",
        ),
        stat(
            "Fullest disk",
            "Used share of the fullest file system. At 100 % PostgreSQL cannot write: only redirects work.",
            "percentunit",
            f"1 - min({FREE_DISK})",
            steps=Steps(warn=0.8, bad=0.9),
            runbook="disk#diskalmostfull",
        ),
        stat(
            "Disk full in",
            "At the rate of the last six hours, for the disk that fills fastest. Less than a day: act today. A year "
            "stands for never.",
            "s",
            f"clamp_max(min(node_filesystem_avail_bytes{{{DISK}}} / clamp_min(-deriv(node_filesystem_avail_bytes{{{DISK}}}[6h]), 1))"
            f", {365 * 86400})",
            steps=Steps(warn=7 * 86400, bad=86400, falling=True),
            decimals=0,
            runbook="disk#diskfullsoon",
        ),
        stat(
            "OOM kills in 24 h",
            "Processes that the kernel killed because memory ran out. Not 0: a limit is too low, or a process leaks "
            "memory.",
            "none",
            increase("node_vmstat_oom_kill", window="24h"),
            decimals=0,
            steps=Steps(bad=1),
            runbook="memory#oomkill",
        ),
        stat(
            "Uptime",
            "Time since the machine booted. Short without a planned restart: a crash, or the provider.",
            "s",
            "min(time() - node_boot_time_seconds)",
        ),
        Panel(
            "CPU by mode",
            "Busy cores. `iowait`: the disk is slow. `steal`: the hypervisor gives the machine less CPU than it needs.",
            "short",
            (Query(rate("node_cpu_seconds_total", 'mode!="idle"', "mode"), "{{mode}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Memory",
            "Total, available without swapping, and swapped out. Falling available memory is a leak: see the "
            "containers below.",
            "bytes",
            (
                Query("sum(node_memory_MemTotal_bytes)", "total"),
                Query("sum(node_memory_MemAvailable_bytes)", "available"),
                Query("sum(node_memory_SwapTotal_bytes - node_memory_SwapFree_bytes)", "swapped out"),
            ),
            least=0,
            runbook="memory",
        ),
        Panel(
            "Load",
            "Running and waiting processes per core. Above 1 for long: too much work, or a slow disk.",
            "short",
            (
                Query('max(node_load1) / count(count by (cpu) (node_cpu_seconds_total))', "1 min"),
                Query('max(node_load15) / count(count by (cpu) (node_cpu_seconds_total))', "15 min"),
            ),
            least=0,
        ),
        Panel(
            "Disks",
            "Used share of each file system. Data of Loki and PostgreSQL grows up to its retention, logs up to their "
            "rotation.",
            "percentunit",
            (Query(f"1 - max by (mountpoint) ({FREE_DISK})", "{{mountpoint}}"),),
            steps=Steps(warn=0.8, bad=0.9),
            least=0,
            most=1,
        ),
        Panel(
            "Disk traffic",
            "Read and written. PostgreSQL, Redis's append-only file and Loki write.",
            "Bps",
            (
                Query(rate("node_disk_read_bytes_total"), "read"),
                Query(rate("node_disk_written_bytes_total"), "written"),
            ),
            least=0,
        ),
        Panel(
            "Network",
            "Bytes in and out, without the containers' bridges.",
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
            "At 100 % the kernel kills the container's largest process. File cache that can be freed is not counted.",
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
            "Restarts and OOM kills in 24 h",
            "Starts after the first one, and kills for lack of memory. The log of a container that restarts repeatedly "
            "has the reason.",
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
            "CPU throttling",
            "Share of scheduling periods in which a container needed more CPU than its limit. Above 25 % its responses "
            "are late.",
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
            "Bytes received. Check a container that should be idle and is not.",
            "Bps",
            (Query(rate("container_network_receive_bytes_total", CONTAINER, BY), "{{service}} {{name}}"),),
            least=0,
        ),
        memory_of_processes(PRODUCT),
        cpu_of_processes(PRODUCT),
        Panel(
            "Restarts of Linnet's processes",
            "Starts within an hour, reported by the processes. This also works without cAdvisor.",
            "short",
            (Query(f'changes(process_start_time_seconds{{job=~"{PRODUCT}"}}[1h])', "{{job}} {{instance}}"),),
            least=0,
            runbook="instance-down#processrestartloop",
        ),
    ),
)

MONITORING = Row(
    "Does the monitoring work?",
    (
        Panel(
            "Series",
            "Series in Prometheus's memory. Above 20,000 its container needs more memory.",
            "short",
            (Query("max(prometheus_tsdb_head_series)", "series"),),
            least=0,
        ),
        Panel(
            "Failed rules",
            "Recording and alert rules whose evaluation failed. Should be 0, otherwise alerts may not fire.",
            "short",
            (Query(increase("prometheus_rule_evaluation_failures_total"), "failures"),),
            least=0,
            runbook="monitoring#ruleevaluationfailing",
        ),
        Panel(
            "Notifications",
            "Notifications that Alertmanager sent, and failures. Failed: the webhook's address, or the network.",
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
            "Prometheus, Alertmanager, Grafana and Loki. When memory runs out, they are killed before PostgreSQL.",
            "bytes",
            (Query('process_resident_memory_bytes{job=~"prometheus|alertmanager|grafana|loki"}', "{{job}}"),),
            least=0,
        ),
        Panel(
            "Samples",
            "Samples per second that Prometheus ingests. A jump: a target exports far more series.",
            "short",
            (Query(f"max(rate(prometheus_tsdb_head_samples_appended_total[{WINDOW}]))", "samples"),),
            least=0,
        ),
        Panel(
            "Disk space of Prometheus",
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
    description="CPU, memory, disks and network of the machine, usage by container, and the state of the monitoring.",
    rows=(HOST, CONTAINERS, MONITORING),
    since="now-6h",
)
