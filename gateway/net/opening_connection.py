"""A WebSocket until its handshake is answered: refused, or accepted and then in the hands of the library's protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net import handshake, http, opening
from bullmq_proxy.gateway.net.exchange import SERVER
from bullmq_proxy.gateway.net.shared import Shared
from bullmq_proxy.gateway.net.writing_connection import WritingConnection
from bullmq_proxy.gateway.wire.closing import refusal_of

log = logging.getLogger(__name__)

# On `debug` the library would log keys and payloads, and each connection on `info`, as for one user's own program.
_QUIET: Final = logging.getLogger(f"{__name__}.websockets")
_QUIET.setLevel(logging.WARNING)

_UNOPENED: Final = ServerProtocol(logger=_QUIET)  # stands for that of a connection that is not open: nobody feeds it
_OPEN_TIMEOUT: Final = 10.0  # s from the head of the request to the answer
_REFUSED_TIMEOUT: Final = 2.0  # s for a client to read its refusal, and to close; it counts as unopened until then
_WRITE_LIMIT: Final = 2**15  # bytes in the transport beyond which a client is waited for

Admit = Callable[[Any, Request], Awaitable[Response]]
"""What answers a request for a WebSocket, with status 101 or a refusal, which may be raised."""


class OpeningConnection(WritingConnection):
    """The socket of a client that asks for a WebSocket.

    Attributes:
        address: of the client; empty on a Unix socket.
        peer: the address that the connection comes from; it is another one where a proxy names the client.
        request: that it has sent, until it is answered.
        early: what has come before the answer; None once the connection is open.
        protocol: the library's, which reads frames and knows the state, and does no I/O.
        key_name: that of the client, if it is refused though its key is right.
    """

    __slots__ = (
        "_is_refused",
        "address",
        "early",
        "key_name",
        "peer",
        "protocol",
        "request",
    )

    def __init__(self, shared: Shared) -> None:
        """Make a connection; `take` and `begin` follow."""
        super().__init__(shared)
        self.address = self.peer = self.key_name = ""
        self.request: Request | None = None
        self.early: bytearray | None = bytearray()
        self.protocol = _UNOPENED
        self._is_refused = False

    def take(self, transport: asyncio.Transport, address: str) -> None:
        """Take the socket over, of a client at an address."""
        self.transport = transport
        self.transport.set_write_buffer_limits(_WRITE_LIMIT)
        self.address = self.peer = address
        self._shared.unopened.enter(self)

    def begin(self, request: Request, early: bytes, admit: Admit) -> None:
        """Answer a request.

        Args:
            request: whose head was read.
            early: what has come behind it.
            admit: says what the answer is.
        """
        self.request = request
        if early:
            self.receive_early(early)
        task = asyncio.create_task(self._open(request, admit), name="handshake")
        self._shared.handshakes.add(task)
        task.add_done_callback(self._shared.handshakes.discard)

    async def _open(self, request: Request, admit: Admit) -> None:
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT) as timeout:
                if self._shared.budget.turns.are_taken:
                    await self._shared.budget.turns.wait_for_slice()
                response = await admit(self, request)
        except GatewayError as error:
            self._refuse(request, error)
            return
        except Exception:
            if timeout.expired():
                self.transport.abort()
                return
            log.exception("a handshake failed")
            self._refuse(request, GatewayError(ErrorCode.INTERNAL, "Internal error; the gateway's log has the details"))
            return
        if self.is_lost:
            return
        self._respond(response)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self.protocol = ServerProtocol(state=State.OPEN, max_size=self._shared.max_message_size, logger=_QUIET)
            self.opened()
        else:
            self._refused(request, response.status_code)

    def _refuse(self, request: Request, error: GatewayError) -> None:
        """Say why there is no connection: by a close code to who knows these, else by HTTP."""
        if self.is_lost:
            return
        refusal = refusal_of(error)
        if (answer := handshake.closed(request, error)) is not None:
            self.transport.write(answer)
            self._refused(request, refusal)
        else:
            self._respond(http.refusal(error, refusal.status))
            self._refused(request, refusal.status)

    def _respond(self, response: Response) -> None:
        response.headers["Server"] = SERVER
        self.transport.write(response.serialize())

    def opened(self) -> None:
        """Begin with frames: the handshake is answered."""

    def end_within(self, timeout: float | None = None) -> None:
        """Abort the connection unless the peer ends it in time."""

    def _refused(self, request: Request, code: int) -> None:
        """Let the client read its refusal; to close at once would take it from one that still sends."""
        self._shared.refusals.note(code, self.address, request.path, self.key_name)
        self._is_refused, self.early = True, bytearray()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        self.resume_socket()
        self.end_within(_REFUSED_TIMEOUT)

    def receive_early(self, data: bytes) -> None:
        """Keep frames for the time when the handshake is answered; drop what comes after a refusal."""
        assert self.early is not None
        if self._is_refused:
            self._pause_for_a_while()
            return
        self.early += data
        if len(self.early) > opening.HEAD_LIMIT:
            self.pause_socket()

    def send_data(self) -> None:
        """Write what the library's protocol has to say; last of all it ends our half of the connection."""
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif not self.transport.can_write_eof():
                self.transport.close()
            elif not self.transport.is_closing():
                self.transport.write_eof()

    def eof_received(self) -> None:
        """Note that the client will send no more."""
        if self.protocol is not _UNOPENED:
            self.protocol.receive_eof()
            self.send_data()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the library's protocol: the socket is gone."""
        super().connection_lost(exc)
        self._shared.unopened.leave(self)
        protocol = self.protocol
        if protocol is not _UNOPENED:
            protocol.receive_eof()
            # It and its parser hold each other, and so do the errors that ended it, by their tracebacks.
            protocol.parser.close()
            protocol.parser_exc = protocol.handshake_exc = None
