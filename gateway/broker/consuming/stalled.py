"""The stalled check: jobs whose worker died without a word go back to wait, by BullMQ's own script."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from functools import partial
from typing import Any, Final

from bullmq_proxy.gateway.broker.consuming.leases import Consumer
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.rules.options import now_ms

log = logging.getLogger(__name__)

_STEP: Final = 0.5  # s
_SHORT: Final = 5000  # ms; for an interval up to this a step would be a long time

_KEYS = ("stalled", "wait", "active", "stalled-check", "meta", "paused", "marker", "events", "repeat")


class StalledChecker:
    """Runs the check of one queue for as long as it has consumers; the script sees to once per interval and queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._asked: Counter[tuple[int, int]] = Counter()  # how many consumers ask for an interval and a limit
        self._interval = 0  # ms; 0: nobody to serve
        self._limit = 0
        self._timer: asyncio.TimerHandle | None = None

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
            self._check()

    def close(self) -> None:
        """Stop checking."""
        self._interval = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        due = self._loop.time() + self._interval / 1000
        if self._interval > _SHORT:  # together with those of other queues, so that they leave in one write
            due = math.ceil(due / _STEP) * _STEP
        self._timer = self._loop.call_at(due, self._check)
        check_stalled(self._queue, self._interval, self._limit)


def check_stalled(queue: Queue, interval: int, limit: int) -> None:
    """Run the check now, unless somebody has run it within the last `interval` ms.

    Args:
        queue: to check.
        interval: in ms.
        limit: a job that stalls more often than this fails.
    """
    args = [limit, queue.base, now_ms(), interval]
    queue.scripts["moveStalledJobsToWait"].send(queue.keys(*_KEYS), args, partial(_checked, queue))


def _checked(queue: Queue, reply: Any) -> None:
    if isinstance(reply, Exception):
        log.warning("stalled check of %s: %s", queue.name, reply)
    elif reply:
        log.info("%d stalled jobs of %s are back in wait", len(reply), queue.name)


def _wish(consumer: Consumer) -> tuple[int, int]:
    return consumer.options.stalled_interval, consumer.options.max_stalled_count
