"""Plain HTTP on the same port: health, readiness, metrics, and every refusal of a handshake as JSON."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Response

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.json_text import encode, error_json

_JSON: Final = "application/json; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"

# The codes for the statuses with which the library refuses a handshake.
_CODES: Final = {
    HTTPStatus.BAD_REQUEST: ErrorCode.INVALID_MESSAGE,
    HTTPStatus.FORBIDDEN: ErrorCode.FORBIDDEN,
    HTTPStatus.NOT_FOUND: ErrorCode.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: ErrorCode.INVALID_MESSAGE,
    HTTPStatus.UPGRADE_REQUIRED: ErrorCode.INVALID_MESSAGE,
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: ErrorCode.INVALID_MESSAGE,
    HTTPStatus.SERVICE_UNAVAILABLE: ErrorCode.SHUTTING_DOWN,
}
# Headers that a refusal with this status has (RFC 9110 §11.6.1, §10.2.3).
_HEADERS: Final[dict[HTTPStatus, dict[str, str]]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "1"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}


def respond(status: HTTPStatus, body: bytes, content_type: str, headers: Mapping[str, str] = {}) -> Response:
    """Return a whole HTTP response; `headers` are added to those that every response has."""
    fields = Headers(
        [
            ("Date", email.utils.formatdate(usegmt=True)),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            ("Content-Type", content_type),
            *headers.items(),
        ]
    )
    return Response(status.value, status.phrase, fields, body)


def text(body: str, content_type: str = _TEXT) -> Response:
    """Return a page of text."""
    return respond(HTTPStatus.OK, body.encode(), content_type)


def refusal(error: GatewayError, status: HTTPStatus | None = None, headers: Mapping[str, str] = {}) -> Response:
    """Return a refusal, with the body that an error has on the wire.

    Args:
        error: the reason.
        status: None for the one of the error's code.
        headers: beside those that the status asks for.
    """
    status = error.code.http_status if status is None else status
    headers = {**_HEADERS.get(status, {}), **headers}
    return respond(status, b'{"err":%b}' % error_json(error), _JSON, headers)


def json_page(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return a page of JSON."""
    return respond(status, encode(value), _JSON)


def unify(response: Response) -> Response:
    """Turn a refusal of the library's into the form that all refusals have; an unknown status is our bug."""
    status = HTTPStatus(response.status_code)
    code = _CODES.get(status, ErrorCode.INTERNAL)
    message = bytes(response.body or b"").decode(errors="replace").strip().split("\n")[0]
    headers = {name: response.headers[name] for name in ("Allow", "Upgrade") if name in response.headers}
    return refusal(GatewayError(code, message), status, headers)
