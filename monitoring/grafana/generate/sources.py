"""The data sources of panels, and how a dashboard refers to them."""

from __future__ import annotations

from typing import Any, Literal

Json = dict[str, Any]
Source = Literal["prometheus", "loki"]

# The dashboard variable that holds the uid of each source.
VARIABLE_OF: dict[Source, str] = {"prometheus": "datasource", "loki": "loki"}


def datasource(source: Source) -> Json:
    """A reference to the data source that the user has selected."""
    return {"type": source, "uid": "${" + VARIABLE_OF[source] + "}"}
