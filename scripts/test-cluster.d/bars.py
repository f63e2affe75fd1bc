"""Faults of the cluster: those of `scripts/test-chaos.d`, and how long the failures of a kind of request may last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from cluster import Cluster
from fault import Fault, Result, Stage, grouped, routes_in_words
from ledger import API, EDITED, UNCACHED

# While no primary of PostgreSQL can be reached, or a commit waits for a standby.
WITHOUT_PRIMARY = dict.fromkeys((UNCACHED, EDITED), "503") | dict.fromkeys(API, "503,504,429,409,502")
# The requests of a node that is gone: a write is not repeated. Commits also wait if it had the synchronous standby, and then
# requests exceed their user's share (429), and edits of one link wait for each other (409).
OF_A_DEAD_NODE = dict.fromkeys(API, "503,504,502,429,409,reset")


@dataclass
class ClusterStage(Stage):
    cluster: Cluster | None = None


def cluster_of(stage: ClusterStage) -> Cluster:
    assert stage.cluster is not None
    return stage.cluster


@dataclass(frozen=True)
class ClusterFault(Fault):
    """`inject` gets a `ClusterStage`."""

    inject: Callable[[ClusterStage], AbstractContextManager[None]]
    # route -> longest time from the first failed request to the end of the last one.
    longest_s: Mapping[str, float] = field(default_factory=dict)
    # Why clicks may be lost.
    clicks_reason: str = ""
    # Not run, and why. Never counted as passed.
    lacking: Callable[[], str] = lambda: ""
    # Clicks that HAProxy may repeat at another node although the first one recorded them.
    repeated_clicks: int = 0

    def bar(self) -> str:
        text = super().bar()
        if self.longest_s:
            text += "; " + ", ".join(f"{routes_in_words(routes)} for {seconds:g} s at most"
                                     for routes, seconds in grouped(self.longest_s))  # type: ignore[arg-type]
        if self.clicks_reason:
            text += f" ({self.clicks_reason})"
        return text


@dataclass
class ClusterResult(Result):
    whole_after_s: float = 0.0

    def broken(self) -> list[str]:
        found = super().broken()
        fault = self.fault
        assert isinstance(fault, ClusterFault)
        for route, most in fault.longest_s.items():
            if route in self.window.span and (took := self.window.span[route][1] - self.window.span[route][0]) > most:
                found.append(f"{route} failed for {took:.1f} s, {most:g} s may be")
        return found
