"""The waiter: one blocking connection per queue and shard, on which all its idle workers wait together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.link import Link, LinkOptions
from bullmq_proxy.gateway.broker.redis.socket import pack_command
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.options import now_ms

LONGEST_WAIT: Final = 5.0  # s without any job; BullMQ's drainDelay, its net for a lost marker
LONGEST_DELAY: Final = 10.0  # s until a delayed job; BullMQ's maximumBlockTimeout
_RETRY: Final = 1.0  # s after an error reply
_FAR_FUTURE: Final = 2.0**53  # ms since the epoch
SHORTEST_WAIT: Final = 0.002  # s; a timeout of 0 would block for ever, and Redis < 7.0.8 rounds 1 ms down to it


class MarkerWait:
    """Blocks on a queue's marker until there may be a job."""

    def __init__(self, queue: Queue, options: LinkOptions) -> None:
        """Make a waiter for `queue`; `options` are those of the command link."""
        self._queue = queue
        own = replace(options, name=queue.client_name, deadline=LONGEST_DELAY + options.deadline)
        self._link = Link(queue.link.address, own, setup=self._ask_id)
        self._id: int | None = None  # of the connection, by which another one can unblock it
        self._started = False
        self.popped = False  # a marker was taken; for the feed to unset when it has made use of it

    async def wait(self, until: int) -> int:
        """Wait for a job.

        Args:
            until: when the next delayed job is due, in ms since the epoch; 0 when none is known.

        Returns:
            The time at which there is a job to fetch, in ms since the epoch; 0 when that is now.
        """
        if not self._started:
            self._started = True
            await self._link.start()
        try:
            async with asyncio.timeout(self._seconds(until)):
                await self._link.wait_up()
        except TimeoutError:
            return 0  # Redis may give us no second connection: then it is polled
        try:
            popped = await self._pop(self._seconds(until))
        except GatewayError:
            if self._link.is_up:  # an error reply: blocking is not allowed, or the marker is no sorted set
                await asyncio.sleep(_RETRY)
            return 0  # the connection broke: look for jobs once it is back
        if popped is None:
            return 0
        self.popped = True
        score = milliseconds(popped[2])
        return 0 if score <= now_ms() + 1 else min(score, until or score)

    async def _pop(self, seconds: float) -> Any:
        """Return a marker, or None when the time is up.

        An idle Redis looks at the timeouts of blocked clients only ten times a second; our own timer is exact.
        """
        key = self._queue.key("marker")
        popped = self._link.call("BZPOPMIN", key, f"{seconds:.3f}", decode=False)
        try:
            await asyncio.wait((popped,), timeout=seconds)
        except asyncio.CancelledError:
            popped.cancel()
            raise
        if not popped.done():
            self._unblock()
        return await popped

    def _unblock(self) -> None:
        if self._id is not None:
            self._queue.link.send(pack_command("CLIENT", "UNBLOCK", self._id), _ignore)

    def pass_on(self) -> None:
        """Put back the marker that was taken, if one was: whoever else waits on it is woken."""
        if self.popped:
            self._queue.wake()

    @staticmethod
    def _seconds(until: int) -> float:
        if not until:
            return LONGEST_WAIT
        return min(max((until - now_ms()) / 1000, SHORTEST_WAIT), LONGEST_DELAY)

    async def close(self) -> None:
        """Give the connection up without taking a marker along: that would let another shard's workers sleep on."""
        if not self._started:
            return
        # One connection carries both: nothing can be popped between the unblocking and the new marker.
        self._unblock()
        self._queue.wake()
        await self._link.close()

    async def _ask_id(self, ask: Callable[..., Awaitable[Any]]) -> None:
        try:
            self._id = await ask("CLIENT", "ID")
        except GatewayError:
            self._id = None  # not allowed to: then a lost marker costs at most `LONGEST_WAIT`


def milliseconds(score: Any) -> int:
    """Return a time from a script or a marker's score, which another program's enormous delay can make infinite."""
    return int(min(max(float(score), 0.0), _FAR_FUTURE))  # min and max also turn nan into a number


def _ignore(reply: Any) -> None:
    """Expect no reply: what was not unblocked was not blocked."""
