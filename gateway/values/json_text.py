"""JSON as text: how it is written, and how stored text is read, which may be none."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import msgspec
from msgspec import Raw

from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.values.text import code_units, printable, valid_utf8, with_texts

encode_utf8: Final = msgspec.json.Encoder().encode
"""Writes a value as JSON whose texts are known to be UTF-8."""


# What decoding can raise. Text is checked for UTF-8 as it comes in, but not everything that is decoded came that way.
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")

_raw: Final = msgspec.json.Decoder(Raw)


def encode(value: Any) -> bytes:
    """Write a value as JSON, in valid UTF-8: texts of Redis may hold what is none, which becomes U+FFFD."""
    try:
        return encode_utf8(value)
    except UnicodeEncodeError:
        return encode_utf8(with_texts(value, printable))


def encode_as_node(value: Any) -> bytes:
    """Write a value as JSON as Node does, with an escape for each half of a surrogate pair."""
    try:
        return encode_utf8(value)
    except UnicodeEncodeError:
        text = json.dumps(with_texts(value, code_units), ensure_ascii=False, separators=(",", ":"))
        return _HALF.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


_HALF: Final = re.compile("[\ud800-\udfff]")


def error_json(error: GatewayError) -> bytes:
    """Return `{"message", "code"}`, as in every `err` on the wire and in every HTTP error body."""
    return encode({"message": error.message, "code": error.code.value})


def json_text(text: bytes) -> Raw | None:
    """Stored text as a JSON value that can go out as it is, or None where it is not JSON.

    BullMQ writes JSON; but anything can be in Redis, and one broken payload must not break a frame.
    """
    text = valid_utf8(text)
    try:
        return _raw.decode(text)
    except RecursionError:
        return None
    except msgspec.MsgspecError:
        return Raw(text) if _is_json(text) else None


def read_json(text: bytes) -> Any:
    """Return the value of stored JSON text, or None where it is not JSON, or null."""
    text = valid_utf8(text)
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        return None
    except msgspec.MsgspecError:
        return _read_odd(text)


def _is_json(text: bytes) -> bool:
    return text.strip() == b"null" or _read_odd(text) is not None


def _read_odd(text: bytes) -> Any:
    """Give a second opinion: msgspec refuses half a surrogate pair; Node writes it as `\\ud800` (RFC 8259 §8.2)."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_int=_whole)
    except (ValueError, RecursionError):
        return None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
