"""Who among those that wait on Redis has a connection of its own: so many at a time. The others share the tracker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from bullmq_proxy.gateway.broker.redis.command_link import CommandLink
from bullmq_proxy.gateway.broker.redis.tracker import Tracker

_BUSY: Final = 5.0  # s


class Seats:
    """The seats for one kind of waiter."""

    def __init__(self, limit: int, trackers: Callable[[CommandLink], Tracker], busy: float = _BUSY) -> None:
        """Make the seats.

        Args:
            limit: how many; there are as many as it takes where the tracker cannot be used.
            trackers: gives the tracker of those who have none, by the link of their queue.
            busy: seconds; whoever stirred twice within this time is busy, whoever did not at all is quiet.
        """
        self._busy = busy
        self.trackers = trackers
        self._limit = limit
        self._taken: set[Seat] = set()

    def take(self, seat: Seat) -> bool:
        """Give a waiter a seat, if there is one, or a busy one that of a quiet one; return whether it has one."""
        taken = self._taken
        if seat in taken:
            return True
        if len(taken) >= self._limit and not seat.tracker.is_refused:
            now = asyncio.get_running_loop().time()
            if not taken or now - seat.stirred_before > self._busy:
                return False
            quietest = min(taken, key=lambda other: other.stirred_at)
            if now - quietest.stirred_at < self._busy:
                return False
            taken.remove(quietest)
        taken.add(seat)
        return True

    def leave(self, seat: Seat) -> None:
        """Take the seat of a waiter that has gone."""
        self._taken.discard(seat)


class Seat:
    """A waiter's claim to a connection of its own. It may be lost: `take` says so when the waiter waits again.

    Attributes:
        stirred_at: when what it waits for came last, in loop time.
        stirred_before: when it came the time before that.
    """

    __slots__ = ("_link", "_seats", "stirred_at", "stirred_before")

    def __init__(self, seats: Seats, link: CommandLink) -> None:
        """Make a claim on one of `seats` for a queue, whose link is `link`."""
        self._seats = seats
        self._link = link
        self.stirred_at = self.stirred_before = float("-inf")

    @property
    def tracker(self) -> Tracker:
        """The tracker for one without a seat: on a cluster that of the node which has the queue now."""
        return self._seats.trackers(self._link)

    def take(self) -> bool:
        """Return whether the waiter, which is about to wait, has a connection of its own."""
        return self._seats.take(self)

    def stir(self) -> None:
        """Note that what is waited for has come."""
        self.stirred_before, self.stirred_at = self.stirred_at, asyncio.get_running_loop().time()

    def leave(self) -> None:
        """Wait no more."""
        self._seats.leave(self)
