"""Writes Grafana's dashboards. Run it with `scripts/dashboards`, or as `python3 -m generate` in monitoring/grafana."""
