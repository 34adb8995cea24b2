"""What of one connection is under way, from its socket to Redis and back; beyond its limits the socket is not read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from msgspec import Struct

from bullmq_proxy.gateway.sessions.budget import MESSAGE_OVERHEAD, Budget
from bullmq_proxy.gateway.sessions.interfaces import CallClient

_FEW: Final = 4  # messages under way of a client that sends little
_SMALL: Final = 2**14  # bytes of each of its messages, at most
_LONG_AGO: Final = -2  # a period in which nothing was


class CallLimits(Struct, frozen=True):
    """How much of one connection may be under way; beyond it the socket is not read until half of it is done.

    Attributes:
        calls: unanswered ones, and answers to jobs. Calls that may take as long as they like are counted apart, and
            refused beyond it: with them a connection that is not read might never be read again.
        size: bytes of their arguments and of answers to jobs, and as many of replies that the client has not read.
        heavy: places for the heavy calls of all connections of the shard.
        budget: of the shard.
        audits: whether the log has a line for each call of a function that needs `manage`.
    """

    calls: int
    size: int
    heavy: asyncio.Semaphore
    budget: Budget
    audits: bool = False


class UnderWay:
    """Counts the messages and bytes of one connection, and stops reading its socket while they are too many.

    Attributes:
        patient: calls under way that may take as long as they like.
    """

    __slots__ = (
        "_budget",
        "_busy_in",
        "_client",
        "_limits",
        "_messages",
        "_paused",
        "_resuming",
        "_size",
        "_turns",
        "_window",
        "patient",
    )

    def __init__(self, client: CallClient, limits: CallLimits, window: int | None = None) -> None:
        """Make one.

        Args:
            client: whose connection it is.
            limits: of what is under way.
            window: messages under way while turns are taken, where they take none by themselves.
        """
        self.patient = 0
        self._messages = 0
        self._size = 0
        self._client = client
        self._limits = limits
        self._budget = limits.budget
        self._turns = limits.budget.turns
        self._busy_in = _LONG_AGO  # the last period of the turns in which it sent much
        self._window = min(window or limits.calls, limits.calls)
        self._paused = False
        self._resuming: asyncio.Task[None] | None = None  # waits until the client has read its replies

    def begin(self, size: int, messages: int = 1) -> None:
        """Count a message of `size` bytes; with `messages` 0 only its bytes, where something else limits the number."""
        size += MESSAGE_OVERHEAD
        budget, limits = self._budget, self._limits
        if not self._size:
            budget.busy += 1
        self._messages += messages
        budget.messages += messages
        self._size += size
        budget.size += size
        if self._messages - self.patient > _FEW or size > _SMALL:
            self._busy_in = self._turns.period
            if self._turns.last_quiet is self:  # it was quiet until now, and is no reason for itself to take turns
                self._turns.forget_quiet()
        # Written out, as `end` is: each call comes by here.
        if not self._paused and (
            self._messages - self.patient >= limits.calls
            or self._size >= limits.size
            or self._client.write_buffer_size >= limits.size
            or (budget.is_full and budget.is_over(self._size, self._messages - self.patient))
            or (self._messages - self.patient >= self._window and self.takes_turns)
        ):
            self._paused = True
            self._client.pause_reading()

    def end(self, size: int, messages: int = 1) -> None:
        """Count it no more: it has reached its end."""
        size += MESSAGE_OVERHEAD
        budget = self._budget
        self._messages -= messages
        budget.messages -= messages
        self._size -= size
        if not self._size:
            budget.busy -= 1
            if self._busy_in < self._turns.period - 1:
                self._turns.hear_quiet(self)
        budget.size -= size
        if budget.is_waited_for:
            budget.let_in()
        if self._paused:
            self.resume_if_room()

    @property
    def takes_turns(self) -> bool:
        """Whether its client sends much, beside others who send little."""
        return self._turns.are_taken and self._busy_in >= self._turns.period - 1

    def begin_patience(self, size: int) -> None:
        """Count a call of `size` bytes as one that may take as long as it likes: it keeps nobody else waiting."""
        self.patient += 1
        self._budget.messages -= 1
        self._budget.give_back(size + MESSAGE_OVERHEAD)
        self.resume_if_room()

    def end_patience(self, size: int) -> None:
        """Count it as such no more: it has been replied to, or is about to be."""
        self.patient -= 1
        self._budget.messages += 1
        self._budget.take(size + MESSAGE_OVERHEAD)

    @property
    def is_unread(self) -> bool:
        """Whether the client has so much to read that it gets no more to read for now."""
        return self._client.write_buffer_size >= self._limits.size

    def resume_if_room(self) -> None:
        """Read from the socket again once half is done; a client that asks for much reads its replies first."""
        limits = self._limits
        if (
            self._paused
            and self._messages - self.patient <= (self._window if self.takes_turns else limits.calls) // 2
            and self._size <= limits.size // 2
            and self._budget.has_room(self._size, self._messages - self.patient)
        ):
            self._paused = False
            if not self.is_unread:
                self._client.resume_reading()
            elif self._resuming is None:
                self._resuming = asyncio.create_task(self._resume_when_read(), name="unread replies")

    async def _resume_when_read(self) -> None:
        with suppress(OSError):  # the connection ended while it was waited for
            await self._client.wait_writable()
            self._resuming = None
            if not self._paused:
                self._client.resume_reading()

    def close(self) -> None:
        """Wait for nothing any more: the connection is gone."""
        if self._turns.last_quiet is self:
            self._turns.forget_quiet()
        if self._resuming is not None:
            self._resuming.cancel()
