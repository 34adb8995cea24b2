"""Keepalive: one task per shard that looks after all connections; the library's own would be a task for each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from typing import Final

from bullmq_proxy.gateway.net import frames
from bullmq_proxy.gateway.net.connection import Connection
from bullmq_proxy.gateway.wire.closing import CloseCode

_QUIET_LOOKS: Final = 3  # of the keepalive, two in an interval, until a client without work is pinged
_SLICE: Final = 50  # connections between two turns of the loop: a ping takes some 10 us


class Keepalive:
    """Pings connections that have gone quiet, and closes those that stay so.

    A dead peer is found after `interval` + `timeout` at the latest if it has work, a job in hand or a call without a
    reply: quiet for half an interval is noted, quiet for the other half is pinged, quiet for `timeout` more is closed
    with 4003. Half-way there it is pinged once more: one ping, or its pong, may get lost in a proxy or a client that is
    just busy. Nobody waits for one without work, which is pinged at every second interval: with thousands of idle
    connections the pings are most of what a gateway does. One that is given a job meanwhile is pinged at the next look.
    """

    def __init__(self, connections: Callable[[], Collection[Connection]], interval: float, timeout: float) -> None:
        """Look after what `connections` returns; `interval` and `timeout` in seconds."""
        self._connections = connections
        self._interval = interval
        self._timeout = timeout

    async def run(self) -> None:
        """Look after the connections until cancelled."""
        while True:
            await asyncio.sleep(self._interval / 2)
            await self._look_at_all()  # by itself: a name here would hold the last connection meanwhile

    async def _look_at_all(self) -> None:
        pinged = Pinged(self._timeout)
        for number, connection in enumerate(list(self._connections()), 1):
            if connection.heard:
                connection.heard = False
                connection.heard_at = connection.loop.time()
                connection.quiet_looks = connection.stuck_at = 0
                connection.forget_ping()
            elif connection.is_reading_paused:
                _look_at_held(connection)
            elif connection.pinged is None:
                connection.quiet_looks += 1
                if connection.quiet_looks >= _QUIET_LOOKS or not connection.is_idle:
                    pinged.add(connection)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
                if pinged:
                    pinged = Pinged(self._timeout)


def _look_at_held(connection: Connection) -> None:
    """Look at one that is not read: it is we who do not listen, until its client reads.

    One that has something to read and reads nothing of it until the next look is stuck.
    """
    unread = connection.write_buffer_size
    if unread and unread == connection.stuck_at:
        connection.close_with(CloseCode.SLOW_CONSUMER, "messages are not read", timeout=1.0)
    elif not unread:
        connection.heard_at = connection.loop.time()
        connection.forget_ping()
    connection.stuck_at = unread


class Pinged(dict[Connection, None]):
    """Connections that were pinged together and have not answered: one timer and one frame serve them all."""

    def __init__(self, timeout: float) -> None:
        """Make an empty one; `timeout` in seconds, from the ping until they are closed."""
        super().__init__()
        self._timeout = timeout
        self._ping = frames.ping(os.urandom(frames.PING_SIZE))

    def add(self, connection: Connection) -> None:
        """Ping a connection."""
        if not self:
            connection.loop.call_later(self._timeout / 2, self._ask_again)
        self[connection] = None
        connection.pinged = self
        connection.ping(self._ping)

    def _ask_again(self) -> None:
        again = frames.ping(os.urandom(frames.PING_SIZE))
        for connection in list(self):
            if connection.heard:
                connection.forget_ping()
            else:
                connection.ping(again)
        if self:
            next(iter(self)).loop.call_later(self._timeout / 2, self._judge)

    def _judge(self) -> None:
        for connection in list(self):
            connection.forget_ping()
            if not connection.heard and not connection.is_reading_paused:
                connection.close_with(CloseCode.NO_PONG, "no pong", timeout=1.0)
