"""The requests of an HTTP connection, read from its bytes: llhttp (`httptools`) parses, `opening.py` has the rules.

A head that is refused, and a body that is too long, are answered before the body has come, and nothing is read behind
them: who disagrees about where a request ends shall not hide another one in it.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Final, Generic, Protocol, TypeVar

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct
from websockets.http11 import Request, Response

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net import http, opening
from bullmq_proxy.gateway.net.sending_connection import LARGE
from bullmq_proxy.gateway.net.shared import PartialMessage, Shared, Socket

_HEAD_TIMEOUT: Final = 5.0  # s from the first byte of a head to its end
_BODY_TIMEOUT: Final = 10.0  # s from there to the end of a body
_BODY_RATE: Final = 16_384  # bytes of a body that have a second more

T = TypeVar("T")
A_co = TypeVar("A_co", covariant=True)
_Head = tuple[str, bytes, str, list[tuple[bytes, bytes]]]
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_DIGITS: Final = 7  # of the length of a request that is taken whole: it has come in one piece


class Arrived(Struct, Generic[T]):
    """A request that has come as a whole.

    Attributes:
        method: GET where that is not known.
        what: was asked for, or its refusal.
        body: of the request.
        is_last: whether no other one comes on the connection.
    """

    method: str
    what: T | Response
    body: bytes
    is_last: bool


class Owner(Protocol[A_co]):
    """The connection whose requests are read."""

    def admit(self, request: Request) -> A_co | Response:
        """Return what a request asks for, or its refusal."""

    def refused(self, response: Response, path: str, key: str = "") -> None:
        """Count a refusal that `admit` has not returned."""

    def go_ahead(self) -> None:
        """Tell the client, which waits for it, to send the body (RFC 9110 §10.1.1)."""


class RequestReader(Generic[T]):
    """Reads the requests of one connection.

    Attributes:
        arrived: those that are whole, for the connection to take.
        is_deaf: nothing more is read.
        behind: what has come behind a request for a WebSocket, with which requests end; None while there is none.
        since: the loop time at which the request began that is being read.
    """

    def __init__(self, shared: Shared, owner: Owner[T], socket: Socket) -> None:
        """Make one for a connection, which is both `owner` and `socket`."""
        self.arrived: list[Arrived[T]] = []
        self.is_deaf = False
        self.behind: bytes | None = None
        self.since = 0.0
        self._shared = shared
        self._owner = owner
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._known: tuple[_Head, T] | None = None  # the last head: clients send the same one again and again
        self._again: tuple[bytes, bytes, str, T] | None = None  # its bytes before and behind the length of the body
        self._comes_again = False  # the head of the last request was the one before it
        self._begun = 0  # requests in the bytes that are being parsed
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._length = 0  # of the body, as far as the head says it
        self._is_chunked = self._expects = False  # what the last head that was not known has said
        self._body: list[bytes] = []
        self._size = 0  # of the head, and then of the body
        self._unheld = 0  # bytes of the body that do not count to the budget yet
        self._what: T | Response | None = None  # the request whose body comes
        self._in_message = False
        self._partial: PartialMessage | None = None

    @property
    def is_in_message(self) -> bool:
        """Whether a request has begun and is not whole."""
        return self._in_message

    @property
    def is_in_body(self) -> bool:
        """Whether its head is whole."""
        return self._what is not None

    @property
    def body_left(self) -> int:
        """Bytes of its body that are to come, as far as the head says it."""
        return max(self._length - self._size, 0) if self.is_in_body else 0

    @property
    def waits_for_room(self) -> bool:
        """Whether a long body waits until there is room for it."""
        return self._partial is not None and self._partial.waits

    def forget_head(self) -> None:
        """Check the next head again, even if it is the same one."""
        self._known = self._again = None

    def is_late(self, now: float) -> bool:
        """Return whether the request that is being read takes too long; `now` in loop time."""
        allowed = _BODY_TIMEOUT + self._size / _BODY_RATE if self.is_in_body else _HEAD_TIMEOUT
        return self._in_message and now - self.since > allowed

    def close(self) -> None:
        """Hold nothing any more."""
        self.is_deaf = True
        self.arrived.clear()
        self._forget_message()
        self.forget_head()
        del self._parser, self._owner, self._socket  # which hold us, too

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket."""
        if self._again is not None and not self._in_message and not (data := self._take_again(data)):
            return
        self._begun = 0
        try:
            self._parser.feed_data(data)
            if self._comes_again and self._begun == 1 and not self._in_message:
                self._remember(data)
        except HttpParserUpgrade as upgrade:
            self.is_deaf = True
            if self.arrived and isinstance(self.arrived[-1].what, Request):
                self.behind = data[upgrade.args[0] :]
            elif self.arrived:  # to what is not spoken here: the request is answered as if it did not say so
                self.arrived[-1].is_last = True
        except HttpParserError:
            if not self.is_deaf:
                self.refuse("This is no HTTP/1.1 request")
        if self._unheld:
            self._hold()

    def _remember(self, data: bytes) -> None:
        """Know a request of POST by its bytes when its head has come twice, with whatever length of its body."""
        self._comes_again = False
        if self._known is None or self._is_chunked or self._expects:
            return
        (method, *_), what = self._known
        length, end = _LENGTH.search(data), data.find(b"\r\n\r\n") + 4
        if method == "POST" and length is not None and length.end() < end:
            self._again = data[: length.start(1)], data[length.end() : end], method, what

    def _take_again(self, data: bytes) -> bytes:
        """Take the requests that come first and are known by their bytes; return the rest, which the parser gets.

        It has found no fault with these bytes before, and is between two requests.
        """
        at, most = 0, self._shared.max_message_size
        while self._again is not None and data.startswith(self._again[0], at):
            before, behind, method, what = self._again
            first = at + len(before)
            end = data.find(behind, first, first + _DIGITS + len(behind))
            length = data[first:end]
            start = end + len(behind)
            if end < 0 or not length.isdigit() or (size := int(length)) > most or start + size > len(data):
                break
            at = start + size
            self.arrived.append(Arrived(method, what, data[start:at], False))
        return data[at:] if at else data

    def _hold(self) -> None:
        """Count the bytes of a body that is not whole yet; a long one begins when there is room."""
        size, self._unheld = self._unheld, 0
        if self._partial is not None:
            self._partial.hold(size)
            return
        self._partial = PartialMessage(self._socket, self._shared)
        self._partial.hold(size)
        if self._length > LARGE:
            self._partial.wait_for_room()

    def refuse(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        """Answer what is no request, and hear no more."""
        response = http.refusal(GatewayError(ErrorCode.INVALID_MESSAGE, message), status)
        self._owner.refused(response, self._path)
        self.arrive(response, is_last=True)

    def arrive(self, what: T | Response, *, is_last: bool) -> None:
        """Take a request as whole."""
        self.is_deaf = self.is_deaf or is_last
        self.arrived.append(Arrived(self._method(), what, b"".join(self._body), is_last))
        self._forget_message()

    @property
    def _path(self) -> str:
        return self._url.decode("latin-1")

    def _method(self) -> str:
        return self._parser.get_method().decode() if self._in_message else "GET"

    def _forget_message(self) -> None:
        self._in_message = False
        self._what = None
        self._body = []
        self._unheld = 0
        if self._partial is not None:
            self._partial.let_go()
            self._partial = None

    # What the parser finds

    def on_message_begin(self) -> None:
        """Begin with a head."""
        self._in_message = True
        self._begun += 1
        self.since = self._loop.time()
        self._url = b""
        self._fields = []
        self._length = 0
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if len(name) == 14 and name.lower() == b"content-length":
            self._length = int(value) if value.isdigit() and len(value) < 20 else -1  # which the parser refuses
        else:
            self._fields.append((name, value))
        self._count(len(name) + len(value) + 4)  # the colon, a space, and the line's end

    def _count(self, size: int) -> None:
        self._size += size
        if (self._size > opening.HEAD_LIMIT or len(self._fields) > opening.FIELDS) and not self.is_deaf:
            self.refuse("The headers are too long, or too many", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Check the head."""
        if self.is_deaf:
            return
        self._size = 0
        head: _Head = (self._method(), self._url, self._parser.get_http_version(), self._fields)
        if self._known is not None and self._known[0] == head:
            self._what = self._known[1]
            self._comes_again = self._again is None
        else:
            self.forget_head()
            self._what = what = self._check(head)
            self._known = None if isinstance(what, Response) else (head, what)
        if self.is_deaf or not (self._length or self._is_chunked):
            return
        if head[0] in http.METHODS:
            self.refuse("A request of this method with a body is not answered here")
            return
        if self._length > self._shared.max_message_size:
            self._what = self._too_long()
        if isinstance(self._what, Response):  # the body is not waited for
            self.arrive(self._what, is_last=True)
        elif self._expects:
            self._owner.go_ahead()

    def _check(self, head: _Head) -> T | Response:
        names = {name.lower(): value.lower() for name, value in self._fields}
        self._is_chunked = b"transfer-encoding" in names
        self._expects = names.get(b"expect") == b"100-continue"
        request = opening.check(*head)
        if isinstance(request, Response):
            self._owner.refused(request, self._path)
            self.arrive(request, is_last=True)
            return request
        return self._owner.admit(request)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self.is_deaf:
            return
        self._size += len(body)
        if self._size > self._shared.max_message_size:
            self.arrive(self._too_long(), is_last=True)
            return
        self._body.append(body)
        self._unheld += len(body)

    def _too_long(self) -> Response:
        most = self._shared.max_message_size
        error = GatewayError(ErrorCode.INVALID_MESSAGE, f"The body has more than {most} bytes (max_message_size)")
        response = http.refusal(error, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self._owner.refused(response, self._path)
        return response

    def on_message_complete(self) -> None:
        """Take the request."""
        if not self.is_deaf and self._what is not None:
            self.arrive(self._what, is_last=not self._parser.should_keep_alive())
