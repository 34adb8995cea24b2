"""Deadlines of jobs in a client's hands: all have the same time, so that one timer is enough for a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import takewhile

from bullmq_proxy.gateway.broker.consuming.leases import Lease


class Deadlines:
    """The times until which something must have become of jobs, the next one first."""

    __slots__ = ("_ends", "_loop", "_passed", "_time", "_timer")

    def __init__(self, milliseconds: int, passed: Callable[[list[Lease]], None]) -> None:
        """Make deadlines that are `milliseconds` away when they start, 0 for none; `passed` takes those in time."""
        self._time = milliseconds / 1000
        self._passed = passed
        self._loop = asyncio.get_running_loop()
        self._ends: dict[Lease, float] = {}  # in loop time, in order
        self._timer: asyncio.TimerHandle | None = None

    def start(self, lease: Lease) -> None:
        """Let the time of a job begin, or begin again."""
        if self._time:
            self._ends.pop(lease, None)
            self._ends[lease] = end = self._loop.time() + self._time
            if self._timer is None:
                self._timer = self._loop.call_at(end, self._check)

    def stop(self, lease: Lease) -> None:
        """Forget the deadline of a job, if it has one."""
        self._ends.pop(lease, None)

    def close(self) -> None:
        """Forget all, and who is to be told: that one holds us."""
        self._ends.clear()
        self._passed = _nothing
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        overdue = [lease for lease, _ in takewhile(lambda item: item[1] <= now, self._ends.items())]
        for lease in overdue:
            del self._ends[lease]
        if overdue:
            self._passed(overdue)
        if self._ends and self._timer is None:
            self._timer = self._loop.call_at(next(iter(self._ends.values())), self._check)


def _nothing(overdue: list[Lease]) -> None:
    """Tell nobody."""
