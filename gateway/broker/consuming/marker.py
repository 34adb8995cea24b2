"""The waiter: waits on a queue's marker for all its idle workers on this shard together.

It has a seat, with a connection of its own in BZPOPMIN, whose name tells BullMQ's `getWorkers` of it; or it sleeps: the
tracker tells it of the marker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec.structs import replace

from bullmq_proxy.gateway.broker.consuming.safety_net import SafetyNet
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.command_link import LinkOptions
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.seats import Seat, Seats
from bullmq_proxy.gateway.broker.redis.socket import pack_command
from bullmq_proxy.gateway.broker.redis.tracker import Tracker
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.options import now_ms

LONGEST_WAIT: Final = 5.0  # s without any job; BullMQ's drainDelay, its net for a lost marker
LONGEST_DELAY: Final = 10.0  # s until a delayed job; BullMQ's maximumBlockTimeout
_LONGEST_SLEEP: Final = 60.0  # s until a delayed job; the wall clock may be set meanwhile
_RETRY: Final = 1.0  # s after an error reply
_RETRY_LATE: Final = (
    5.0  # s after one that says that Redis takes no writes now: a fetch would not help, and many may ask
)
_FAR_FUTURE: Final = 2.0**53  # ms since the epoch
SHORTEST_WAIT: Final = 0.002  # s; a timeout of 0 would block for ever, and Redis < 7.0.8 rounds 1 ms down to it


class MarkerWait:
    """Waits on a queue's marker until there may be a job."""

    def __init__(self, queue: Queue, options: LinkOptions, seats: Seats, net: SafetyNet) -> None:
        """Make a waiter for `queue`.

        Args:
            queue: on whose marker to wait.
            options: those of the command link.
            seats: of the shard's waiters.
            net: finds jobs without a marker while this one sleeps.
        """
        self._queue = queue
        self._key = queue.key("marker")
        self._options = replace(options, name=queue.client_name, deadline=LONGEST_DELAY + options.deadline)
        self._seat = Seat(seats, queue.link)
        self._link: Link | None = None  # while it has a seat
        self._id: int | None = None  # of that connection, by which another one can unblock it
        self._net = net
        self._change: asyncio.Future[None] | None = None  # of the marker, while it sleeps
        self._shown_on: Tracker | None = None  # as one that sleeps
        self._woken = False
        self._until = 0
        self.popped = False  # a marker was taken; for the feed to unset when it has made use of it

    async def wait(self, until: int) -> int:
        """Wait for a job.

        Args:
            until: when the next delayed job is due, in ms since the epoch; 0 when none is known.

        Returns:
            The time at which there is a job to fetch, in ms since the epoch; 0 when that is now.
        """
        self._until = until
        try:
            popped = await (self._block() if self._seat.take() else self._sleep())
        except GatewayError:
            if self._is_up:  # an error reply: blocking is not allowed, or the marker is no sorted set
                await asyncio.sleep(_RETRY)
            return 0  # the connection broke: look for jobs once it is back
        if popped is None:
            return 0
        self.popped = True
        self._seat.stir()
        score = milliseconds(popped)
        return 0 if score <= now_ms() + 1 else min(score, until or score)

    @property
    def _is_up(self) -> bool:
        return self._seat.tracker.is_up if self._link is None else self._link.is_up

    def open(self) -> None:
        """Take a seat if one is free: workers that are busy do not wait, and yet are to be seen by `getWorkers`."""
        if self._link is None:
            if self._seat.take():
                self._open()
            else:
                self._show()

    # With a seat

    def _open(self) -> Link:
        if self._link is None:
            self._hide()
            self._link = self._queue.link.sibling(self._options, setup=self._ask_id)
            self._link.open()
        return self._link

    async def _block(self) -> Any:
        """Return the score of a marker, or None when the time is up.

        An idle Redis looks at the timeouts of blocked clients only ten times a second; our own timer is exact, where a
        job is due then.
        """
        link = self._open()
        try:
            async with asyncio.timeout(self._seconds()):
                await link.wait_up()
        except TimeoutError:
            return None  # Redis may give us no second connection: then it is polled
        seconds = self._seconds()
        popped = link.call("BZPOPMIN", self._key, f"{seconds:.3f}", decode=False)
        try:
            await asyncio.wait((popped,), timeout=seconds if self._until else None)
            if not popped.done():
                self._unblock()
            marker = await popped
        except asyncio.CancelledError:
            popped.cancel()
            raise
        finally:
            del popped  # an error's traceback holds this frame
        return None if marker is None else marker[2]

    def _unblock(self) -> None:
        if self._id is not None and self._link is not None and self._link.is_up:  # else the id may be another's by now
            self._queue.link.send(pack_command("CLIENT", "UNBLOCK", self._id), _ignore)

    def _seconds(self) -> float:
        if not self._until:
            return LONGEST_WAIT
        return min(self._until_due, LONGEST_DELAY)

    @property
    def _until_due(self) -> float:
        return max((self._until - now_ms()) / 1000, SHORTEST_WAIT)

    async def _ask_id(self, ask: Callable[..., Awaitable[Any]]) -> None:
        try:
            self._id = await ask("CLIENT", "ID")
        except GatewayError:
            self._id = None  # not allowed to: then a lost marker costs at most `LONGEST_WAIT`

    # Without

    async def _sleep(self) -> Any:
        """Return the score of a marker, or None when a delayed job is due or there may be others without a marker."""
        if self._link is not None:  # another one has the seat now
            await self._link.close()
            self._link = None
        tracker = self._show()
        self._woken = False
        # A delayed job whose time is known needs no further look.
        jobs = self._queue.keys("wait", "prioritized", *(() if self._until else ("delayed",)))
        self._net.add(self, self._queue.link, jobs)
        try:
            while not self._woken and not (tracker := self._show()).is_refused:
                change = self._change = tracker.expect(self._key, self._queue.link)
                timeout = min(self._until_due, _LONGEST_SLEEP) if self._until else None
                try:
                    if tracker.is_up and (marker := await self._pop(tracker)):
                        return marker[1]
                except GatewayError as error:
                    if change.done():
                        continue  # the slot has moved
                    if error.code is not ErrorCode.REDIS_UNAVAILABLE or not tracker.is_up:
                        raise
                    timeout = _RETRY_LATE
                await asyncio.wait((change,), timeout=timeout)
                if self._until and self._until <= now_ms():
                    break
        finally:
            self._net.discard(self)
            if self._change is not None:
                tracker.forget(self._key, self._change)
                self._change = None
        return None

    def _show(self) -> Tracker:
        """Be seen as one that sleeps, on the tracker that counts now."""
        tracker = self._seat.tracker
        tracker.open()
        if self._shown_on is not tracker:
            self._hide()
            self._shown_on = tracker
            tracker.show(self._queue.client_name)
        return tracker

    def _hide(self) -> None:
        if self._shown_on is not None:
            self._shown_on.hide(self._queue.client_name)
            self._shown_on = None

    async def _pop(self, tracker: Tracker) -> Any:
        """Return a marker, or an empty list: then its change is told, for which it must be read."""
        try:
            commands = pack_command("EXISTS", self._key) + pack_command("ZPOPMIN", self._key)
            return await tracker.call(commands, 2, self._queue.link)
        except asyncio.CancelledError:
            tracker.send(pack_command("ZADD", self._key, b"0", b"0"))  # behind what may have taken one
            raise

    def wake_up(self) -> None:
        """End the sleep."""
        self._woken = True
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    # Both

    def pass_on(self) -> None:
        """Put back the marker that was taken, if one was: whoever else waits on it is woken."""
        if self.popped:
            self._queue.wake()

    async def close(self) -> None:
        """Leave without taking a marker along: that would let another shard's workers sleep on."""
        self._seat.leave()
        self._hide()
        if self._link is None:
            self.pass_on()
            return
        # One connection carries both: nothing can be popped between the unblocking and the new marker.
        self._unblock()
        self._queue.wake()
        await self._link.close()
        self._link = None


def milliseconds(score: Any) -> int:
    """Return a time from a script or a marker's score, which another program's enormous delay can make infinite."""
    return int(min(max(float(score), 0.0), _FAR_FUTURE))  # min and max also turn nan into a number


def _ignore(reply: Any) -> None:
    """Expect no reply: what was not unblocked was not blocked."""
