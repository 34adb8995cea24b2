"""The responding half of an HTTP connection: responses go out in the order of their requests."""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Final

from msgspec import Raw
from websockets.http11 import Response

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.flushing import flush_soon
from bullmq_proxy.gateway.net.exchange import Exchange, refusal
from bullmq_proxy.gateway.net.sending_connection import LARGE
from bullmq_proxy.gateway.net.shared import Shared
from bullmq_proxy.gateway.net.writing_connection import WritingConnection

LINGER: Final = 5.0
"""Seconds in which a client reads its last response, and closes."""

_DROPPED: Final = 16 * 2**20  # bytes behind the last request that are read as fast as they come


class RespondingConnection(WritingConnection):
    """A connection that can respond and close.

    Attributes:
        address: of the client; empty on a Unix socket.
        key_name: of the last request, if it was refused though its key is right.
    """

    address: str
    key_name = ""

    def __init__(self, shared: Shared, transport: asyncio.Transport) -> None:
        """Make one for a socket."""
        super().__init__(shared)
        self.transport = transport
        self._exchanges: deque[Exchange] = deque()
        self._held = 0  # bytes of responses that are not first in line
        self._out: list[bytes | Raw] = []
        self._out_size = 0
        self._since = self.loop.time()  # that the client is to do something
        self._dropped = 0  # bytes behind the last request
        self._ending = False  # the last response is on its way
        self._is_half_closed = False  # by the client
        self._abort: asyncio.TimerHandle | None = None

    @property
    def _expects_more(self) -> bool:
        """Whether a request has come that is not begun yet."""
        return False

    def _responded(self) -> None:
        """Take note that a response has left."""

    def _flushed(self) -> None:
        """Take note that everything has been written."""

    def _hear_no_more(self) -> None:
        """Take no further request."""

    def refuse(self, error: GatewayError, path: str, account: Account) -> Response:
        """Return the refusal of a request, and count it."""
        response = refusal(error)
        self.refused(response, path, account.rights.grant.key)
        return response

    def refused(self, response: Response, path: str, key: str = "") -> None:
        """Count the response to a request if it is a refusal."""
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            self._shared.refusals.note(response.status_code, self.address, path, key)

    def finished(self, exchange: Exchange) -> None:
        """Send a response when it is its turn, and those behind it that have waited for it."""
        exchanges = self._exchanges
        if self.is_lost or not exchanges:
            return
        if exchange is not exchanges[0]:
            self._held += exchange.size
            return
        self._held += exchange.size
        while exchanges and exchanges[0].response is not None and not self._ending:
            first = exchanges.popleft()
            assert first.response is not None
            self._held -= first.size
            if not self._out:
                flush_soon(self.loop, self._flush)
            self._out.extend(first.response)
            self._out_size += first.size
            self._ending = first.is_last
        if not exchanges:
            self._since = self.loop.time()
        if self._out_size > self._shared.max_write_buffer:
            self._flush()
        self._responded()

    def _flush(self) -> None:
        out, self._out = self._out, []
        size, self._out_size = self._out_size, 0
        if self.is_lost or not out:
            return
        unread = self.transport.get_write_buffer_size()
        if size < LARGE:
            self.transport.write(b"".join(out))
        else:
            self.transport.writelines(out)
        now_unread = self.transport.get_write_buffer_size()
        if size >= LARGE or unread >= LARGE or self in self._shared.unread:
            self._shared.note_unread(self, now_unread)
        if unread and now_unread > self._shared.max_write_buffer:
            self.close_as_slow()
        elif self._ending or (self._is_half_closed and not self._exchanges and not self._expects_more):
            self._end()
        self._wake_writers()
        self._flushed()

    def _end(self) -> None:
        """Close our half behind the last response; to close at once would take it from a client that still sends."""
        self._ending = True
        self._hear_no_more()
        self._since = self.loop.time()
        if self._is_half_closed or not self.transport.can_write_eof():
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write_eof()
            self.transport.resume_reading()

    def _drop(self, size: int) -> None:
        """Forget what comes when nothing more is heard; a client may send a long body before it reads its refusal."""
        self._dropped += size
        if self._ending and self._dropped > _DROPPED:
            self._pause_for_a_while()

    @property
    def is_open(self) -> bool:
        """Whether what is sent goes out."""
        return not self.is_lost and not self._ending

    @property
    def write_buffer_size(self) -> int:
        """Bytes that the client has not taken yet, or must wait for."""
        size: int = self.transport.get_write_buffer_size()
        return size + self._out_size + self._held

    @property
    def _is_behind(self) -> bool:
        """Whether the client has yet to read, or something waits for its turn."""
        return self._writing_paused or bool(self._held)

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close the connection once the responses have left that are under way."""
        self.close_with(code, reason)

    def close_with(self, code: int, reason: str = "", timeout: float | None = None) -> None:
        """Close the connection; HTTP has no codes for that."""
        self._flush()
        self.transport.close()
        if self._abort is None:
            self._abort = self.loop.call_later(LINGER if timeout is None else timeout, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release what waits to be sent: the socket is gone."""
        super().connection_lost(exc)
        if self._abort is not None:
            self._abort.cancel()
        self._exchanges.clear()
