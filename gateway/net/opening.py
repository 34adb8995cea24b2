"""The first bytes of a connection: the head of an HTTP request, or whatever else came instead of one.

The library's parser drops what it does not like without a word, and answers the rest as plain text. Here every client
that speaks HTTP gets a status and the body that all our errors have.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from websockets.exceptions import HeaderLineTooLong, RequestLineTooLong, TooManyHeaders
from websockets.http11 import Response

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net import http

LINE_LIMIT: Final = 8192  # bytes; the library's own limit for a line
HEAD_LIMIT: Final = 64 * 1024  # bytes; as common servers have it, and what a client may make us keep

_END: Final = b"\r\n\r\n"
_METHOD: Final = re.compile(rb"[A-Z]{1,20}")
_REQUEST_LINE: Final = re.compile(rb"[A-Z]{1,20} \S+ HTTP/1\.[01]")


def end_of_head(head: bytearray) -> int:
    """Return where the head ends; 0 while it is not complete."""
    return head.find(_END) + len(_END) if _END in head else 0


def judge(head: bytearray) -> Response | None:
    """Return the refusal of a head that may still be on its way, as soon as it is sure; None lets it go on."""
    line, complete, _ = head.partition(b"\r\n")
    if not b"GET ".startswith(line[:4]):
        return _judge_other(bytes(line), complete=bool(complete))
    if len(line) > LINE_LIMIT:
        return _too_long(HTTPStatus.REQUEST_URI_TOO_LONG, "The request line is too long")
    if (end_of_head(head) or len(head)) > HEAD_LIMIT:
        return _too_long(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too long")
    return None


def _judge_other(line: bytes, *, complete: bool) -> Response | None:
    """Return the refusal of a head that is no GET: another method, or no HTTP at all."""
    if not complete and len(line) <= LINE_LIMIT and _METHOD.fullmatch(line.partition(b" ")[0]):
        return None
    if not _REQUEST_LINE.fullmatch(line):
        return _no_http()
    error = GatewayError(ErrorCode.INVALID_MESSAGE, "Only GET is answered here")
    response = http.refusal(error, HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET"})
    if line.startswith(b"HEAD "):
        response.body = b""  # RFC 9110 §9.3.2: the headers of the answer, and nothing more
    return response


def refusal_of(error: BaseException | None) -> Response:
    """Return the answer to a complete head that the library's parser did not take, and why it did not."""
    if isinstance(error, RequestLineTooLong):
        return _too_long(HTTPStatus.REQUEST_URI_TOO_LONG, "The request line is too long")
    if isinstance(error, HeaderLineTooLong | TooManyHeaders):
        return _too_long(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too long, or too many")
    return _no_http()


def _no_http() -> Response:
    return http.refusal(GatewayError(ErrorCode.INVALID_MESSAGE, "This is no HTTP/1.1 request, or one with a body"))


def _too_long(status: HTTPStatus, message: str) -> Response:
    return http.refusal(GatewayError(ErrorCode.INVALID_MESSAGE, message), status)
