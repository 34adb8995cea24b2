"""Plain HTTP on the same port: health, readiness, metrics, and every refusal of a handshake as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Response

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net.dates import date
from bullmq_proxy.gateway.values.json_text import error_json
from bullmq_proxy.gateway.values.text import bytes_of, printable

JSON: Final = "application/json; charset=utf-8"
TEXT: Final = "text/plain;charset=utf-8"  # without a space, as the ancestor writes it
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"

Page = bytes | Response
"""The answer to a request for a page: JSON text, or a whole response."""

METHODS: Final = ("GET", "HEAD", "OPTIONS")
"""Methods of requests without a body."""

# Headers that a refusal with this status has (RFC 9110 §11.6.1, §15.5.22, §10.2.3).
_HEADERS: Final[dict[HTTPStatus, dict[str, str]]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.UPGRADE_REQUIRED: {"Upgrade": "websocket"},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "1"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}


def headers_of(status: HTTPStatus) -> Mapping[str, str]:
    """Return the headers that a refusal with this status has."""
    return _HEADERS.get(status, {})


def respond(status: HTTPStatus, body: bytes, content_type: str, headers: Mapping[str, str] = {}) -> Response:
    """Return a whole HTTP response; `headers` are added to those that every response has."""
    fields = Headers(
        [
            ("Date", date()),
            ("Connection", "close, Upgrade" if "Upgrade" in headers else "close"),  # RFC 9110 §7.8
            ("Content-Length", str(len(body))),
            ("Content-Type", content_type),
            *headers.items(),
        ]
    )
    return Response(status.value, status.phrase, fields, body)


def without_body(response: Response) -> Response:
    """Return the answer to HEAD: the headers of the answer to GET, and nothing more (RFC 9110 §9.3.2)."""
    response.body = b""
    return response


def unless_known(response: Response, known: str) -> Response:
    """Return a page, or the answer that it has not changed to who knows its tag (RFC 9110 §13.1.2).

    Args:
        response: the page.
        known: the header `If-None-Match` of the request.
    """
    tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
    if response.headers.get("ETag") not in tags:
        return response
    kept = {name: value for name, value in response.headers.raw_items() if name in ("ETag", "Cache-Control", "Vary")}
    unchanged = respond(HTTPStatus.NOT_MODIFIED, b"", TEXT, kept)
    del unchanged.headers["Content-Length"], unchanged.headers["Content-Type"]
    return unchanged


def method_not_allowed(methods: Sequence[str]) -> Response:
    """Return the refusal of another method than these."""
    shown = ", ".join(methods)
    error = GatewayError(ErrorCode.INVALID_MESSAGE, f"Only {shown} can be asked for here")
    return refusal(error, HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": shown})


def options(methods: Sequence[str]) -> Response:
    """Return the answer to OPTIONS."""
    return respond(HTTPStatus.OK, b"", TEXT, {"Allow": ", ".join(methods)})


def preflight(methods: Sequence[str]) -> Response:
    """Return the answer to a browser that asks whether a page may send a request (Fetch §4.8)."""
    response = respond(HTTPStatus.NO_CONTENT, b"", TEXT, {"Allow": ", ".join(methods)})
    del response.headers["Content-Length"], response.headers["Content-Type"]
    for name, value in _PREFLIGHT.items():
        response.headers[name] = value
    response.headers["Access-Control-Allow-Methods"] = ", ".join(methods)
    return response


_PREFLIGHT: Final = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID, traceparent, tracestate",
    "Access-Control-Max-Age": "600",
}


def text(body: str, content_type: str = TEXT, headers: Mapping[str, str] = {}) -> Response:
    """Return a page of text."""
    return respond(HTTPStatus.OK, body.encode(), content_type, headers)


def refusal(error: GatewayError, status: HTTPStatus | None = None, headers: Mapping[str, str] = {}) -> Response:
    """Return a refusal, with the body that an error has on the wire.

    Args:
        error: the reason.
        status: None for the one of the error's code.
        headers: beside those that the status asks for.
    """
    status = error.code.http_status if status is None else status
    headers = {**headers_of(status), **headers}
    return respond(status, b'{"err":%b}' % error_json(error), JSON, headers)


def text_refusal(error: GatewayError, status: HTTPStatus) -> Response:
    """Return a refusal in the ancestor's form: the bare message."""
    return respond(status, bytes_of(printable(error.message)), TEXT, headers_of(status))
