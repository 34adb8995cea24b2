"""The roster of a shard: who works on its queues, by ids under which other shards can speak of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, Protocol

from bullmq_proxy.gateway.broker.consuming.grace import Kept
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.rules.shapes import ShownConsumer

MOST_AWAY: Final = 1000
"""Workers of a key that a shard keeps jobs for while their connections are gone."""


class Shown(Protocol):
    """One who works on a queue, as those see it who look after it: a Worker connection, or a webhook worker."""

    def show(self, id: str) -> ShownConsumer:
        """Return who it is, and what it does now; `id` is that of the roster."""


class Worker(Shown, Protocol):
    """A Worker connection, which can be asked to go."""

    def retire(self) -> bool:
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

    @property
    def is_idle(self) -> bool:
        """Whether it holds nothing."""


class Roster:
    """The Worker connections of a shard, and its webhook workers, which are only shown."""

    def __init__(self, address: str) -> None:
        """Make a roster; `address` is that of the shard."""
        self._address = address
        self._numbers = itertools.count(1)  # of those who have no connection
        self._shown: dict[str, tuple[Queue, Shown]] = {}
        self._workers: dict[str, Worker] = {}
        self._away: dict[
            str, dict[str, None]
        ] = {}  # ids of those whose connection is gone, by key, the first one first

    def enter(self, queue: Queue, number: int, worker: Worker) -> str:
        """Take a worker of a queue in, and return the id of its connection, which has this number; it is no secret."""
        id = f"{self._address}:{number}"
        self._shown[id] = queue, worker
        self._workers[id] = worker
        return id

    def enter_shown(self, queue: Queue, worker: Shown) -> str:
        """Take one in who is shown and cannot be found, and return its id."""
        id = f"{self._address}:{next(self._numbers)}"
        self._shown[id] = queue, worker
        return id

    def leave(self, id: str) -> None:
        """Let a worker go; one that was never in changes nothing."""
        self._shown.pop(id, None)
        self._workers.pop(id, None)
        for key, away in list(self._away.items()):
            away.pop(id, None)
            if not away:
                del self._away[key]

    def find(self, queue: str, id: str) -> Worker | None:
        """Return the Worker connection with an id, if it is one of the queue."""
        worker = self._workers.get(id)
        return worker if worker is not None and self._shown[id][0].name == queue else None

    def wait_for(self, id: str, key: str) -> None:
        """Note that a worker keeps what it holds for a client that may come back; `key` is the name of its key.

        A client that breaks its connections and never comes back would keep jobs from others, whatever limits its key
        has: beyond `MOST_AWAY` of a key the first ones are given up.
        """
        away = self._away.setdefault(key, {})
        away[id] = None
        if len(away) > MOST_AWAY:
            self._workers[next(iter(away))].stop_waiting(counted=True)

    @property
    def is_waiting(self) -> bool:
        """Whether something is kept for clients that may come back."""
        return any(not self._workers[id].is_idle for away in self._away.values() for id in away)

    def stop_waiting(self) -> None:
        """Keep nothing any more for clients that may come back: the shard goes away."""
        for worker in list(self._workers.values()):
            worker.stop_waiting(counted=False)

    def of(self, queue: str) -> Iterator[tuple[str, Shown]]:
        """Yield the ids of those who work on a queue, and them."""
        for id, (theirs, worker) in self._shown.items():
            if theirs.name == queue:
                yield id, worker


def address_of(id: str) -> str:
    """Return the address of the shard that has the connection with an id."""
    return id.rpartition(":")[0]
