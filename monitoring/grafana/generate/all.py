"""The dashboards, in the order in which an engineer on call uses them."""

from __future__ import annotations

from . import clicks, gateway, host, jobs, logs, nginx, overview, postgres, redis, releases, resolve

DASHBOARDS = (
    overview.DASHBOARD,
    resolve.DASHBOARD,
    clicks.DASHBOARD,
    jobs.DASHBOARD,
    gateway.DASHBOARD,
    postgres.DASHBOARD,
    redis.DASHBOARD,
    nginx.DASHBOARD,
    host.DASHBOARD,
    releases.DASHBOARD,
    logs.DASHBOARD,
)
