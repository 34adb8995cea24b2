"""JSON as text: how it is written, and whether stored text is any."""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

import msgspec
from msgspec import Raw

from bullmq_proxy.gateway.errors import GatewayError

encode: Final = msgspec.json.Encoder().encode

# What decoding can raise. Text is checked for UTF-8 as it comes in, but not everything that is decoded came that way.
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")

_raw: Final = msgspec.json.Decoder(Raw)


def printable(text: str) -> str:
    """Text that can be written as UTF-8: a lone surrogate, which no JSON encoder accepts, becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def error_json(error: GatewayError) -> bytes:
    """Return `{"message", "code"}`, as in every `err` on the wire and in every HTTP error body."""
    return encode({"message": printable(error.message), "code": error.code.value})


def json_text(text: bytes) -> Raw | None:
    """Stored text as a JSON value that can go out as it is, or None where it is not JSON.

    BullMQ writes JSON; but anything can be in Redis, and one broken payload must not break a frame.
    """
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return None
    try:
        return _raw.decode(text)
    except RecursionError:
        return None
    except msgspec.MsgspecError:
        return Raw(text) if _is_json(text) else None


def _is_json(text: bytes) -> bool:
    """Give a second opinion: msgspec refuses half a surrogate pair; Node writes it as `\\ud800` (RFC 8259 §8.2)."""
    if not SURROGATE.search(text):
        return False
    try:
        json.loads(text, parse_constant=_refuse, parse_int=str)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
