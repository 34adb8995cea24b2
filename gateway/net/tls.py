"""TLS between a socket and whoever speaks on it: a transport over a transport, without a task.

A loop's own TLS tells of a client only when the handshake is done. Here the client is there from accept on, so that the
limits of connections that have asked for nothing hold while it shakes hands; and a plain socket has nothing of this.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from bullmq_proxy.gateway.access import certificates
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.net import http

HELLO: Final = 0x16
"""The first byte of TLS: that of a record of the handshake (RFC 8446 §5.1)."""

_RECORD: Final = 16_384  # bytes of text in a record, and at a time in OpenSSL's buffers, which never shrink
_HANDSHAKE_LIMIT: Final = 64 * 1024  # bytes that wait for the handshake; OpenSSL refuses chains of more than 100 KiB
_TURN: Final = 0.001  # s of handshakes in one turn of the loop: one takes 0.3 to 2 ms, and everybody waits meanwhile

_NOBODY: Final = asyncio.Protocol()  # in place of the protocol of a connection that is lost
_PLAIN: Final = GatewayError(ErrorCode.INVALID_MESSAGE, "TLS is spoken on this port: the URL begins with https or wss")


class Tls:
    """The part that connections of a listener share which speak TLS.

    Attributes:
        context: with the certificate for the next handshakes.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        """Make one for a listener."""
        self.context = context
        self._due: deque[TlsTransport] = deque()
        self._is_scheduled = False

    def shake_hands_soon(self, transport: TlsTransport) -> None:
        """Let a connection go on with its handshake when it is its turn."""
        self._due.append(transport)
        self._schedule()

    def _schedule(self) -> None:
        if self._due and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_scheduled, deadline = False, time.perf_counter() + _TURN
        try:
            while self._due:
                self._due.popleft().shake_hands()
                if time.perf_counter() >= deadline:
                    return
        finally:
            self._schedule()


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The transport of a connection that speaks TLS, and the protocol of the socket below."""

    _socket: asyncio.Transport
    # Once the client has said something:
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _ssl: ssl.SSLObject

    def __init__(self, tls: Tls, protocol: asyncio.Protocol) -> None:
        """Make one for a socket that will be accepted; `protocol` speaks on it, at first the Front."""
        super().__init__()
        self._tls = tls
        self._protocol: Any = protocol
        self._is_greeted = False
        self._is_due = False  # the handshake can go on
        self._is_open = False  # it is done
        self._is_deaf = False  # the client says no more, or is not heard any more
        self._is_mute = False  # we have said our last word

    # The protocol of the socket

    def connection_made(self, transport: Any) -> None:
        """Begin with a client that has connected: it counts from now on."""
        self._socket = transport
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Decrypt what the client has said, and hand it on."""
        if self._is_open:
            pieces: list[bytes] = []
            for at in range(0, len(data), _RECORD):
                self._incoming.write(data[at : at + _RECORD])
                self._decrypt(pieces)
            self._hand_on(pieces)
        elif not self._is_deaf:  # closing at once would take the answer from a refused client that still sends
            self._greet(data)

    def _decrypt(self, pieces: list[bytes]) -> None:
        try:
            while self._incoming.pending:  # what is read holds a whole record: nothing of it stays behind
                if not (piece := self._ssl.read(_RECORD)):
                    self._is_deaf = True
                    return
                pieces.append(piece)
        except ssl.SSLWantReadError:  # the rest of a record is to come
            pass
        except ssl.SSLZeroReturnError:  # the end, where ours was said before
            self._is_deaf = True
        except ssl.SSLError:
            self._is_mute = True
            self._socket.abort()

    def _hand_on(self, pieces: list[bytes]) -> None:
        if pieces:
            self._protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._outgoing.pending:
            self._flush()
        if self._is_deaf:
            self._hear_end()

    def _hear_end(self) -> None:
        """Tell that the client says no more; who wants to go on says so (`asyncio.Protocol.eof_received`)."""
        self._is_deaf = True
        if not self._protocol.eof_received():
            self.close()

    def eof_received(self) -> bool:
        """Tell that the client says no more, unless it has said so by TLS."""
        if not self._is_open:
            self._socket.close()
        elif not self._is_deaf:
            self._hear_end()
        return True

    def pause_writing(self) -> None:
        """Tell that the client does not read."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Tell that the client has read."""
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the socket is gone."""
        protocol, self._protocol = self._protocol, _NOBODY  # which holds us, too
        protocol.connection_lost(exc)

    # The handshake

    def _greet(self, data: bytes) -> None:
        """Take a part of the handshake."""
        if not self._is_greeted:
            if data[0] != HELLO:
                self._socket.write(http.refusal(_PLAIN).serialize())
                self._refuse("it speaks no TLS")
                return
            self._is_greeted = True
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._ssl = self._tls.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(data)
        if self._incoming.pending > _HANDSHAKE_LIMIT:
            self._socket.pause_reading()
        if not self._is_due:
            self._is_due = True
            self._tls.shake_hands_soon(self)

    def shake_hands(self) -> None:
        """Go on with the handshake."""
        self._is_due = False
        if self._socket.is_closing():
            return
        self._socket.resume_reading()
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._refuse(certificates.reason(error))
        else:
            self._is_open = True
            self._flush()
            pieces: list[bytes] = []
            self._decrypt(pieces)  # what has come with its end
            self._hand_on(pieces)

    def _refuse(self, why: str) -> None:
        """Hear no more of a client whose handshake failed: it closes, or the time for the head is up."""
        self._is_deaf = True
        LogEvent.TLS_FAILED.log(address=self._protocol.address or "unix", reason=why)
        if self._socket.can_write_eof():
            self._socket.write_eof()

    # The transport of whoever speaks on it

    def write(self, data: Any) -> None:
        """Send data."""
        if not data or self._is_mute:
            return
        if len(data) <= _RECORD:
            self._ssl.write(data)
            self._socket.write(self._outgoing.read())
            return
        records = []
        with memoryview(data) as view:
            for at in range(0, len(view), _RECORD):
                self._ssl.write(view[at : at + _RECORD])
                records.append(self._outgoing.read())
        self._socket.writelines(records)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send pieces of data; records are to be full, so they are joined."""
        self.write(b"".join(list_of_data))

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._socket.write(self._outgoing.read())

    def _say_end(self) -> None:
        """Tell the client that nothing follows (RFC 8446 §6.1)."""
        if self._is_open and not self._is_mute:
            with suppress(ssl.SSLError):  # it would like to read the client's end, too
                self._ssl.unwrap()
            self._flush()
        self._is_mute = True

    def write_eof(self) -> None:
        """Send no more; the client is still heard."""
        self._say_end()
        self._socket.write_eof()

    def can_write_eof(self) -> bool:
        """Return whether the socket can be half closed."""
        return self._socket.can_write_eof()

    def close(self) -> None:
        """Close the connection once everything has left."""
        if not self._socket.is_closing():
            self._say_end()
            self._socket.close()

    def abort(self) -> None:
        """Drop the connection."""
        self._socket.abort()

    def is_closing(self) -> bool:
        """Return whether the connection is closed, or will be."""
        return self._socket.is_closing()

    def pause_reading(self) -> None:
        """Read no more; all that has been read is decrypted already."""
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._socket.resume_reading()

    def is_reading(self) -> bool:
        """Return whether the socket is read."""
        return self._socket.is_reading()

    def get_write_buffer_size(self) -> int:
        """Return how many encrypted bytes have not left."""
        return self._socket.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low mark and the high mark."""
        return self._socket.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how many bytes may wait before `pause_writing`."""
        self._socket.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return `peercert`, the client's certificate (`ssl.SSLSocket.getpeercert`), or what the socket knows."""
        if name == "peercert":
            return (self._ssl.getpeercert() if self._is_open else None) or default
        return self._socket.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol speak on the connection."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who speaks on the connection."""
        found: asyncio.BaseProtocol = self._protocol
        return found
