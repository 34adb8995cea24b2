"""Plain HTTP on the same port: health, readiness, metrics, and every refusal of a handshake as JSON."""

from __future__ import annotations

import email.utils
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Response

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.json_text import encode, error_json

_JSON: Final = "application/json; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"

# What the library says when it refuses a handshake, as our codes.
_CODES: Final = {
    HTTPStatus.FORBIDDEN: ErrorCode.FORBIDDEN,
    HTTPStatus.NOT_FOUND: ErrorCode.NOT_FOUND,
    HTTPStatus.INTERNAL_SERVER_ERROR: ErrorCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: ErrorCode.SHUTTING_DOWN,
}


def respond(status: HTTPStatus, body: bytes, content_type: str, **headers: str) -> Response:
    """A whole HTTP response; the names of `headers` with _ for -."""
    fields = Headers(
        [
            ("Date", email.utils.formatdate(usegmt=True)),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            ("Content-Type", content_type),
            *((name.replace("_", "-"), value) for name, value in headers.items()),
        ]
    )
    return Response(status.value, status.phrase, fields, body)


def text(body: str, content_type: str = _TEXT) -> Response:
    """A page of text."""
    return respond(HTTPStatus.OK, body.encode(), content_type)


def refusal(status: HTTPStatus, error: GatewayError, **headers: str) -> Response:
    """A refusal, with the same body that an error has on the wire."""
    return respond(status, b'{"err":%b}' % error_json(error), _JSON, **headers)


def json_page(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A page of JSON."""
    return respond(status, encode(value), _JSON)


def unify(response: Response) -> Response:
    """One of the library's own refusals in the form that all of ours have."""
    status = HTTPStatus(response.status_code)
    code = _CODES.get(status, ErrorCode.INVALID_MESSAGE)
    message = bytes(response.body or b"").decode(errors="replace").strip().split("\n")[0]
    headers = {name: response.headers[name] for name in ("Allow", "Upgrade") if name in response.headers}
    return refusal(status, GatewayError(code, message), **headers)
