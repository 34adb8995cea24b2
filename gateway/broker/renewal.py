"""Lock renewal: one timer per shard, one script call per queue for all its leases that are due."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Any, Final

from gateway.broker.leases import Lease
from gateway.broker.queue import Queue
from gateway.wire.options import pack

log = logging.getLogger(__name__)

LOST: Final = "The lock of this job was lost"


class LockRenewer:
    """Keeps the locks of all leases of a shard alive, for as long as the connections of their holders are.

    Leases with the same lock duration fall due in the order in which they came, so one line per queue and duration is
    enough: no heap, no timer per job, and what has been settled meanwhile is skipped when its turn comes.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: dict[tuple[Queue, int], deque[Lease]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def track(self, queue: Queue, lease: Lease) -> None:
        """Renew the lock of `lease` from now on, until it is over."""
        duration = lease.consumer.options.lock_duration
        line = self._lines.get((queue, duration))
        if line is None:
            line = self._lines[queue, duration] = deque()
        line.append(lease)
        if self._timer is None or self._timer.when() > lease.renew_at:
            self._arm(lease.renew_at)

    def close(self) -> None:
        """Stop renewing."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._closed else self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        for (queue, duration), line in list(self._lines.items()):
            # An eighth ahead of time: leases that fall due around the same time go in one batch.
            due = self._take_due(line, now + duration / 8000)
            if due:
                self._renew(queue, duration, due, now)
            if not line and not due:
                del self._lines[queue, duration]
        fronts = [line[0].renew_at for line in self._lines.values() if line]
        if fronts:
            self._arm(min(fronts))

    def _take_due(self, line: deque[Lease], horizon: float) -> list[Lease]:
        due = []
        while line and (line[0].over or line[0].renew_at <= horizon):
            lease = line.popleft()
            if not lease.over:
                due.append(lease)
        return due

    def _renew(self, queue: Queue, duration: int, leases: list[Lease], now: float) -> None:
        line = self._lines[queue, duration]
        for lease in leases:
            lease.renew_at = now + duration / 2000
            line.append(lease)
        self._send(queue, duration, leases)

    def _send(self, queue: Queue, duration: int, leases: list[Lease]) -> None:
        held = [lease for lease in leases if not lease.over]
        if not held or self._closed:
            return
        tokens, ids = [lease.consumer.token for lease in held], [lease.id for lease in held]
        queue.commands["extendLocks"].send(
            queue.keys("stalled"),
            [queue.base, pack(tokens), pack(ids), duration],
            partial(self._renewed, queue, duration, held, self._loop.time()),
        )

    def _renewed(self, queue: Queue, duration: int, leases: list[Lease], sent_at: float, reply: Any) -> None:
        if isinstance(reply, Exception):
            log.warning("%d locks could not be renewed, trying again: %s", len(leases), reply)
            self._loop.call_later(min(1.0, duration / 8000), self._send, queue, duration, leases)
            return
        failed = set(reply)
        for lease in leases:
            if lease.over:
                continue
            if lease.id.encode() not in failed:
                lease.expires_at = sent_at + duration / 1000
            elif not lease.settling:  # a final answer under way finds out for itself what became of the job
                lease.consumer.lose(lease, LOST)
