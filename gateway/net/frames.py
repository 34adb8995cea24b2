"""Frame headers: where a frame begins and ends, and the head of one that we send (RFC 6455 §5.2)."""

from __future__ import annotations

from typing import Final

WHOLE_TEXT: Final = 0x81  # the first byte of a text frame that is a whole message, without extension bits
WHOLE_PING: Final = 0x89
WHOLE_PONG: Final = 0x8A
_FIN: Final = 0x80
_RESERVED: Final = 0x70
OPCODE: Final = 0x0F
_OPCODES: Final = frozenset((0, 1, 2, 8, 9, 10))
_CONTROL: Final = 0x08  # is set in the opcodes of control frames
_MASKED: Final = 0x80
_LONGEST_CONTROL: Final = 125  # bytes of payload
PING_SIZE: Final = 4
"""Bytes in our pings: two libraries of clients die of an empty one."""
_ANSWER: Final = 2 + 4 + PING_SIZE  # bytes of a pong to one: header, mask, payload


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


def may_be_valid(header: bytes) -> bool:
    """Return whether a header that begins so may be that of a valid frame of a client."""
    first = header[0]
    is_control = first & _CONTROL
    if first & _RESERVED or first & OPCODE not in _OPCODES or (is_control and not first & _FIN):
        return False
    return len(header) == 1 or _MASKED <= header[1] <= _MASKED + (_LONGEST_CONTROL if is_control else 127)


def length_so_far(header: bytes) -> int:
    """Return the length of the payload that a header tells, 0 while it does not."""
    size = {126: 4, 127: 10}.get(header[1] & 0x7F, 2) if len(header) > 1 else 2
    if len(header) < size:
        return 0
    return header[1] & 0x7F if size == 2 else int.from_bytes(header[2:size], "big")


def is_masked(data: bytes, at: int) -> bool:
    """Return whether the frame that begins at `at` is masked, as those of clients must be."""
    return data[at + 1] >= _MASKED


def is_whole_ping_or_pong(data: bytes, at: int, start: int, stop: int) -> bool:
    """Return whether a frame at `at`, with its payload from `start` to `stop`, is a valid one of them and all there."""
    return (
        WHOLE_PING <= data[at] <= WHOLE_PONG
        and is_masked(data, at)
        and stop - start <= _LONGEST_CONTROL
        and stop <= len(data)
    )


def is_answer(data: bytes) -> bool:
    """Return whether some bytes are one pong to a ping of ours: masked, with as long a payload."""
    return len(data) == _ANSWER and data[0] == WHOLE_PONG and data[1] == _MASKED + PING_SIZE


def ping(payload: bytes) -> bytes:
    """Return a ping of at most 125 bytes."""
    return bytes((WHOLE_PING, len(payload))) + payload


def pong(payload: bytes) -> bytes:
    """Return the answer to a ping."""
    return bytes((WHOLE_PONG, len(payload))) + payload


def text_header(length: int) -> bytes:
    """Return the head of an unmasked text frame that is a whole message of `length` bytes."""
    if length < 126:
        return bytes((WHOLE_TEXT, length))
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def close(code: int, reason: bytes) -> bytes:
    """Return a close frame; a reason of more than 123 bytes does not fit into one."""
    return bytes((_FIN | 8, 2 + len(reason))) + code.to_bytes(2, "big") + reason
