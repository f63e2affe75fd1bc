"""Generates Grafana's dashboards. Run `scripts/dashboards`, or `python3 -m generate` in monitoring/grafana."""
