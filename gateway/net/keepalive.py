"""Keepalive: one task per shard that looks after all connections; the library's own would be a task for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from bullmq_proxy.gateway.net.connection import Connection
from bullmq_proxy.gateway.wire.closing import CloseCode

_SLICE: Final = 200  # connections between two turns of the loop


class Keepalive:
    """Pings connections that have gone quiet, and closes those that stay so.

    A dead peer is found after `interval` + `timeout` at the latest: quiet for half an interval is noted, quiet for the
    other half is pinged, quiet for `timeout` more is closed with 4003. Half-way there it is pinged once more: one ping,
    or its pong, may get lost in a proxy or a client that is just busy.
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
        for number, connection in enumerate(list(self._connections()), 1):
            self._look(connection)
            if number % _SLICE == 0:
                await asyncio.sleep(0)

    def _look(self, connection: Connection) -> None:
        if connection.is_reading_paused and connection.write_buffer_size:
            # It is we who do not listen, until the client reads; one that reads nothing at all is stuck.
            if connection.write_buffer_size == connection.stuck_at:
                connection.close_with(CloseCode.SLOW_CONSUMER, "messages are not read", timeout=1.0)
            connection.stuck_at = connection.write_buffer_size
            return
        connection.stuck_at = 0
        if connection.heard or connection.is_reading_paused:  # while it is held it is we who do not listen
            connection.heard_at = connection.last_heard
            connection.heard = False
            if connection.judgement is not None:
                connection.judgement.cancel()
                connection.judgement = None
        elif connection.judgement is None:
            connection.ping()
            connection.judgement = connection.loop.call_later(
                self._timeout / 2, _ask_again, connection, self._timeout / 2
            )


def _ask_again(connection: Connection, timeout: float) -> None:
    if connection.heard:
        connection.judgement = None
    else:
        connection.ping()
        connection.judgement = connection.loop.call_later(timeout, _judge, connection)


def _judge(connection: Connection) -> None:
    connection.judgement = None
    if not connection.heard and not connection.is_reading_paused:
        connection.close_with(CloseCode.NO_PONG, "no pong", timeout=1.0)
