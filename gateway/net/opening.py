"""The first bytes of a connection: the head of a request as RFC 9112 has it, or whatever else came instead of one.

Every client that speaks HTTP gets a status and the body that all our errors have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net import http

HEAD_LIMIT: Final = 64 * 1024  # bytes; as common servers have it, and what a client may make us keep
_LINE_LIMIT: Final = 8192  # bytes of the request line, and of each header
FIELDS: Final = 128  # headers

_END: Final = b"\r\n\r\n"
_TOKEN: Final = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]"
_METHOD: Final = re.compile(rb"%b{1,20}(?: |\Z)" % _TOKEN)
_REQUEST_LINE: Final = re.compile(rb"(%b{1,20}) ([!-~]+) HTTP/([0-9])\.([0-9])" % _TOKEN)
_FIELD: Final = re.compile(rb"(%b+):[ \t]*([\t -~\x80-\xff]*)" % _TOKEN)
_ABSOLUTE: Final = re.compile(r"(?:https?|wss?)://([^/?#]+)(.*)", re.IGNORECASE)
_HOST: Final = re.compile(r"(?:\[[-\w.~!$&'()*+,;=:%]+\]|[-\w.~!$&'()*+,;=%]*)(?::[0-9]*)?", re.ASCII)


class _Refused(Exception):
    """The head cannot be used."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def judge(head: bytearray, latest: int) -> Request | Response | None:
    """Return the request once its head is complete, a refusal as soon as one is sure, and None in between.

    Args:
        head: all that has come; an empty line in front is taken out of it.
        latest: bytes of it that have just come: one that comes byte by byte is not read from its beginning each time.
    """
    if head.startswith(b"\r\n"):  # RFC 9112 §2.2: an empty line in front is ignored
        del head[:2]
    asks_for_no_body = head.startswith(b"HEAD ")
    try:
        return _judge(head, latest)
    except _Refused as refused:
        response = http.refusal(GatewayError(ErrorCode.INVALID_MESSAGE, refused.message), refused.status)
        return http.without_body(response) if asks_for_no_body else response


def _judge(head: bytearray, latest: int) -> Request | None:
    if not _METHOD.match(head, 0, 21) and bytes(head) not in (b"", b"\r"):
        raise _no_http()
    line = head.find(b"\n", 0, _LINE_LIMIT + 2)
    if line < 0 and len(head) > _LINE_LIMIT:
        raise _Refused("The request line is too long", HTTPStatus.REQUEST_URI_TOO_LONG)
    seen = len(head) - latest
    if line >= max(seen, 0) and not _REQUEST_LINE.fullmatch(head[: line + 1].removesuffix(b"\r\n")):
        raise _no_http()
    end = head.find(_END, max(seen - len(_END), 0))
    if (end if end >= 0 else len(head)) > HEAD_LIMIT:
        raise _too_much()
    if end < 0:
        return None
    return _read(bytes(head[:end]).split(b"\r\n"))


def behind(head: bytearray) -> bytes:
    """Return what has come behind a complete head."""
    return bytes(head.partition(_END)[2])


def check(method: str, target: bytes, version: str, fields: Iterable[tuple[bytes, bytes]]) -> Request | Response:
    """Return the request that a parser has read, or its refusal: the rules are those of `judge`."""
    line = b"%b %b HTTP/%b" % (method.encode(), target, version.encode())
    try:
        if len(line) > _LINE_LIMIT:
            raise _Refused("The request line is too long", HTTPStatus.REQUEST_URI_TOO_LONG)
        return _read([line, *(b"%b:%b" % field for field in fields)])
    except _Refused as refused:
        return http.refusal(GatewayError(ErrorCode.INVALID_MESSAGE, refused.message), refused.status)


def _read(lines: list[bytes]) -> Request:
    """Read the lines of a head."""
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise _no_http()
    method, target = match[1].decode(), match[2].decode()
    if match[3] != b"1":
        raise _Refused("HTTP/1.1 is spoken here", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    protocol = "HTTP/1.0" if match[4] == b"0" else "HTTP/1.1"  # RFC 9110 §2.5: a later one is read as the one we know
    headers = _read_fields(lines[1:])
    hosts = headers.get_all("Host")
    if len(hosts) > 1 or (not hosts and protocol == "HTTP/1.1") or not all(map(_HOST.fullmatch, hosts)):
        raise _Refused("A request needs one header `Host`, with the host and port of the URL")
    if method in http.METHODS and _has_body(headers):
        raise _Refused("A request of this method with a body is not answered here")
    if _is_ambiguous(protocol, headers):
        raise _Refused("The body of a request has one length: `Content-Length`, or `Transfer-Encoding: chunked`")
    return Request(_origin_form(method, target, headers), headers, method, protocol)


def _read_fields(lines: list[bytes]) -> Headers:
    unfolded: list[bytes] = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and unfolded:  # RFC 9112 §5.2
            unfolded[-1] += b" " + line.strip(b" \t")
        else:
            unfolded.append(line)
    if len(unfolded) > FIELDS or max(map(len, unfolded), default=0) > _LINE_LIMIT:
        raise _too_much()
    headers = Headers()
    for line in unfolded:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise _no_http()
        headers[match[1].decode()] = match[2].rstrip(b" \t").decode("latin-1")
    return headers


def _is_ambiguous(protocol: str, headers: Headers) -> bool:
    """Return whether somebody else may see the end of the body elsewhere (RFC 9112 §6.1): so requests are smuggled."""
    codings = [each.lower() for each in headers.get_all("Transfer-Encoding")]
    return bool(codings) and (protocol == "HTTP/1.0" or "Content-Length" in headers or codings != ["chunked"])


def _has_body(headers: Headers) -> bool:
    lengths = [part.strip() for value in headers.get_all("Content-Length") for part in value.split(",")]
    return "Transfer-Encoding" in headers or any(length.strip("0") or not length for length in lengths)


def _origin_form(method: str, target: str, headers: Headers) -> str:
    """Return the path and query of a target; the host of a whole URL takes the place of the header (§3.2.2)."""
    if target.startswith("/"):
        return target
    if target == "*" and method == "OPTIONS":
        return "/"
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not _HOST.fullmatch(match[1]):
        raise _Refused("The target of a request is a path, such as /health")
    if "Host" in headers:
        del headers["Host"]
    headers["Host"] = match[1]
    return match[2] if match[2].startswith("/") else f"/{match[2]}"


def _no_http() -> _Refused:
    return _Refused("This is no HTTP/1.1 request")


def _too_much() -> _Refused:
    return _Refused("The headers are too long, or too many", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
