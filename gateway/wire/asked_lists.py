"""The query strings of lists that are of no single queue, read as the argument of a function of flows."""

from __future__ import annotations

from dataclasses import dataclass

from bullmq_proxy.gateway.rules.shapes import ConnectionKind


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuesOptions:
    """What is asked for of the list of queues, as the argument of `getQueues`."""

    cursor: str | None
    limit: int
    counts: bool
    oldest: bool
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionsOptions:
    """What is asked for of the list of connections, as the argument of `getConnections`."""

    queue: str | None
    kind: ConnectionKind | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOptions:
    """A question for the work of a queue, as the argument of `getScale`."""

    queue: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryOptions:
    """What is asked for of the history, as the argument of `getHistory`."""

    queue: str | None
