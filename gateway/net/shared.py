"""What all connections of a listener share: limits, turns, and the room for long messages and for unread output."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct, field

from bullmq_proxy.gateway.net.ends import END_CODES
from bullmq_proxy.gateway.net.places import KINDS, Place, Places
from bullmq_proxy.gateway.net.refusals import Refusals
from bullmq_proxy.gateway.net.unopened import Unopened
from bullmq_proxy.gateway.sessions.budget import Budget
from bullmq_proxy.gateway.turns import SLICE, Unfinished
from bullmq_proxy.gateway.wire.closing import CloseCode

if TYPE_CHECKING:
    from bullmq_proxy.gateway.net.connection import Connection
    from bullmq_proxy.gateway.net.event_stream import EventStream
    from bullmq_proxy.gateway.net.http_connection import HttpConnection

_TURN: Final = 0.001  # s that all connections together may take in one turn of the loop, before others get theirs
_SHORTEST_TURN: Final = 0.00005  # s of one connection, however many there are
_LOOK: Final = 1.0  # s between two looks for those who do not get on
_STALE: Final = 5.0  # s in which a message that is not whole must get on then

UNREAD: Final = 128 * 2**20
"""Bytes of output that all clients of a shard together may leave unread."""


class Socket(Protocol):
    """A connection of either protocol, as far as it takes part in what is shared."""

    def pause_socket(self) -> None:
        """Read no more from the socket."""

    def read_on(self) -> None:
        """Read again, unless something else forbids it."""

    @property
    def is_reading_paused(self) -> bool:
        """Whether the socket is not read, so that nothing can be heard from the client."""

    def close_with(self, code: int, reason: str = "", timeout: float | None = None) -> None:
        """Close the connection."""


class Unread(Protocol):
    """A connection whose client may leave output unread."""

    def close_as_slow(self) -> None:
        """Close the connection: its client does not read what is sent to it."""


def _numbers() -> Iterator[int]:
    """Yield one number after the other, each at least the time in microseconds since 1970."""
    number = 0
    while True:
        number = max(number + 1, time.time_ns() // 1000)
        yield number


class Shared(Struct, frozen=True):
    """What all connections of a listener share.

    Attributes:
        max_message_size: bytes.
        max_write_buffer: bytes that a client may leave unread.
        bad_messages_per_second: of one connection; see `Connection.penalize`.
        budget: of the shard, to which bytes count that were read and are no whole message yet.
        unopened: connections whose handshake is not answered yet.
        open: those whose handshake is answered, and that nobody has begun to close, by age; and their places.
        long: those in the middle of a long message, each of which reads once when it is its turn.
        partial: those with a message that is not whole, and the loop time of its last bytes, the oldest one first.
        unread: those whose clients leave output unread, and how many bytes of it.
        http: those that speak HTTP.
        handshakes: the tasks that find the answers to requests for WebSockets.
        numbers: of connections; each says when its connection was made, too.
        places: of connections.
        refusals: of handshakes and requests.
        ends: how many WebSockets have ended with each code.
        kinds: how many are open of each kind.
    """

    max_message_size: int
    max_write_buffer: int
    bad_messages_per_second: int
    budget: Budget
    unopened: Unopened
    max_unread: int = UNREAD
    open: dict[Connection, Place] = field(default_factory=dict)
    long: dict[Socket, None] = field(default_factory=dict)
    partial: OrderedDict[Socket, float] = field(default_factory=OrderedDict)
    unread: dict[Unread, int] = field(default_factory=dict)
    http: set[HttpConnection | EventStream] = field(default_factory=set)
    handshakes: set[asyncio.Task[None]] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=_numbers)
    places: Places = field(default_factory=Places)
    refusals: Refusals = field(default_factory=Refusals)
    ends: dict[int, int] = field(default_factory=lambda: dict.fromkeys(END_CODES, 0))
    kinds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS.values(), 0))

    @property
    def unfinished(self) -> Unfinished:
        """Those with bytes that were read, and are to be taken in one of the next turns of the loop."""
        return self.budget.turns.unfinished

    @property
    def turn(self) -> float:
        """The seconds that one connection may take in one turn of the loop."""
        if self.budget.turns.are_taken:
            return SLICE
        return max(_TURN / (len(self.unfinished) or 1), _SHORTEST_TURN)

    def opened(self, connection: Connection, place: Place) -> None:
        """Count a WebSocket among the open ones."""
        self.open[connection] = place
        self.kinds[place.kind] += 1

    def ends_soon(self, connection: Connection) -> None:
        """Count it no more: somebody has begun to close it, or it is gone."""
        place = self.open.pop(connection, None)
        if place is not None:
            self.kinds[place.kind] -= 1

    def read_in_turn(self, connection: Socket) -> None:
        """Read no more of a long message before its turn: in each turn of the loop one connection reads on."""
        connection.pause_socket()
        if not self.long:
            asyncio.get_running_loop().call_soon(self._read_next)
        self.long[connection] = None

    def _read_next(self) -> None:
        if self.long:
            connection = next(iter(self.long))
            del self.long[connection]
            connection.read_on()
        if self.long:
            asyncio.get_running_loop().call_soon(self._read_next)

    async def watch(self) -> None:
        """Close connections whose head does not come, or whose message does not get on while others wait for room."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK)
            self.budget.turns.tick()
            self.unopened.give_up_late()
            for client in list(self.http):
                client.look(loop.time())
            if not self.budget.is_waited_for:
                continue
            stale = loop.time() - _STALE
            for connection, heard_at in list(self.partial.items()):
                if heard_at <= stale and not connection.is_reading_paused:
                    connection.close_with(CloseCode.OVERLOADED, "a long message did not get on")

    def note_unread(self, connection: Unread, size: int) -> None:
        """Note how much a client has not read; where all of them leave too much, close the one that leaves most."""
        if not size:
            self.unread.pop(connection, None)
            return
        self.unread[connection] = size
        while sum(self.unread.values()) > self.max_unread:
            slowest = max(self.unread, key=self.unread.__getitem__)
            del self.unread[slowest]
            slowest.close_as_slow()


class PartialMessage:
    """A message of which not all has come yet: its bytes count to the budget of the shard, except while it waits.

    Else those who wait could take the room for which they wait.

    Attributes:
        waits: for room, with the socket not read meanwhile.
    """

    __slots__ = ("_connection", "_shared", "_size", "waits")

    def __init__(self, connection: Socket, shared: Shared) -> None:
        """Make one for a connection."""
        self.waits = False
        self._connection = connection
        self._shared = shared
        self._size = 0

    def hold(self, size: int) -> None:
        """Count bytes that have come."""
        self._size += size
        if not self.waits:
            self._shared.budget.take(size)
        self._shared.partial[self._connection] = asyncio.get_running_loop().time()
        self._shared.partial.move_to_end(self._connection)

    def wait_for_room(self) -> None:
        """Read no more of a message that has just begun until the budget has room."""
        if self._shared.budget.is_out_of_bytes:
            self.waits = True
            self._connection.pause_socket()
            self._shared.budget.wait(self._go_on)
            self._shared.budget.give_back(self._size)

    def _go_on(self) -> None:
        self.waits = False
        self._shared.budget.take(self._size)
        self._connection.read_on()

    def let_go(self) -> None:
        """Count its bytes no more: it is whole, or will never be."""
        self._shared.budget.forget(self._go_on)
        self._shared.partial.pop(self._connection, None)
        if not self.waits:
            self._shared.budget.give_back(self._size)
