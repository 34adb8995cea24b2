"""The roster of a shard: its Worker connections, by ids under which other shards can speak of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, Protocol

from bullmq_proxy.gateway.broker.consuming.grace import Kept
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.rules.shapes import ShownConsumer

MOST_AWAY: Final = 1000
"""Workers of a key that a shard keeps jobs for while their connections are gone."""


class Worker(Protocol):
    """A Worker connection as those see it who look after the workers of a queue."""

    def show(self, id: str) -> ShownConsumer:
        """Return who it is, and what it does now; `id` is that of the roster."""

    def retire(self) -> None:
        """Take no new jobs any more, and tell the client so; what it has in hand goes on."""

    def send_away(self) -> None:
        """Close the connection; what its client has not answered goes back."""

    def hand_over(self, secret: str, key: str, taker: str) -> Kept | None:
        """Return what it holds for a client that comes back on another connection; None when that is another client.

        Args:
            secret: that the client shows.
            key: the name of its key.
            taker: the secret of its new connection.
        """

    def stop_waiting(self, *, counted: bool) -> None:
        """Give back at once what is kept for a client that may come back; `counted` as for `Feed.leave`."""


class Roster:
    """The Worker connections of a shard."""

    def __init__(self, address: str) -> None:
        """Make a roster; `address` is that of the shard."""
        self._address = address
        self._numbers = itertools.count(1)
        self._workers: dict[str, tuple[Queue, Worker]] = {}
        self._away: dict[
            str, dict[str, None]
        ] = {}  # ids of those whose connection is gone, by key, the first one first

    def enter(self, queue: Queue, worker: Worker) -> str:
        """Take a worker of a queue in, and return its id; this is no secret."""
        id = f"{self._address}:{next(self._numbers)}"
        self._workers[id] = queue, worker
        return id

    def leave(self, id: str) -> None:
        """Let a worker go; one that was never in changes nothing."""
        self._workers.pop(id, None)
        for key, away in list(self._away.items()):
            away.pop(id, None)
            if not away:
                del self._away[key]

    def find(self, queue: str, id: str) -> Worker | None:
        """Return the worker with an id, if it is one of the queue."""
        entry = self._workers.get(id)
        return entry[1] if entry is not None and entry[0].name == queue else None

    def wait_for(self, id: str, key: str) -> None:
        """Note that a worker keeps what it holds for a client that may come back; `key` is the name of its key.

        A client that breaks its connections and never comes back would keep jobs from others, whatever limits its key
        has: beyond `MOST_AWAY` of a key the first ones are given up.
        """
        away = self._away.setdefault(key, {})
        away[id] = None
        if len(away) > MOST_AWAY:
            _, worker = self._workers[next(iter(away))]
            worker.stop_waiting(counted=True)

    def stop_waiting(self) -> None:
        """Keep nothing any more for clients that may come back: the shard goes away."""
        for _, worker in list(self._workers.values()):
            worker.stop_waiting(counted=False)

    def of(self, queue: str) -> Iterator[tuple[str, Worker]]:
        """Yield the ids and the workers of a queue."""
        for id, (theirs, worker) in self._workers.items():
            if theirs.name == queue:
                yield id, worker


def address_of(id: str) -> str:
    """Return the address of the shard in whose roster a worker's id stands."""
    return id.rpartition(":")[0]
