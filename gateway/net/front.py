"""The front of a socket: the head of the first request, which says who has the socket from then on.

A request for a WebSocket goes to a WebSocket connection, any other one to an HTTP connection. A client that
sends no request gets a refusal that every client can read. While others are to be heard, one client begins in each
turn of the loop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from websockets.http11 import Request, Response

from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.net import opening
from bullmq_proxy.gateway.net.shared import Shared
from bullmq_proxy.gateway.net.tls import HELLO
from bullmq_proxy.gateway.net.writing_connection import PAUSE

HandOn = Callable[["Front", Request, bytes], None]


class Front(asyncio.Protocol):
    """A socket whose first request has not come yet.

    Attributes:
        address: of the client; empty on a Unix socket.
        request: None, as long as it has the socket.
        transport: of the socket.
    """

    request: Request | None = None
    transport: asyncio.Transport

    def __init__(self, shared: Shared, hand_on: HandOn) -> None:
        """Make one.

        Args:
            shared: by all connections of the listener.
            hand_on: takes the socket over, with the request and what has come behind its head.
        """
        self.address = ""
        self._shared = shared
        self._hand_on = hand_on
        self._head = bytearray()
        self._refused = False
        self._has_ended = False  # the client, while its head waits for its turn

    def connection_made(self, transport: Any) -> None:
        """Begin with a client that has connected."""
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.address = sys.intern(str(peer[0])) if isinstance(peer, tuple) else ""
        self._shared.unopened.enter(self)

    def come_from(self, address: str) -> None:
        """Count the client under its own address, as a proxy tells it."""
        self._shared.unopened.move(self, address)

    def data_received(self, data: bytes) -> None:
        """Collect the request's head."""
        if self._refused:  # closing at once would take the answer from a client that goes on sending
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(PAUSE, self._read_on)
            return
        if data[0] == HELLO and not self._head:
            LogEvent.TLS_OFF.log(address=self.address)
        self._head += data
        if self._shared.budget.turns.are_taken:
            self.transport.pause_reading()
            self._shared.unfinished.add(self, partial(self._judge_in_turn, len(data)))
        else:
            self._judge(len(data))

    def _judge(self, latest: int) -> None:
        """Look whether the head is whole; `latest` bytes of it have just come."""
        match opening.judge(self._head, latest):
            case Request() as request:
                self._shared.unopened.leave(self)
                self._hand_on(self, request, opening.behind(self._head))
            case Response() as refusal:
                self._refuse(refusal)

    def _judge_in_turn(self, latest: int) -> None:
        """Do so after a wait, in which the socket was not read."""
        self._read_on()
        self._judge(latest)
        if self._has_ended:
            speaker: Any = self.transport.get_protocol()
            if speaker is self or not speaker.eof_received():
                self.transport.close()

    def eof_received(self) -> bool:
        """Answer a client first whose end has come with its head, as it may by TLS."""
        self._has_ended = self in self._shared.unfinished
        return self._has_ended

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _refuse(self, response: Response) -> None:
        """Answer what is no request. The client closes, or the time for the head is up."""
        self._refused = True
        self._shared.refusals.note(response.status_code, self.address, "", "")
        self.transport.write(response.serialize())
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._shared.unopened.leave(self)
        self._shared.unfinished.pop(self, None)
