"""The budget of a shard: the messages and bytes that it holds for its clients, between their sockets and Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bullmq_proxy.gateway.turns import Turns

BUDGET: Final = 8 * 2**20
"""Bytes of messages that a shard holds before it reads no more from the clients that have sent most of them."""

MESSAGES: Final = 128
"""Messages under way on a shard before it reads no more from the clients that have sent most of them.

All commands stand in one line before Redis: at 40,000 a second the last of as many waits for 3 ms. More would make
Redis no faster, and the others' calls slower.
"""

SMALL_WINDOW: Final = 32
"""Messages under way on one connection that always may be: to stop and go on for fewer costs more than it helps."""

MESSAGE_OVERHEAD: Final = 1024
"""Bytes that a message under way takes beside its own: a command of Redis, and objects of ours."""


class Budget:
    """Counts the messages and bytes that came from clients and have not reached their end.

    Beyond a limit a client with more than an equal part of it is not read, and no new long message begins: so a few
    cannot take the others' room, and nobody who holds little waits for those who hold much.

    Attributes:
        limit: bytes.
        size: bytes that are held.
        messages: that are under way.
        busy: connections that have any.
        turns: of the shard.
    """

    __slots__ = ("_most", "_waiting", "busy", "limit", "messages", "size", "turns")

    def __init__(self, limit: int = BUDGET, messages: int = MESSAGES, turns: Turns | None = None) -> None:
        """Make a budget of `limit` bytes and so many messages; None for `turns` makes some."""
        self.limit = limit
        self.size = 0
        self._most = messages
        self.messages = 0
        self.busy = 0
        self.turns = turns or Turns()
        self._waiting: dict[Callable[[], None], None] = {}  # who wants to begin a long message, the first one first

    @property
    def is_full(self) -> bool:
        """Whether a limit is reached."""
        return self.messages >= self._most or self.size >= self.limit

    @property
    def is_out_of_bytes(self) -> bool:
        """Whether the limit of bytes is reached."""
        return self.size >= self.limit

    def is_over(self, size: int, messages: int) -> bool:
        """Return whether a connection with as many bytes and messages under way has to wait."""
        most = max(self._most, SMALL_WINDOW * self.busy)
        return (self.messages >= self._most and messages * self.busy > most) or (
            self.size >= self.limit and size * self.busy > self.limit
        )

    def has_room(self, size: int, messages: int) -> bool:
        """Return whether a connection that had to wait can go on: half of what is too much has reached its end."""
        most = max(self._most, SMALL_WINDOW * self.busy)
        return (self.messages * 2 <= self._most or messages * self.busy * 2 <= most) and (
            self.size * 2 <= self.limit or size * self.busy * 2 <= self.limit
        )

    def take(self, size: int) -> None:
        """Count bytes that the shard holds now."""
        self.size += size

    def give_back(self, size: int) -> None:
        """Count them no more, and let those begin who wait for room."""
        self.size -= size
        self.let_in()

    def let_in(self) -> None:
        """Let those begin who wait for room, as far as there is some."""
        while self._waiting and self.size < self.limit:
            resume = next(iter(self._waiting))
            del self._waiting[resume]
            resume()

    def wait(self, resume: Callable[[], None]) -> None:
        """Call `resume` once there is room."""
        self._waiting[resume] = None

    def forget(self, resume: Callable[[], None]) -> None:
        """Wait no more."""
        self._waiting.pop(resume, None)

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._waiting)
