"""The sockets of a gateway that may misbehave: handshakes that wait for the script's answer, frames in any form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from bullmq_proxy.gateway.conformance.rules import CODE_OF_STATUS

SUBPROTOCOL: Final = "bullmq-proxy.v1"
BROKEN: Final = 1006
MOST_MESSAGES: Final = 10_000
"""Messages of a client on one connection that are looked at."""


def _select(_: ServerProtocol, offered: Any) -> Subprotocol | None:
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


class Opening:
    """A handshake, or a plain request that asks why one was refused.

    Attributes:
        at: when its connection was made, by the loop's clock.
        request: as it came.
    """

    def __init__(self, socket: Socket, request: Request, at: float) -> None:
        self.socket = socket
        self.request = request
        self.at = at

    @property
    def is_handshake(self) -> bool:
        """Whether it asks for a WebSocket."""
        return "Upgrade" in self.request.headers

    def accept(self, messages: Sequence[Any] = ()) -> None:
        """Answer with 101; messages come in one piece with that."""
        self.socket.send_response(self.socket.protocol.accept(self.request), messages)

    def refuse(self, status: int, words: str, retry_after: int | None = None) -> None:
        """Answer with an error, and close the connection."""
        code = CODE_OF_STATUS.get(status, "INVALID_MESSAGE")
        body = json.dumps({"err": {"message": words, "code": code}}).encode()
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        self.socket.send_response(Response(status, "Refused", headers, body))


class Socket(asyncio.Protocol):
    """The gateway's end of one connection.

    Attributes:
        closed_at: when the last byte was sent, by the loop's clock; None before.
        close_code: of the client's close frame, or 1006; None while the connection is open.
        trouble: what is wrong with the client's frames; None if nothing is.
        pongs: what the client has answered pings with.
    """

    def __init__(
        self, opened: Callable[[Opening], None], refused: Callable[[str], None], changed: asyncio.Event
    ) -> None:
        """Prepare for a connection.

        Args:
            opened: takes the handshake.
            refused: takes what is wrong with a request that is none.
            changed: set by whatever the client does.
        """
        self.protocol = ServerProtocol(
            select_subprotocol=_select, subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=None
        )
        self.closed_at: float | None = None
        self.close_code: int | None = None
        self.trouble: str | None = None
        self.pongs: list[bytes] = []
        self._changed = changed
        self.received: Callable[[Any], None] = lambda _: None
        self._opened = opened
        self._refused = refused
        self._fragments: list[bytes] = []
        self._count = 0
        self._loop = asyncio.get_running_loop()

    # In

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._made_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self.protocol.receive_data(data)
        self._look()

    def eof_received(self) -> bool:
        """Take the end of what the client sends."""
        self.protocol.receive_eof()
        self._look()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        if self.close_code is None:
            self.close_code = BROKEN
        self._changed.set()

    def _look(self) -> None:
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self._opened(Opening(self, event, self._made_at))
            elif isinstance(event, Frame):
                self._take(event)
        error = self.protocol.handshake_exc
        if error is not None and not isinstance(error, InvalidHandshake):
            self._refused(f"no request of HTTP/1.1 came: {error}")
        wrong = self.protocol.parser_exc
        if wrong is not None and not isinstance(wrong, EOFError):
            self.trouble = self.trouble or f"a frame is wrong: {wrong}"
        self._flush()
        self._changed.set()

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self.pongs.append(bytes(frame.data))
        elif frame.opcode is Opcode.CLOSE:
            self.close_code = int.from_bytes(frame.data[:2]) if frame.data else 1005
        elif frame.opcode is Opcode.BINARY:
            self.trouble = self.trouble or "a binary frame came"
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                text, self._fragments = b"".join(self._fragments), []
                self._read(text)

    def _read(self, text: bytes) -> None:
        self._count += 1
        try:
            message = json.loads(text.decode())
        except ValueError as error:
            self.trouble = self.trouble or f"no JSON in UTF-8 came: {text[:80]!r}: {error}"
            return
        if not isinstance(message, dict) or not isinstance(message.get("data"), dict) or "id" not in message:
            self.trouble = self.trouble or f"no object with id and data came: {text[:80]!r}"
        elif self._count <= MOST_MESSAGES:
            self.received(message)

    # Out

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.protocol.state is State.OPEN and not self.transport.is_closing()

    def send_response(self, response: Response, messages: Sequence[Any] = ()) -> None:
        """Answer the request, with messages right behind."""
        self.protocol.send_response(response)
        for message in messages if self.is_open else ():
            self.protocol.send_text(encode(message))
        self._flush()

    def send(self, message: Any, pieces: int = 1, ping: bytes | None = None) -> None:
        """Send a message, in so many fragments and an empty one, with a ping behind the first one."""
        if not self.is_open:
            return
        text = encode(message)
        size = -(-len(text) // pieces)
        for start in range(0, len(text), size):
            piece, is_last = text[start : start + size], start + size >= len(text)
            if start == 0:
                self.protocol.send_text(piece, fin=is_last)
                if not is_last:
                    self.protocol.send_continuation(b"", fin=False)
                if ping is not None:
                    self.protocol.send_ping(ping)
            else:
                self.protocol.send_continuation(piece, fin=is_last)
        self._flush()

    def ping(self, data: bytes) -> None:
        """Send a ping."""
        if self.is_open:
            self.protocol.send_ping(data)
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, or break the connection if the code is 1006."""
        self.closed_at = self._loop.time()
        if code == BROKEN:
            self.transport.abort()
        elif self.is_open:
            self.protocol.send_close(code, reason)
            self._flush()

    def _flush(self) -> None:
        data = self.protocol.data_to_send()
        if not self.transport.is_closing():
            self.transport.write(b"".join(data))
            if b"" in data:  # the library's sign that nothing more will be sent
                self.closed_at = self.closed_at or self._loop.time()
                self.transport.close()


def encode(message: Any) -> bytes:
    """Return a message as it is sent; a text is sent as it is."""
    return message.encode() if isinstance(message, str) else json.dumps(message, ensure_ascii=False).encode()


def header(headers: Mapping[str, str], name: str) -> str:
    """Return a header, or an empty text if it is not there or not there once."""
    try:
        return headers.get(name, "")
    except LookupError:
        return ""
