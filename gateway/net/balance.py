"""Balance: a shard that has more to do than another one hands the sockets that it accepts on to that one.

The kernel spreads connections over the sockets of one port by a hash: of a few that stay open for long, one shard gets
several and another none.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final, cast

from bullmq_proxy.gateway.loads import MOST_HOPS, PULSE, Lines, Loads

_AT_ONCE: Final = 16  # sockets in one turn of the loop

MakeProtocol = Callable[[], asyncio.Protocol]


class Balance:
    """The part of one shard: hands on what it accepts, and takes what others hand on."""

    def __init__(self, lines: Lines, slot: int) -> None:
        """Make it for the shard of a slot; `join` begins to take."""
        self._lines = lines
        self._slot = slot
        self.loads = Loads(lines, slot)
        self._outlets = [socket.socket(fileno=os.dup(fd)) for fd in lines.outlets]
        self._make: MakeProtocol | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[object]] = set()

    def join(self, make: MakeProtocol) -> None:
        """Take sockets from now on; `make` makes the protocol of each."""
        self._make = make
        self._show_life()
        asyncio.get_running_loop().add_reader(self._lines.inlets[self._slot], self._take)

    def _show_life(self) -> None:
        self.loads.show_life()
        self._pulse = asyncio.get_running_loop().call_later(PULSE, self._show_life)

    def leave(self) -> None:
        """Let nobody hand on anything more; what was handed on before is taken until `close`."""
        if self._pulse is not None:
            self._pulse.cancel()
        self.loads.leave()

    def close(self) -> None:
        """Take nothing any more."""
        self.leave()
        if self._make is not None:
            self._make = None
            asyncio.get_running_loop().remove_reader(self._lines.inlets[self._slot])
            self._lines.forget(self._slot, closes=True)
        for outlet in self._outlets:
            outlet.close()

    def accepted_by(self, make: MakeProtocol) -> MakeProtocol:
        """Return what makes the protocols of accepted sockets: each is handed on, or gets one that `make` makes."""
        return lambda: _Accepted(self, make)

    def hand_on(self, descriptor: int, hops: int = 0) -> bool:
        """Hand a socket on to a shard with less to do; returns whether there was one.

        The caller then closes its own descriptor: the connection lives while another one is open.

        Args:
            descriptor: of the socket, of which nothing was read.
            hops: how often it was handed on before.
        """
        slot = self.loads.lighter() if hops < MOST_HOPS else None
        if slot is None:
            return False
        try:
            socket.send_fds(self._outlets[slot], [bytes((hops + 1,))], [descriptor])
        except OSError:  # its queue is full, or this socket has gone
            return False
        self.loads.count_given(slot)
        return True

    def _take(self) -> None:
        loop = asyncio.get_running_loop()
        for taken, hops in self._lines.take(self._slot, self.loads, _AT_ONCE):
            if self._make is None or self.hand_on(taken.fileno(), hops):
                taken.close()
                continue
            taken.setblocking(False)
            arriving = loop.create_task(_connect(loop, self._make, taken), name="a socket from another shard")
            self._arriving.add(arriving)
            arriving.add_done_callback(self._arriving.discard)


async def _connect(loop: asyncio.AbstractEventLoop, make: MakeProtocol, taken: socket.socket) -> None:
    try:
        await loop.connect_accepted_socket(make, taken)
    except OSError:  # the client has gone meanwhile
        taken.close()


class _Accepted(asyncio.Protocol):
    """A socket that was just accepted, for the moment until it is known whose it is."""

    def __init__(self, balance: Balance, make: MakeProtocol) -> None:
        self._balance = balance
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the socket on, or begin to serve it."""
        accepted = cast("asyncio.Transport", transport)
        if self._balance.hand_on(accepted.get_extra_info("socket").fileno()):
            accepted.abort()
        else:
            protocol = self._make()
            accepted.set_protocol(protocol)
            protocol.connection_made(accepted)
