"""The places of connections: what each has connected to, one object for all that have connected to the same."""

from __future__ import annotations

from typing import Final
from weakref import WeakValueDictionary

from bullmq_proxy.gateway.rules.shapes import ConnectionKind
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint

KINDS: Final[dict[SessionEndpoint, ConnectionKind]] = {
    SessionEndpoint.QUEUE: "queue",
    SessionEndpoint.WORKER: "worker",
    SessionEndpoint.EVENTS: "events",
    SessionEndpoint.FLOWS: "flows",
}
"""The names of endpoints, as others are shown them."""

ALL_KINDS: Final[tuple[ConnectionKind, ...]] = (*KINDS.values(), "http")


class Place:
    """An endpoint and a queue, which connections share.

    Attributes:
        kind: as it is shown.
        queue: the name; empty for none.
    """

    __slots__ = ("__weakref__", "kind", "queue")

    def __init__(self, kind: ConnectionKind, queue: str) -> None:
        """Make one; `Places.of` gives the one that there is."""
        self.kind = kind
        self.queue = queue


class Places:
    """The places that somebody has connected to."""

    def __init__(self) -> None:
        """Begin with none."""
        self._places: WeakValueDictionary[tuple[ConnectionKind, str], Place] = WeakValueDictionary()

    def of(self, kind: ConnectionKind, queue: str) -> Place:
        """Return the place of a kind and a queue."""
        place = self._places.get((kind, queue))
        if place is None:
            place = self._places[kind, queue] = Place(kind, queue)
        return place
