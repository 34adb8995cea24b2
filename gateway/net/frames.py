"""Frame headers: where a frame begins and ends, and the head of one that we send (RFC 6455 §5.2)."""

from __future__ import annotations

from typing import Final

WHOLE_TEXT: Final = 0x81  # the first byte of a text frame that is a whole message, without extension bits
_MASKED: Final = 0x80


def extent(data: bytes, at: int) -> tuple[int, int] | None:
    """Return where the payload of the frame that begins at `at` begins and ends; it may end behind the data.

    None when the header itself is not complete yet.
    """
    have = len(data) - at
    if have < 2:
        return None
    second = data[at + 1]
    length, size = second & 0x7F, 2
    if length == 126:
        size = 4
    elif length == 127:
        size = 10
    start = at + size + (4 if second & _MASKED else 0)
    if start - at > have:
        return None
    if size > 2:
        length = int.from_bytes(data[at + 2 : at + size], "big")
    return start, start + length


def may_be_text(header: bytes) -> bool:
    """Return whether a header that begins so may be that of a masked whole text message of at most 64 KiB."""
    return header[0] == WHOLE_TEXT and (len(header) == 1 or _MASKED <= header[1] <= _MASKED + 126)


def is_masked(data: bytes, at: int) -> bool:
    """Return whether the frame that begins at `at` is masked, as those of clients must be."""
    return data[at + 1] >= _MASKED


def text_header(length: int) -> bytes:
    """Return the head of an unmasked text frame that is a whole message of `length` bytes."""
    if length < 126:
        return bytes((WHOLE_TEXT, length))
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")
