"""The stalled check: jobs whose worker died without a word go back to wait, by BullMQ's own script."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from bullmq_proxy.gateway.broker.consuming.leases import Consumer
from bullmq_proxy.gateway.broker.consuming.safety_net import SafetyNet
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.rules.options import now_ms

log = logging.getLogger(__name__)

CHECK_PERIOD: Final = 10.0
"""Seconds between two looks at queues that have been checked: the next check comes so much late at most."""

LATE: Final = 0.005
"""Seconds after the interval that the next check comes: Redis must have forgotten the last one."""

AT_A_TIME: Final = 500
"""Active jobs that one script checks, where they are many."""

CHECK_KEYS: Final = ("stalled", "wait", "active", "stalled-check", "meta", "paused", "marker", "events", "repeat")
"""KEYS of moveStalledJobsToWait-9.lua."""

_CHECKING: Final = "checking for stalled jobs of"  # for the log
_TOO_MANY = -1  # moveStalledJobsToWait, for more than 1000: see `redis/scripts.py`


class StalledChecker:
    """Runs the check of one queue for as long as it has consumers; the script sees to once per interval and queue.

    A queue that has no jobs in `active`, and none marked by the last check, needs none: the safety net looks.
    For those who ask for short intervals the check runs whatever there is.
    """

    def __init__(self, queue: Queue, net: SafetyNet) -> None:
        """Make a checker of `queue`; `net` is that of the shard's checkers."""
        self._queue = queue
        self._net = net
        self._loop = asyncio.get_running_loop()
        self._asked: Counter[tuple[int, int]] = Counter()  # how many consumers ask for an interval and a limit
        self._interval = 0  # ms; 0: nobody to serve
        self._limit = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # loop time: within the interval after a check Redis would refuse the next one

    def join(self, consumer: Consumer) -> None:
        """Check for this consumer too."""
        self._asked[_wish(consumer)] += 1
        self._serve()

    def leave(self, consumer: Consumer) -> None:
        """Check no more for this consumer."""
        wish = _wish(consumer)
        self._asked[wish] -= 1
        if not self._asked[wish]:
            del self._asked[wish]
        self._serve()

    def _serve(self) -> None:
        """Check at the shortest interval and with the most patience that anybody asks for."""
        if not self._asked:
            self.close()
            return
        interval = min(interval for interval, _ in self._asked)
        self._limit = max(limit for _, limit in self._asked)
        if interval != self._interval:
            self.close()
            self._interval = interval
            self._due = 0.0
            if not self._checks_always:
                self._net.add(self, self._queue.link, self._queue.keys("active", "stalled"))
            self._check()

    def close(self) -> None:
        """Stop checking."""
        self._interval = 0
        self._net.discard(self)
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wake_up(self) -> None:
        """Run the check as soon as it is due: at once, or before the net looks again."""
        wait = self._due - self._loop.time()
        if wait <= 0:
            self._check()
        elif wait < CHECK_PERIOD and self._timer is None:
            self._timer = self._loop.call_later(wait, self._check)

    def _check(self) -> None:
        """Run the check, unless somebody has within the interval."""
        self._disarm()
        check_stalled(self._queue, self._interval, self._limit, partial(self._checked, self._interval))

    def _checked(self, interval: int) -> None:
        """Set the time of the next check: counted from now, when Redis has begun to count, too, and no earlier."""
        if interval != self._interval:  # closed, or served by another check
            return
        self._due = self._loop.time() + interval / 1000 + LATE
        if self._checks_always and self._timer is None:
            self._timer = self._loop.call_at(self._due, self._check)

    @property
    def _checks_always(self) -> bool:
        return self._interval <= CHECK_PERIOD * 1000


def check_stalled(queue: Queue, interval: int, limit: int, then: Callable[[], None]) -> None:
    """Run the check now, unless somebody has run it within the last `interval` ms.

    Args:
        queue: to check.
        interval: in ms.
        limit: a job that stalls more often than this fails.
        then: is called when Redis has replied.
    """
    args = [limit, queue.base, now_ms(), interval]
    queue.scripts["moveStalledJobsToWait"].send(queue.keys(*CHECK_KEYS), args, partial(_checked, queue, args, then))


def _checked(queue: Queue, args: list[Any], then: Callable[[], None], reply: Any) -> None:
    then()
    if reply == _TOO_MANY:
        _check_slice(queue, args, 0)
    else:
        _tell(queue, reply)


def _check_slice(queue: Queue, args: list[Any], passed: int) -> None:
    def checked(reply: Any) -> None:
        if isinstance(reply, Exception):
            _tell(queue, reply)
            return
        passed, stalled = reply
        _tell(queue, stalled)
        if passed >= 0:
            _check_slice(queue, args, passed)

    queue.scripts["stalledSlice"].send(queue.keys(*CHECK_KEYS), [*args, passed, AT_A_TIME], checked)


def _tell(queue: Queue, reply: Any) -> None:
    if isinstance(reply, Exception):
        queue.troubles.begin(_CHECKING, queue.name, reply)
        return
    if queue.troubles.now:
        queue.troubles.end(_CHECKING, queue.name)
    if reply:
        LogEvent.STALLED.log(jobs=len(reply), queue=queue.name)


def _wish(consumer: Consumer) -> tuple[int, int]:
    return consumer.options.stalled_interval, consumer.options.max_stalled_count
