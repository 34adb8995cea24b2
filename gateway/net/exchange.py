"""One request of an HTTP connection and its response, which leaves when those before it have left."""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from typing import Final, Protocol

from msgspec import Raw
from websockets.datastructures import Headers
from websockets.http11 import Response

from bullmq_proxy.gateway import __version__
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.net import http
from bullmq_proxy.gateway.net.dates import date
from bullmq_proxy.gateway.sessions.interfaces import Result
from bullmq_proxy.gateway.values.json_text import error_json
from bullmq_proxy.gateway.wire.routes import AncestorError, MethodNotAllowedError

SERVER: Final = f"bullmq-proxy/{__version__}"
_OK: Final = b"HTTP/1.1 200 OK\r\nDate: %%b\r\nServer: %b\r\nContent-Type: %b\r\nContent-Length: %%d\r\n%%b\r\n"
_JSON_OK: Final = _OK % (SERVER.encode(), http.JSON.encode())
_TEXT_OK: Final = _OK % (SERVER.encode(), http.TEXT.encode())
_CLOSE: Final = b"Connection: close\r\n"


class Outlet(Protocol):
    """The connection of an exchange."""

    def finished(self, exchange: Exchange) -> None:
        """Send a response when it is its turn."""

    @property
    def is_ending(self) -> bool:
        """Whether the next response is the last one."""


class Exchange:
    """A request that has been taken.

    Attributes:
        response: its parts, once it is known.
        size: bytes of these.
        is_last: whether the connection ends with the response.
    """

    __slots__ = ("_is_head", "_more", "_outlet", "is_last", "response", "size")

    def __init__(self, outlet: Outlet, more: bytes, *, is_head: bool, is_last: bool) -> None:
        """Take a request.

        Args:
            outlet: its connection.
            more: header lines of the response, each with its end.
            is_head: whether it asks for the headers alone.
            is_last: whether the client sends no further one.
        """
        self.response: tuple[bytes | Raw, ...] | None = None
        self.size = 0
        self.is_last = is_last
        self._outlet = outlet
        self._more = more
        self._is_head = is_head

    def reply(self, result: Result) -> None:
        """Respond with what a call ends with."""
        if isinstance(result, bytes):
            self.respond_json(b'{"ok":', result, b"}")
        elif isinstance(result, tuple):
            self.respond_json(b'{"ok":', *result, b"}")
        elif isinstance(result, MethodNotAllowedError | AncestorError):
            self.respond(refusal(result))
        else:
            self.respond_json(b'{"err":%b}' % error_json(result), head=_head(result.code.http_status))

    def respond_text(self, *body: bytes | Raw) -> None:
        """Respond with text in the ancestor's form, and status 200."""
        self.respond_json(*body, head=_TEXT_OK)

    def respond_json(self, *body: bytes | Raw, head: bytes = _JSON_OK) -> None:
        """Respond with JSON text, and status 200 unless `head`, from which the head is made, has another one."""
        length = sum(map(len, body))
        more = self._more + _CLOSE if self._ends() else self._more
        head = head % (date().encode(), length, more)
        self._finish((head,) if self._is_head else (head, *body))

    def respond(self, response: Response) -> None:
        """Respond with a page or a refusal."""
        headers = response.headers
        headers["Server"] = SERVER
        connection = ["close"] if self._ends() else []
        connection += ["Upgrade"] if "Upgrade" in headers else []  # RFC 9110 §7.8
        del headers["Connection"]
        if connection:
            headers["Connection"] = ", ".join(connection)
        with_lines(response, self._more)
        self._finish(((http.without_body(response) if self._is_head else response).serialize(),))

    def _ends(self) -> bool:
        self.is_last = self.is_last or self._outlet.is_ending
        return self.is_last

    def _finish(self, response: tuple[bytes | Raw, ...]) -> None:
        self.response = response
        self.size = sum(map(len, response))
        self._outlet.finished(self)


@cache
def _head(status: HTTPStatus) -> bytes:
    """Return what the head of a refusal in JSON is made from."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in http.headers_of(status).items())
    _, rest = _JSON_OK.split(b"\r\n", 1)
    return b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) + lines.encode() + rest


def refusal(error: GatewayError) -> Response:
    """Return the response to a request that is refused, with the status of the error."""
    if isinstance(error, MethodNotAllowedError):
        return http.refusal(error, HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": ", ".join(error.methods)})
    if isinstance(error, AncestorError):
        return http.text_refusal(error, error.status)
    return http.refusal(error)


def accepts_json(headers: Headers) -> bool:
    """Return whether a request accepts JSON alone: the libraries of the ancestor's clients name JSON beside `*/*`."""
    accepted = ",".join(headers.get_all("Accept")).split(",")
    return all(each.partition(";")[0].strip().lower() == "application/json" for each in accepted)


def prefers_html(headers: Headers) -> bool:
    """Return whether a request wants HTML rather than text, as browsers do (RFC 9110 §12.5.1)."""
    weights = {}
    for each in ",".join(headers.get_all("Accept")).lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        weights[kind] = next((_weight(part) for part in parameters if part.startswith("q=")), 1.0)
    html, text = (
        next((weights[kind] for kind in (wanted, "text/*", "*/*") if kind in weights), 0.0)
        for wanted in ("text/html", "text/plain")
    )
    return html > text


def _weight(parameter: str) -> float:
    found = re.fullmatch(r"q=([01](?:\.[0-9]{0,3})?)", parameter)
    return float(found[1]) if found else 0.0


def cross_origin(headers: Headers) -> bytes:
    """Return the header lines that let a page of another origin read a response (Fetch §3.2.3)."""
    origin = headers.get("Origin")
    return b"" if origin is None else f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n".encode("latin-1")


def with_lines(response: Response, lines: bytes) -> Response:
    """Add header lines to a response."""
    for line in lines.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        response.headers[name] = value
    return response
