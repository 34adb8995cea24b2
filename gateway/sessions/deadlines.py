"""Deadlines of jobs in a client's hands: all have the same time, so that one timer is enough for a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import takewhile

from bullmq_proxy.gateway.broker.consuming.leases import Lease


class Deadlines:
    """The times until which something must have become of jobs.

    Attributes:
        ends: these times, in loop time, the next one first; a job whose deadline is met is taken out.
    """

    __slots__ = ("_loop", "_passed", "_time", "_timer", "ends")

    def __init__(self, milliseconds: int, passed: Callable[[list[Lease]], None]) -> None:
        """Make deadlines that are `milliseconds` away when they start, 0 for none; `passed` takes those in time."""
        self._time = milliseconds / 1000
        self._passed = passed
        self._loop = asyncio.get_running_loop()
        self.ends: dict[Lease, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, lease: Lease) -> None:
        """Let the time of a job begin, or begin again."""
        if self._time:
            self.ends.pop(lease, None)
            self.ends[lease] = end = self._loop.time() + self._time
            if self._timer is None:
                self._timer = self._loop.call_at(end, self._check)

    def close(self) -> None:
        """Forget all, and who is to be told: that one holds us."""
        self.ends.clear()
        self._passed = _nothing
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        overdue = [lease for lease, _ in takewhile(lambda item: item[1] <= now, self.ends.items())]
        for lease in overdue:
            del self.ends[lease]
        try:
            if overdue:
                self._passed(overdue)
        finally:  # whatever that raises, the next ones are due
            if self.ends and self._timer is None:
                self._timer = self._loop.call_at(next(iter(self.ends.values())), self._check)


def _nothing(overdue: list[Lease]) -> None:
    """Tell nobody."""
