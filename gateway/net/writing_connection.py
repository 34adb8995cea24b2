"""What every connection has whose client may read slowly: it says when that has read, and when it has gone."""

from __future__ import annotations

import asyncio
from typing import Final

from bullmq_proxy.gateway.net.shared import Shared

PAUSE: Final = 0.1
"""Seconds between two reads of a client that sends on although nothing more is heard of it."""


class WritingConnection(asyncio.Protocol):
    """A connection whose output may have to wait.

    Attributes:
        loop: that it lives on.
        transport: of the socket.
        is_lost: whether the socket is gone.
        number: no other connection of the shard has it; in microseconds since 1970, it is when this one was made.
    """

    __slots__ = (
        "__weakref__",
        "_pause",
        "_shared",
        "_writable",
        "_writing_paused",
        "is_lost",
        "loop",
        "number",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, shared: Shared) -> None:
        """Make a connection without a socket."""
        self.loop = asyncio.get_running_loop()
        self.is_lost = False
        self.number = next(shared.numbers)
        self._shared = shared
        self._pause: asyncio.TimerHandle | None = None  # in which the socket is not read
        self._writing_paused = False
        self._writable: list[asyncio.Future[None]] = []  # those who wait for a client that reads

    def _flush(self) -> None:
        """Write what is to be sent."""

    def pause_socket(self) -> None:
        """Read no more from the socket."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_socket(self) -> None:
        """Read from the socket again, unless it has a pause."""
        if self._pause is None and not self.transport.is_closing():
            self.transport.resume_reading()

    def read_on(self) -> None:
        """Read from the socket again, unless something else forbids it."""
        self.resume_socket()

    def _pause_for_a_while(self) -> None:
        """Read nothing for a while of a client that sends on although nothing more is heard of it."""
        if self._pause is None:
            self.pause_socket()
            self._pause = self.loop.call_later(PAUSE, self._end_pause)

    def _end_pause(self) -> None:
        self._pause = None
        self.read_on()

    @property
    def _is_behind(self) -> bool:
        """Whether the client has yet to read."""
        return self._writing_paused

    async def wait_writable(self) -> None:
        """Wait until the client has read most of what was sent; raises ConnectionResetError when it goes first."""
        self._flush()
        if self.is_lost:
            raise ConnectionResetError
        if self._is_behind:
            waiter = self.loop.create_future()
            self._writable.append(waiter)
            await waiter

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Note that the client has read most of what was sent."""
        self._writing_paused = False
        self._shared.note_unread(self, self.transport.get_write_buffer_size())
        self._wake_writers()

    def _wake_writers(self) -> None:
        if self._writable and not self._is_behind:
            for waiter in self._writable:
                if not waiter.done():
                    waiter.set_result(None)
            self._writable.clear()

    def close_as_slow(self) -> None:
        """Close the connection: its client does not read what is sent to it."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release what waits to be sent: the socket is gone."""
        self.is_lost = True
        self._shared.note_unread(self, 0)
        for waiter in self._writable:
            if not waiter.done():
                waiter.set_exception(ConnectionResetError())
        self._writable.clear()
