"""The query strings of lists that are of no single queue, read as the argument of a function of flows."""

from __future__ import annotations

from msgspec import Struct

from bullmq_proxy.gateway.rules.shapes import ConnectionKind


class QueuesOptions(Struct, frozen=True, kw_only=True):
    """What is asked for of the list of queues, as the argument of `getQueues`."""

    cursor: str | None
    limit: int
    counts: bool
    oldest: bool
    connected: bool


class ConnectionsOptions(Struct, frozen=True, kw_only=True):
    """What is asked for of the list of connections, as the argument of `getConnections`."""

    queue: str | None
    kind: ConnectionKind | None
    limit: int


class ScaleOptions(Struct, frozen=True, kw_only=True):
    """A question for the work of a queue, as the argument of `getScale`."""

    queue: str | None


class HistoryOptions(Struct, frozen=True, kw_only=True):
    """What is asked for of the history, as the argument of `getHistory`."""

    queue: str | None
