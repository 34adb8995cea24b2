"""Connections before their handshake is answered, when nobody knows yet whose they are: how many, and for how long."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.log_events import LogEvent

if TYPE_CHECKING:
    from websockets.http11 import Request

UNOPENED: Final = 1024
"""Connections of a shard whose handshake is not answered yet."""

HEAD_TIMEOUT: Final = 5.0
"""Seconds from accept to the end of the request's head."""

_RESERVED: Final = 128  # descriptors for all else that has a fixed number: the keys file, the control pipe, the log


class Accepted(Protocol):
    """A client that has connected, whatever it speaks."""

    address: str
    """The address of the client; empty on a Unix socket."""

    @property
    def request(self) -> Request | None:
        """What it has asked for, if it has."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport of the socket."""


class Unopened:
    """Counts connections by address, and gives up the oldest ones that say nothing when there are too many.

    Attributes:
        given_up: how many were closed without an answer.
        weigh: is told how much more there is to do, or less: one for each connection.
    """

    def __init__(self, max_connections: int | None, max_per_address: int | None, links: int = 0) -> None:
        """Make one for a listener.

        Args:
            max_connections: of the shard; None for as many as there are descriptors.
            max_per_address: of one client address; None for no limit. A proxy in front of us is one address.
            links: to Redis, as many as there may be; their descriptors are no client's.
        """
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(soft - _RESERVED - min(links, soft // 2), 1)
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._since: dict[Accepted, float] = {}  # monotonic time, the oldest one first
        self._waiting: Counter[str] = Counter()  # of these, by address
        self._open: Counter[str] = Counter()  # all connections, by address
        self._count = 0
        self.given_up = 0
        self.weigh: Callable[[int], None] = lambda change: None
        self._emptied: asyncio.Future[None] | None = None  # who waits until there is none
        self._closed = False

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._since)

    def enter(self, connection: Accepted) -> None:
        """Take in a connection that was just accepted; one too many is given up, the oldest of who has most."""
        address = connection.address
        self._count += 1
        self.weigh(1)
        self._open[address] += 1
        self._since[connection] = time.monotonic()
        self._waiting[address] += 1
        if self._closed:
            connection.transport.abort()
        elif self._count > self._most:
            LogEvent.DESCRIPTORS_OUT.log(connections=self._count)
            self._give_up(connection)
        elif len(self._since) > UNOPENED:
            most = max(self._waiting, key=self._waiting.__getitem__)
            oldest = next(each for each in self._since if each.address == most)
            LogEvent.UNOPENED_FULL.log(connections=UNOPENED, address=most)
            self._give_up(oldest)

    def opened(self, connection: Accepted) -> None:
        """Note that the handshake of a connection is answered, or will never be."""
        if self._since.pop(connection, None) is not None:
            _decrease(self._waiting, connection.address)

    def move(self, connection: Accepted, address: str) -> None:
        """Count a connection under another address: that of the client for which a proxy speaks."""
        former = connection.address
        if address != former:
            connection.address = address
            for counter in (self._open, self._waiting) if connection in self._since else (self._open,):
                counter[address] += 1
                _decrease(counter, former)

    def leave(self, connection: Accepted) -> None:
        """Forget a connection that has ended."""
        self.opened(connection)
        self._count -= 1
        self.weigh(-1)
        _decrease(self._open, connection.address)
        if not self._count and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def check(self, connection: Accepted) -> None:
        """Refuse a connection beyond the limits, once it has asked for something.

        Raises:
            GatewayError: TOO_MANY_REQUESTS.
        """
        if self._max_connections is not None and self._count > self._max_connections:
            raise GatewayError(
                ErrorCode.TOO_MANY_REQUESTS,
                f"This shard has all its connections open (max_connections = {self._max_connections}): try again later",
            )
        if self._max_per_address is not None and self._open[connection.address] > self._max_per_address:
            raise GatewayError(
                ErrorCode.TOO_MANY_REQUESTS,
                "Your address has all its connections to this shard open "
                f"(max_connections_per_address = {self._max_per_address}): close one first",
            )

    def give_up_late(self) -> None:
        """Give up those whose head has not come in time."""
        latest = time.monotonic() - HEAD_TIMEOUT
        for connection, since in list(self._since.items()):
            if since > latest:
                return
            if connection.request is None:
                self._give_up(connection)

    def give_up_all(self) -> None:
        """Give up all of them, and those that the system has accepted meanwhile: the listener would wait for them."""
        self._closed = True
        for connection in list(self._since):
            connection.transport.abort()

    async def wait_empty(self) -> None:
        """Wait until there is no connection any more, open or not."""
        while self._count:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied

    def _give_up(self, connection: Accepted) -> None:
        self.given_up += 1
        connection.transport.abort()


def _decrease(counter: Counter[str], address: str) -> None:
    counter[address] -= 1
    if not counter[address]:
        del counter[address]
