"""The grace time of a Worker connection: for how long its jobs are kept when it breaks, and for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bullmq_proxy.gateway.broker.consuming.feed import Feed
from bullmq_proxy.gateway.broker.consuming.grace import Kept, KeptLease, is_secret, new_secret, take_up
from bullmq_proxy.gateway.broker.consuming.leases import HELD, Consumer, Lease
from bullmq_proxy.gateway.broker.reach import Reach


class Grace:
    """The claim of one client to come back.

    Attributes:
        secret: that it has to show then.
        moved_to: the secret of the connection on which it has; empty while it has not.
    """

    def __init__(self, milliseconds: int, id: str, key: str) -> None:
        """Make a claim.

        Args:
            milliseconds: after which it is given up.
            id: of the worker in the roster.
            key: the name of the client's key.
        """
        self.secret = new_secret(id)
        self.moved_to = ""
        self._time = milliseconds / 1000
        self._key = key
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the connection is gone."""
        return self._timer is not None

    def begin(self, give_up: Callable[[], None]) -> None:
        """Call `give_up` when the time has passed; the connection is gone."""
        self._timer = asyncio.get_running_loop().call_later(self._time, give_up)

    def end(self) -> None:
        """Give the claim up now, without telling anybody."""
        if self._timer is not None:
            self._timer.cancel()

    def is_for(self, secret: str, key: str) -> bool:
        """Return whether a client is the one whose claim this is, by the secret and the key that it shows."""
        return key == self._key and is_secret(secret, self.secret)

    # Coming back

    async def take_up(self, shown: str, reach: Reach, feed: Feed, consumer: Consumer) -> tuple[int, list[Lease]]:
        """Let `consumer` hold what is kept for the client of an earlier connection, if this is it.

        Args:
            shown: the secret of that connection.
            reach: leads to its shard.
            feed: of the queue.
            consumer: of this connection.

        Returns:
            The number of the next message, and the leases.

        Raises:
            GatewayError: Redis is not reachable; what is kept stays so.
        """
        link = feed.queue.link
        if not link.is_up:  # the client can try again at once
            raise link.last_error
        number = 0
        held: list[Lease] = []
        async for secret, kept in reach.take_up(feed.queue.name, shown, self._key, self.secret):
            number = max(number, kept.next_number)
            taken = await take_up(feed, consumer, kept.leases)
            reach.taken_up(secret, kept.leases, {lease.number for lease in taken})
            held += taken
        return number, [lease for lease in held if lease.state is HELD]  # one can have been cancelled in this moment

    def hand_over(self, consumer: Consumer, next_number: int, taker: str) -> Kept:
        """Return what `consumer` holds for the client, which is on the connection with the secret `taker` now."""
        moved_to, self.moved_to = self.moved_to, taker
        leases = [KeptLease(lease.id, lease.token, lease.number) for lease in consumer.leases if lease.state is HELD]
        return Kept(next_number, moved_to, leases)
