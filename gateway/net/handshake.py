"""The opening handshake of a WebSocket, from the server's side (RFC 6455 §4.2): refused, or accepted."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.utils import accept_key

from bullmq_proxy.gateway.access.credentials import SUBPROTOCOL, offered_subprotocols, offered_version
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net import frames, http
from bullmq_proxy.gateway.net.dates import date
from bullmq_proxy.gateway.net.exchange import SERVER
from bullmq_proxy.gateway.wire.closing import Refusal, RefusedError, cut_reason, refusal_of

_VERSION: Final = "13"
_TOKEN: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")


def refusal(request: Request) -> Response | None:
    """Return the refusal of a request that opens no WebSocket, or None. Offered extensions do not matter."""
    headers = request.headers
    if request.protocol != "HTTP/1.1":
        return _refuse("A WebSocket needs HTTP/1.1", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    if "upgrade" not in _words(headers, "Connection") or "websocket" not in _words(headers, "Upgrade"):
        message = "This is a WebSocket path: connect with a WebSocket client, which sends `Connection: Upgrade` and"
        return _refuse(f"{message} `Upgrade: websocket`", HTTPStatus.UPGRADE_REQUIRED)
    if headers.get_all("Sec-WebSocket-Version") != [_VERSION]:
        message = f"One header `Sec-WebSocket-Version: {_VERSION}` is needed"
        return _refuse(message, headers={"Sec-WebSocket-Version": _VERSION})
    if not _is_key(headers.get_all("Sec-WebSocket-Key")):
        return _refuse("One header `Sec-WebSocket-Key` is needed, with 16 bytes in base64")
    if not all(map(_TOKEN.fullmatch, offered_subprotocols(headers))):
        return _refuse("Sec-WebSocket-Protocol is no list of tokens")
    return None


def check_version(request: Request) -> None:
    """Refuse a client that offers only versions of our protocol which are not spoken here; raises GatewayError."""
    version = offered_version(request.headers)
    if version not in (SUBPROTOCOL, None):
        raise RefusedError(Refusal.VERSION, f"{SUBPROTOCOL} is spoken here, and no other version")


def closed(request: Request, error: GatewayError) -> bytes | None:
    """Return an answer that opens a WebSocket and closes it at once, with the code and reason of a refusal.

    None where the client has offered no version of our protocol, or cannot be answered so. The version is sent back
    that it has offered, though it may not be spoken here: else a browser would not show the code.
    """
    version = offered_version(request.headers)
    if version is None or refusal(request) is not None:
        return None
    return _ACCEPTED % (
        date().encode(),
        SERVER.encode(),
        accept_key(request.headers["Sec-WebSocket-Key"]).encode(),
        version.encode(),
        frames.close(refusal_of(error), cut_reason(error.message).encode()),
    )


_ACCEPTED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nDate: %b\r\nServer: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n%b"
)


def acceptance(request: Request) -> Response:
    """Return the answer that opens a WebSocket. Of the browsers' pair of subprotocols the key is never sent back."""
    headers = Headers(
        [
            ("Date", date()),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_key(request.headers["Sec-WebSocket-Key"])),
        ]
    )
    if SUBPROTOCOL in offered_subprotocols(request.headers):
        headers["Sec-WebSocket-Protocol"] = SUBPROTOCOL
    return Response(HTTPStatus.SWITCHING_PROTOCOLS, HTTPStatus.SWITCHING_PROTOCOLS.phrase, headers)


def _refuse(message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST, headers: Mapping[str, str] = {}) -> Response:
    return http.refusal(GatewayError(ErrorCode.INVALID_MESSAGE, message), status, headers)


def _words(headers: Headers, name: str) -> list[str]:
    return [word.strip(" \t").lower() for value in headers.get_all(name) for word in value.split(",")]


def _is_key(keys: list[str]) -> bool:
    try:
        return len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
