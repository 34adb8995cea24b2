"""A connection to an endpoint: it carries one request at a time, and reads the answer.

llhttp (`httptools`) parses. What it does not know is here: that an answer is one to a request, how long it may be, and
when nothing more can be asked on a connection.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from bullmq_proxy.gateway.webhooks.answers import Answer, NoAnswer

LARGEST_ANSWER: Final = 2**20
"""Bytes of an answer's body that are read."""

LONGEST_HEAD: Final = 2**16
"""Bytes of an answer that are no body: its head, those of interim answers before it, and trailers."""

_FRAMING: Final = 8  # bytes around each byte of a body that are no head: chunks can be that small
_NO_BODY: Final = (204, 304)  # whatever their headers say (RFC 9112 §6.3)


class Owner(Protocol):
    """The owner of a connection, who takes what comes of it."""

    def answered(self, connection: Connection, answer: Answer | NoAnswer) -> None:
        """Take the answer to the request; the connection can be asked again if it is `is_open`."""

    def broken(self, connection: Connection, error: Exception | None) -> None:
        """Note that the connection has ended, with its request if it has one; `error` is None for its regular end."""


class Connection(asyncio.Protocol):
    """A connection to an endpoint.

    Attributes:
        request: that is under way, as its owner knows it.
        opened_at: loop time.
        idle_since: loop time.
        is_open: whether another request can be sent on it.
        answers: that have come on it.
        received: bytes of the answer to the request.
    """

    def __init__(self, owner: Owner, socket: socket.socket, now: float) -> None:
        """Make one on a socket that is connected; `now` in loop time."""
        self.request: object = None
        self.opened_at = self.idle_since = now
        self.is_open = True
        self.answers = 0
        self.received = 0
        self._owner = owner
        self._incoming = select.poll()
        self._incoming.register(socket, select.POLLIN)
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._begin()

    def _begin(self) -> None:
        """Expect an answer."""
        self.received = 0
        self._body = bytearray()
        self._is_whole = self._is_cut = False
        self._forget_head()

    def _forget_head(self) -> None:
        self._status = 0
        self._content_type = self._retry_after = b""
        self._is_framed = self._has_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: object, message: bytes) -> None:
        """Send a request, with one write."""
        self.request = request
        self._begin()
        self._transport.write(message)

    def is_quiet(self) -> bool:
        """Return whether nothing has come that nobody has asked for, nor the end, which a request might meet."""
        return self.is_open and not self._transport.is_closing() and not self._incoming.poll(0)

    def close(self) -> None:
        """Close it at once; a request that is under way is forgotten."""
        self.is_open = False
        self.request = None
        self._transport.abort()

    # What comes

    def data_received(self, data: bytes) -> None:
        """Read a piece of an answer."""
        if self.request is None:  # nobody has asked
            self.close()
            return
        self.received += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.is_open = False
            if not self._is_whole:
                self._fail(NoAnswer("The endpoint's answer is no HTTP"))
                return
        if self._is_whole:
            self._answer()
        elif self.received - len(self._body) > LONGEST_HEAD + _FRAMING * len(self._body):
            self._fail(NoAnswer(f"The head of the endpoint's answer is longer than {LONGEST_HEAD} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of an answer that has no other one, or give the request up."""
        self.is_open = False
        if self.request is not None and exc is None and self._status >= 200 and not self._is_framed:
            self._answer()
        self._owner.broken(self, exc)
        del self._parser, self._owner  # the parser holds us, too

    def _answer(self) -> None:
        """Hand the answer over."""
        self.answers += 1
        if self._transport.get_write_buffer_size():  # the endpoint has not waited for the whole request
            self.is_open = False
        if self._is_cut and 200 <= self._status < 300:
            self._fail(NoAnswer(f"The endpoint's answer is longer than {LARGEST_ANSWER} bytes"))
            return
        content_type, retry_after = self._content_type.decode("latin-1"), self._retry_after.decode("latin-1")
        self._owner.answered(self, Answer(self._status, content_type, retry_after, bytes(self._body)))

    def _fail(self, why: NoAnswer) -> None:
        self.is_open = False
        self._owner.answered(self, why)

    # What the parser finds

    def on_message_begin(self) -> None:
        """Begin with the head of an answer; one that follows the answer is for no request."""
        if self._is_whole:
            self.is_open = False
        else:
            self._forget_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, and no trailer."""
        if self._status or self._is_whole:
            return
        name = name.lower()
        if name == b"content-type":
            self._content_type = value
        elif name == b"retry-after":
            self._retry_after = value
        elif name == b"content-length":
            self._is_framed = True
            self._has_body = bool(value.strip(b"0"))
        elif name == b"transfer-encoding":
            self._is_framed = self._has_body = True

    def on_headers_complete(self) -> None:
        """Take the status."""
        if self._is_whole:
            return
        if not self._parser.get_http_version().startswith("1."):
            raise ValueError("not HTTP/1")  # which the parser passes on as an error of its own
        self._status = self._parser.get_status_code()
        if self._status in _NO_BODY and self._has_body:  # it may follow all the same
            self._is_whole = True
            self.is_open = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._is_whole or self._status < 200:
            return
        self._body += body
        if len(self._body) > LARGEST_ANSWER:
            self._is_whole = self._is_cut = True
            self.is_open = False

    def on_message_complete(self) -> None:
        """Note the end of an answer; an interim one is none (RFC 9110 §15.2)."""
        if self._is_whole or self._status < 200:
            return
        self._is_whole = True
        self.is_open = self.is_open and self._parser.should_keep_alive()
