"""WebSocket frames as a client needs them: bytes in, bytes out; as cheap as Python allows."""

from __future__ import annotations

import struct
from typing import Final

_TEXT: Final = 0x81
_TEXT_OPCODE, _CLOSE_OPCODE, _PING_OPCODE = 0x1, 0x8, 0x9


def frame(message: bytes) -> bytes:
    """A final text frame, masked with the key 0: a valid mask (RFC 6455 §5.3) that leaves the bytes as they are."""
    length = len(message)
    if length < 126:
        head = bytes((_TEXT, 0x80 | length))
    elif length < 65536:
        head = b"\x81\xfe" + length.to_bytes(2, "big")
    else:
        head = b"\x81\xff" + length.to_bytes(8, "big")
    return head + b"\0\0\0\0" + message


def pong(payload: bytes) -> bytes:
    """The answer to a ping: a pong with the same payload (RFC 6455 §5.5.3), masked with the key 0."""
    return bytes((0x8A, 0x80 | len(payload))) + b"\0\0\0\0" + payload


class Splitter:
    """Takes a stream of server frames apart; long frames are collected, since joining at each read is quadratic."""

    __slots__ = ("_missing", "_pieces", "closed", "pings")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing = 0  # bytes without which there is no next frame
        self.closed: bytes | None = None  # what a close frame held
        self.pings: list[bytes] = []  # payloads of those that the owner has not taken yet

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the text frames that are complete now."""
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        return self._split(data)

    def _split(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        position, size, needed = 0, len(data), 0
        while size - position >= 2:
            length, start = data[position + 1], position + 2
            if length == 126:
                if size - position < 4:
                    break
                length, start = struct.unpack_from("!H", data, position + 2)[0], position + 4
            elif length == 127:
                if size - position < 10:
                    break
                length, start = struct.unpack_from("!Q", data, position + 2)[0], position + 10
            end = start + length
            if end > size:
                needed = end - size
                break
            opcode = data[position] & 0x0F
            if opcode == _TEXT_OPCODE:
                messages.append(data[start:end])
            elif opcode == _PING_OPCODE:
                self.pings.append(data[start:end])
            elif opcode == _CLOSE_OPCODE:
                self.closed = data[start:end]
            position = end
        if position < size:
            self._pieces = [data[position:]]
            self._missing = max(1, needed)
        return messages
