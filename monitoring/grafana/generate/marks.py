"""Marks of events on the time axis of every dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from .sources import Json, datasource


@dataclass(frozen=True)
class Mark:
    """Vertical lines at the times that an expression's values state, in milliseconds since 1970."""

    name: str
    expr: str
    # Text of a line; `{{label}}` is the value of a label.
    title: str
    color: str

    def to_json(self) -> Json:
        return {
            "datasource": datasource("prometheus"),
            "enable": True,
            "hide": False,
            "iconColor": self.color,
            "name": self.name,
            "target": {"expr": self.expr, "interval": "60s", "refId": "Anno"},
            "titleFormat": self.title,
            "useValueForTime": True,
        }


# A change of a line often begins with a release, so every dashboard has them.
MARKS = (
    Mark("Deployment steps", "1000 * linnet_deployment_step_seconds", "Deployment: {{step}}", "blue"),
    Mark("Deployments' ends", "1000 * (linnet_deployment_ended_seconds > 0)", "Deployment {{outcome}}", "purple"),
)
