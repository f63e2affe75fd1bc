"""Faults of releases and sizes: Linnet replaced on one node after the other, and nodes that come and go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bars import ClusterStage, cluster_of
from engine import BINARIES, require
from node import UPLOADS, Node

UPGRADE = "rolling-upgrade"


def replace(stage: ClusterStage, node: Node, binaries: Path | None = None) -> None:
    """Takes a node out of service, restarts Linnet on it, and puts it back: a rolling upgrade, one node at a time."""
    cluster = cluster_of(stage)
    cluster.take_out(node)
    node.stop_app()
    if binaries:
        node.binaries = binaries
    node.start_app()
    cluster.put_back(node)


@contextmanager
def rolling_restart(stage: ClusterStage) -> Iterator[None]:
    for node in cluster_of(stage).nodes:
        replace(stage, node)
    yield


def old_binaries_folder() -> Path:
    return Path(os.environ["OLD_BIN_DIR"]).resolve()


def old_binaries() -> str:
    if not os.environ.get("OLD_BIN_DIR"):
        return "OLD_BIN_DIR, the folder of the last release's binaries, is not set"
    folder = old_binaries_folder()
    return "" if all((folder / name).exists() for name in ("linnet-shortener", "linnet-gateway")) else f"{folder} has no binaries"


@contextmanager
def starts_on_the_old_release(stage: ClusterStage) -> Iterator[None]:
    """The cluster has started with the old binaries and their schema (`main.py`)."""
    nodes = cluster_of(stage).nodes
    require(all(node.is_old() for node in nodes), "rolling-upgrade must be the first fault: the schema is new already")
    yield
    # The old release does not know `jobs.upload_store`: the setting changes when no old process is left.
    for node in nodes:
        node.uploads = UPLOADS
        replace(stage, node)


@contextmanager
def rolling_upgrade(stage: ClusterStage) -> Iterator[None]:
    nodes = cluster_of(stage).nodes
    begun = time.monotonic()
    nodes[0].run_admin("migrate", binaries=BINARIES)
    stage.notes.append(f"migrated in {time.monotonic() - begun:.1f} s")
    # The old release on the new schema.
    time.sleep(10)
    for node in nodes:
        replace(stage, node, BINARIES)
    yield


@contextmanager
def one_node(stage: ClusterStage) -> Iterator[None]:
    """Only the first node serves; the stores stay on all."""
    cluster = cluster_of(stage)
    for node in cluster.nodes[1:]:
        remove_app(stage, node)
    cluster.serving = cluster.nodes[:1]
    yield
    cluster.serving = list(cluster.nodes)
    for node in cluster.nodes[1:]:
        if "nginx" not in node.running:
            node.start_app()
            cluster.put_back(node)


def remove_app(stage: ClusterStage, node: Node) -> None:
    cluster_of(stage).take_out(node)
    node.stop_app()


@contextmanager
def scaled(stage: ClusterStage) -> Iterator[None]:
    cluster = cluster_of(stage)
    for node in cluster.nodes[1:]:
        node.start_app()
        cluster.put_back(node)
    time.sleep(5)
    for node in cluster.nodes[1:]:
        remove_app(stage, node)
    yield
