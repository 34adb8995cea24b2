"""One WebSocket connection: frames in, messages to the session; messages out, one write per turn of the loop.

The library keeps the handshake, the frame parser and the closing handshake. Its queue of incoming messages and its
coroutine per message are left out: they cost more than everything else that a message needs.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from gateway.sessions.ports import Session
from gateway.wire.closing import CloseCode, cut_reason

_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
_OPEN = State.OPEN
_CLOSE_TIMEOUT: Final = 5.0  # s for the peer to answer a close frame
_STUCK_TIMEOUT: Final = 1.0  # s when it is closed for not reading
_FRAGMENTS: Final = 1024  # fragments of one message; a frame of no bytes counts towards no size limit
_METHOD: Final = re.compile(rb"[A-Z]{2,12} \S+ HTTP/1\.[01]\r?\n")


class Connection(ServerConnection):
    """The server's end of one connection; the Outlet of its session."""

    max_write_buffer = 16 * 1024 * 1024  # bytes that a client may leave unread; set once per shard

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.session: Session | None = None
        self.heard = True  # anything at all since the last look of the keepalive
        self.pinged = False
        self.close_sent_code: int | None = None
        self._out: list[bytes] = []  # frames of this turn of the loop
        self._out_size = 0
        self._fragments: list[bytes] = []
        self._held = False
        self._parked: deque[bytes] = deque()  # came in the same read as the message that made us stop reading
        self._refused = False

    # In

    def data_received(self, data: bytes) -> None:
        """Bytes from the socket."""
        self.heard = True
        if self.request is None and (self._refused or not b"GET ".startswith(data[:4])):
            self._refuse_method(data)
            return
        super().data_received(data)

    def _refuse_method(self, data: bytes) -> None:
        """Answer what the library's parser would drop without a word: another method than GET, or no HTTP at all."""
        if self._refused or self.protocol.reader.buffer:
            if not self._refused:
                super().data_received(data)
            return
        self._refused = True
        if _METHOD.match(data):
            head, body = b"405 Method Not Allowed\r\nAllow: GET", b"Only GET is answered here"
        else:
            head, body = b"400 Bad Request", b"This is no HTTP request"
        body = b'{"err":{"message":"%b","code":"INVALID_MESSAGE"}}' % body
        self.transport.write(
            b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (head, len(body), body)
        )
        self.transport.close()

    def process_event(self, event: Event) -> None:
        """One frame, or the handshake request."""
        if self.request is None:
            super().process_event(event)
            return
        assert isinstance(event, Frame)
        opcode = event.opcode
        if opcode is _TEXT and event.fin:
            self._message(bytes(event.data))
        elif opcode is _TEXT or opcode is _CONT:
            self._fragment(event)
        elif opcode is _BINARY:
            self.close_with(CloseCode.UNSUPPORTED_DATA, "text frames only")
        # Pings are answered by the library's protocol, and `heard` is all that a pong is for.

    def _fragment(self, frame: Frame) -> None:
        """Collect a fragmented message. The order of frames and the size of the whole are checked by the library."""
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            fragments, self._fragments = self._fragments, []
            self._message(b"".join(fragments))
        elif len(self._fragments) > _FRAGMENTS:
            self._fragments.clear()
            self.close_with(CloseCode.TOO_BIG, f"more than {_FRAGMENTS} fragments")

    def _message(self, message: bytes) -> None:
        # The parser leaves this to us (RFC 6455 §8.1), and msgspec does not look into what it hands on unparsed.
        if not message.isascii() and not _is_utf8(message):
            self.close_with(CloseCode.INVALID_DATA, "a text frame must be UTF-8")
        elif self._held:
            self._parked.append(message)
        elif self.protocol.state is _OPEN and self.session is not None:
            self.session.received(message)

    def hold(self) -> None:
        """Read nothing more for now: TCP then slows the client down."""
        self._held = True
        self.transport.pause_reading()

    def proceed(self) -> None:
        """Read again, first what has been read already."""
        self.loop.call_soon(self._unpark)

    def _unpark(self) -> None:
        self._held = False
        while self._parked and not self._held:
            self._message(self._parked.popleft())
        if not self._held and not self.transport.is_closing():
            self.transport.resume_reading()

    # Out

    def send(self, message: bytes) -> None:  # type: ignore[override] # no coroutine: nothing here waits
        """Send one text message; all messages of one turn of the loop leave in one write."""
        if self.protocol.state is not _OPEN:
            return
        if not self._out:
            self.loop.call_soon(self._flush)
        self._out.append(_header(len(message)))
        self._out.append(message)
        self._out_size += len(message)
        if self._out_size > self.max_write_buffer:
            self._flush()

    def _flush(self) -> None:
        if not self._out:
            return
        out, self._out, self._out_size = self._out, [], 0
        if self.protocol.state is not _OPEN:
            return
        self.transport.write(b"".join(out))
        if self.transport.get_write_buffer_size() > self.max_write_buffer:
            self.close_with(CloseCode.SLOW_CONSUMER, "messages are not read", timeout=_STUCK_TIMEOUT)

    async def drained(self) -> None:
        """Wait until the client has read most of what was sent."""
        self._flush()
        await self.drain()

    # The end

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> Any:
        """Close the connection; also what the library awaits, so it returns something that can be awaited."""
        self.close_with(code, reason)
        return self.wait_closed()

    def close_with(self, code: int, reason: str = "", timeout: float = _CLOSE_TIMEOUT) -> None:
        """Send what is left and a close frame, and give the peer `timeout` seconds to answer it."""
        if self.protocol.state is not _OPEN:
            return
        out, self._out = self._out, []
        self.transport.write(b"".join(out))
        self.close_sent_code = int(code)
        self.protocol.send_close(int(code), cut_reason(reason))
        self.send_data()
        if self._held:  # its answer must be read
            self._held = False
            self.transport.resume_reading()
        self.loop.call_later(timeout, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        super().connection_lost(exc)
        self._parked.clear()
        session, self.session = self.session, None
        if session is not None:
            session.closed()

    def ping(self) -> None:  # type: ignore[override] # no waiter: the keepalive only asks whether anything was heard
        """Send a ping."""
        if self.protocol.state is _OPEN:
            self.protocol.send_ping(b"")
            self.send_data()


def _header(length: int) -> bytes:
    """The head of an unmasked, final text frame (RFC 6455 §5.2)."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


async def closed(connection: Connection) -> None:
    """Wait until the connection is gone."""
    await asyncio.shield(connection.connection_lost_waiter)
