"""Texts of Redis, which may be no UTF-8: any program can have written them.

Inside they are `str` in which each byte that is no UTF-8 is a surrogate escape (PEP 383), so that a key or an id goes
back to Redis as the very bytes that came. What is shown has U+FFFD in their place, as in Node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ERRORS = "surrogateescape"
"""How bytes become text inside, and text bytes for Redis."""


def text_of(raw: bytes) -> str:
    """Return the text of some bytes from Redis."""
    return raw.decode(errors=ERRORS)


def bytes_of(text: str) -> bytes:
    """Return a text as bytes for Redis: those that it was read from."""
    return text.encode(errors=ERRORS)


def printable(text: str) -> str:
    """Return text that can be written as UTF-8: what is none becomes U+FFFD, as many as in Node."""
    if text.isascii():
        return text
    try:
        return bytes_of(text).decode(errors="replace")
    except UnicodeEncodeError:  # half a surrogate pair
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def in_half_pairs(text: str) -> str:
    """Return a client's text, of JavaScript's code units, with each half of a pair as its three bytes of Redis."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", ERRORS)


def code_units(text: str) -> str:
    """Return a text in JavaScript's code units: the reverse of `in_half_pairs`; other bytes become U+FFFD."""
    try:
        return bytes_of(text).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return printable(text)


def as_argument_of_node(text: str) -> str:
    """Return a client's text as Node hands it to Redis: with U+FFFD for each half of a pair."""
    return text if _is_utf_8(text) else _utf_16(text).decode("utf-16-le", "replace")


def as_packed_by_node(text: str) -> str:
    """Return a client's text as Node packs it: msgpackr leaves halves of pairs in texts of up to 63 code units."""
    return text if _is_utf_8(text) or len(_utf_16(text)) < 2 * 64 else as_argument_of_node(text)


def _is_utf_8(text: str) -> bool:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def _utf_16(text: str) -> bytes:
    return code_units(text).encode("utf-16-le", "surrogatepass")


def valid_utf8(raw: bytes) -> bytes:
    """Return bytes from Redis as UTF-8, with U+FFFD for what is none."""
    if raw.isascii():
        return raw
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode(errors="replace").encode()
    return raw


def with_texts(value: Any, change: Callable[[str], Any]) -> Any:
    """Return a copy of a value made of dicts, lists and tuples with each text changed; keys become printable."""
    match value:
        case str():
            return change(value)
        case dict():
            return {with_texts(key, printable): with_texts(each, change) for key, each in value.items()}
        case list() | tuple():
            return [with_texts(each, change) for each in value]
    return value
