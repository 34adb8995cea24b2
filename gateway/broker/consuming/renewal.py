"""Lock renewal: one timer per shard, one script call per queue for all its leases that are due."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from itertools import takewhile
from typing import Any, Final

from bullmq_proxy.gateway.broker.consuming.leases import ENDED, HELD, PENDING, Lease
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.rules.options import pack
from bullmq_proxy.gateway.values.text import bytes_of

log = logging.getLogger(__name__)

_RENEWING: Final = "renewing the locks of"  # for the log
_AT_A_TIME: Final = 1000  # locks that one script renews

LOST: Final = "The lock of this job was lost"


class LockRenewer:
    """Keeps the locks of all leases of a shard alive, for as long as the connections of their holders are.

    Leases with the same lock duration fall due in the order in which they came, so one line per queue and duration is
    enough, and one more for those whose renewal has failed: no heap, no timer per job. A lease leaves its line at once
    when it ends: 20,000 jobs a second would otherwise be kept for 15 seconds each. While its renewal is under way it
    stands in no line; the reply puts it back, so that an outage cannot multiply the renewals.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: dict[tuple[Queue, int, bool], dict[Lease, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._closed = False

    def track(self, queue: Queue, lease: Lease) -> None:
        """Renew the lock of `lease` from now on, until it has ended."""
        self._enter(queue, lease, again=False)

    def renew_all(self) -> None:
        """Renew all locks now, and so find out which of them are lost."""
        now = self._loop.time()
        for line in self._lines.values():
            for lease in line:
                lease.renew_at = now
        self._arm(now)

    def close(self) -> None:
        """Stop renewing."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _enter(self, queue: Queue, lease: Lease, *, again: bool) -> None:
        key = (queue, lease.consumer.options.lock_duration, again)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = {}
        line[lease] = None
        lease.line = line
        self._arm(lease.renew_at)

    def _arm(self, when: float) -> None:
        if self._closed or (self._timer is not None and self._due <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = when  # uvloop's handle of a time that has passed does not know it
        self._timer = self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        try:
            self._renew_due(self._loop.time())
        finally:  # whatever one queue raises, the others are due
            fronts = [next(iter(line)).renew_at for line in self._lines.values() if line]
            if fronts:
                self._arm(min(fronts))

    def _renew_due(self, now: float) -> None:
        for (queue, duration, again), line in list(self._lines.items()):
            # An eighth ahead of time: leases that fall due around the same time go in one batch.
            due = self._take_due(line, now + duration / 8000)
            for first in range(0, len(due), _AT_A_TIME):
                self._renew(queue, duration, due[first : first + _AT_A_TIME])
            if not line:
                del self._lines[queue, duration, again]

    def _take_due(self, line: dict[Lease, None], horizon: float) -> list[Lease]:
        due = list(takewhile(lambda lease: lease.renew_at <= horizon, line))
        for lease in due:
            del line[lease]
            lease.line = None
        return due

    def _renew(self, queue: Queue, duration: int, leases: list[Lease]) -> None:
        tokens, ids = [lease.token for lease in leases], [lease.id for lease in leases]
        queue.scripts["extendLocks"].send(
            queue.keys("stalled"),
            [queue.base, pack(tokens), pack(ids), duration],
            partial(self._renewed, queue, duration, leases, self._loop.time()),
        )

    def _renewed(self, queue: Queue, duration: int, leases: list[Lease], sent_at: float, reply: Any) -> None:
        if self._closed:
            return
        held = [lease for lease in leases if lease.state is not ENDED and lease.renews]
        if isinstance(reply, Exception):
            queue.troubles.begin(_RENEWING, queue.name, reply)
            self._again(queue, duration, held)
            return
        if queue.troubles.now:
            queue.troubles.end(_RENEWING, queue.name)
        failed = set(reply)
        for lease in held:
            if bytes_of(lease.id) not in failed:
                lease.extended(sent_at)
                self.track(queue, lease)
            elif lease.state in (HELD, PENDING):  # a final answer under way finds out for itself what became of the job
                lease.consumer.lose(lease, LOST)

    def _again(self, queue: Queue, duration: int, leases: list[Lease]) -> None:
        when = self._loop.time() + min(1.0, duration / 8000)
        for lease in leases:
            lease.renew_at = when
            self._enter(queue, lease, again=True)
