"""The sending half of a connection: messages, pings and the close frame go out, one write per turn of the loop."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from msgspec import Raw
from websockets.protocol import State

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.flushing import flush_soon
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.net import frames
from bullmq_proxy.gateway.net.ends import BROKEN
from bullmq_proxy.gateway.net.opening_connection import OpeningConnection
from bullmq_proxy.gateway.net.places import Place
from bullmq_proxy.gateway.net.shared import Shared
from bullmq_proxy.gateway.sessions.interfaces import Result
from bullmq_proxy.gateway.wire.closing import CloseCode, cut_reason
from bullmq_proxy.gateway.wire.envelope import err, ok

_OPEN: Final = State.OPEN
_CLOSE_TIMEOUT: Final = 5.0  # s for the peer to answer a close frame, and to close its end of the socket
_STUCK_TIMEOUT: Final = 5.0  # s when it is closed for not reading: the close frame stands behind all the rest
LARGE: Final = 2**17
"""Bytes; a copy of as many costs more than what it takes to do without."""


class SendingConnection(OpeningConnection):
    """A connection that can send and close.

    Attributes:
        account: of the client's key, once the connection is counted.
        place: with it.
        heard: anything at all since the last look of the keepalive.
        heard_at: the loop time of its look that has last found something.
        quiet_looks: since then, at which nothing was found.
        stuck_at: unread bytes at its last look, while the connection is not read.
        pinged: those that it has pinged with this one.
    """

    __slots__ = (
        "_close_code",
        "_end",
        "_out",
        "_out_size",
        "_pong",
        "account",
        "heard",
        "heard_at",
        "pinged",
        "place",
        "quiet_looks",
        "stuck_at",
    )

    def __init__(self, shared: Shared) -> None:
        """Make a connection."""
        super().__init__(shared)
        self.account: Account | None = None
        self.place: Place | None = None
        self.heard = True
        self.heard_at = self.loop.time()
        self.quiet_looks = self.stuck_at = 0
        self.pinged: dict[Any, None] | None = None
        self._out: list[bytes | Raw] = []  # frames of this turn of the loop
        self._out_size = 0
        self._pong = b""  # the answer to the last ping of this turn
        self._close_code = 0  # of the close frame that we have sent
        self._end: asyncio.TimerHandle | None = None  # the deadline of the closing handshake

    def send(self, *parts: bytes | Raw) -> None:
        """Send one text message; all messages of one turn of the loop leave in one write."""
        if self.protocol.state is not _OPEN:
            return
        if not self._out:
            flush_soon(self.loop, self._flush)
        length = sum(map(len, parts)) if len(parts) > 1 else len(parts[0])
        self._out.append(frames.text_header(length))
        self._out.extend(parts)
        self._out_size += length
        if self._out_size > self._shared.max_write_buffer:
            self._flush()

    def reply(self, id: bytes, result: Result) -> None:
        """Send the reply to the request with this id."""
        if isinstance(result, bytes):
            self.send(*ok(id, result))
        elif isinstance(result, tuple):
            self.send(*ok(id, *result))
        else:
            self.send(err(id, result))

    def send_event(self, number: int, data: bytes, id: str) -> None:
        """Send an event of a queue; its id is in `data`."""
        self.send(b'{"id":%d,"data":%b}' % (number, data))

    def answer_ping(self, payload: bytes) -> None:
        """Answer the last ping of each turn of the loop: a flood gets few pongs, which RFC 6455 §5.5.3 allows."""
        if not self._out and not self._pong:
            flush_soon(self.loop, self._flush)
        self._pong = frames.pong(payload)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._pong:
            out.insert(0, self._pong)
            self._pong = b""
        size, self._out_size = self._out_size, 0
        if not out or self.protocol.state is not _OPEN:
            return
        # One reply may be longer than the limit: a client that had read everything before it is not slow.
        unread = self.transport.get_write_buffer_size()
        if size < LARGE:
            self.transport.write(b"".join(out))
        else:
            self.transport.writelines(out)
        if size >= LARGE or unread >= LARGE or self in self._shared.unread:
            self._shared.note_unread(self, self.transport.get_write_buffer_size())
        if unread and self.transport.get_write_buffer_size() > self._shared.max_write_buffer:
            self.close_as_slow()

    def described(self) -> dict[str, object]:
        """Return whose connection it is to what, for the log."""
        account, place = self.account, self.place
        return {
            "address": self.address or "unix",
            "kind": "?" if place is None else place.kind,
            "queue": (place and place.queue) or "?",
            "key": (account and account.rights.grant.key) or "?",
        }

    def _log_end(self, code: int, reason: str) -> None:
        """Log why the gateway closes a connection that its client has made too heavy, or given up."""
        if code == CloseCode.SLOW_CONSUMER:
            LogEvent.SLOW_CONSUMER.log(**self.described(), unread=self.write_buffer_size)
        elif code == CloseCode.NO_PONG:
            LogEvent.NO_PONG.log(**self.described())
        elif code in (CloseCode.POLICY, CloseCode.TOO_BIG, CloseCode.OVERLOADED):
            LogEvent.LIMIT_REACHED.log(**self.described(), code=int(code), reason=reason)
        elif code in (1002, CloseCode.UNSUPPORTED_DATA, CloseCode.INVALID_DATA):
            LogEvent.BAD_FRAMES.log(**self.described(), code=int(code), reason=reason)

    @property
    def end_code(self) -> int:
        """The code of the close frame that came first, from either side; `BROKEN` while there is none."""
        protocol = self.protocol
        first = protocol.close_rcvd if protocol.close_rcvd_then_sent else protocol.close_sent or protocol.close_rcvd
        return BROKEN if first is None else first.code

    def close_as_slow(self) -> None:
        """Close the connection: its client does not read what is sent to it."""
        self.close_with(CloseCode.SLOW_CONSUMER, "messages are not read", timeout=_STUCK_TIMEOUT)

    @property
    def is_open(self) -> bool:
        """Whether what is sent goes out: nobody has begun to close the connection."""
        return self.protocol.state is _OPEN

    @property
    def write_buffer_size(self) -> int:
        """Bytes that were sent, or are to be in this turn of the loop, and that the client has not taken yet."""
        size: int = self.transport.get_write_buffer_size()
        return size + self._out_size

    def ping(self, frame: bytes) -> None:
        """Send a ping."""
        if self.protocol.state is _OPEN:
            self.transport.write(frame)

    def forget_ping(self) -> None:
        """Wait for no answer to the keepalive's ping any more."""
        if self.pinged is not None:
            self.pinged.pop(self, None)
            self.pinged = None

    def close_with(self, code: int, reason: str = "", timeout: float | None = None) -> None:
        """Send what is left and a close frame, and give the peer `timeout` seconds, or the usual ones, to answer it."""
        if self.protocol.state is not _OPEN:
            return
        self._log_end(code, reason)
        out, self._out = self._out, []
        self.transport.write(b"".join(out))
        self._close_code = code
        self.protocol.send_close(int(code), cut_reason(reason))
        self.send_data()
        self.end_within(timeout)

    def end_within(self, timeout: float | None = None) -> None:
        """Abort the connection unless the peer ends it in time; the first deadline counts."""
        if self._end is None:
            self._shared.ends_soon(cast(Any, self))
            self._end = self.loop.call_later(_CLOSE_TIMEOUT if timeout is None else timeout, self.transport.abort)
