"""The stalled check: jobs whose worker died without a word go back to wait, by BullMQ's own script."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

from gateway.broker.leases import Consumer
from gateway.broker.queue import Queue
from gateway.wire.options import now_ms

log = logging.getLogger(__name__)

_KEYS = ("stalled", "wait", "active", "stalled-check", "meta", "paused", "marker", "events", "repeat")


class StalledChecker:
    """Runs the check of one queue for as long as it has consumers; the script sees to once per interval and queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._interval = 0  # ms; 0: nobody to serve
        self._limit = 0
        self._timer: asyncio.TimerHandle | None = None

    def serve(self, consumers: Collection[Consumer]) -> None:
        """Check at the shortest interval and with the most patience that the consumers ask for."""
        if not consumers:
            self.close()
            return
        interval = min(consumer.options.stalled_interval for consumer in consumers)
        self._limit = max(consumer.options.max_stalled_count for consumer in consumers)
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
        self._timer = self._loop.call_later(self._interval / 1000, self._check)
        self._queue.commands["moveStalledJobsToWait"].send(
            self._queue.keys(*_KEYS), [self._limit, self._queue.base, now_ms(), self._interval], self._checked
        )

    def _checked(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            log.warning("stalled check of %s: %s", self._queue.name, reply)
        elif reply:
            log.info("%d stalled jobs of %s are back in wait", len(reply), self._queue.name)
