"""Turns before Redis: the clients that send much share a small window while others, who send little, are heard.

All commands of a shard stand in one line before Redis, and a round trip of a job comes by there several times. So what
lies in this line decides how long everybody waits. While nobody else is heard those who send much may fill it, which
takes the fewest turns of the loop for each command.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

WINDOW: Final = 32
"""Commands that all who send much have under way at a time, while others are heard: Redis needs about 1 ms for them."""

COMMAND_SIZE: Final = 2048
"""Bytes of a call that count as one command more."""


class Turns:
    """The window of a shard.

    Attributes:
        are_taken: whether those who send much take turns, since somebody who sends little was heard lately.
        period: counts seconds, by which connections know what was lately.
        running: commands that have their turn.
    """

    __slots__ = ("_line", "_quiet_in", "are_taken", "period", "running")

    def __init__(self) -> None:
        """Make the window of a shard in which nobody has been heard."""
        self.are_taken = False
        self.period = 0
        self.running = 0
        self._quiet_in = -1
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    def tick(self) -> None:
        """Begin another period; turns end when nobody who sends little was heard in the last one."""
        self.are_taken = self._quiet_in == self.period
        self.period += 1
        self._serve()

    def hear_quiet(self) -> None:
        """Note that somebody is heard who sends little."""
        self._quiet_in = self.period
        self.are_taken = True

    async def take(self, commands: int) -> None:
        """Wait for the turn of so many commands; who takes them gives back each when it has its reply."""
        if not self.are_taken or (not self._line and self._fits(commands)):
            self.running += commands
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append((commands, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line = deque(entry for entry in self._line if entry[1] is not turn)
            else:
                self.give_back(commands)
            raise

    @asynccontextmanager
    async def of(self, commands: int) -> AsyncIterator[None]:
        """Take the turn of so many commands and give it back at the end."""
        await self.take(commands)
        try:
            yield
        finally:
            self.give_back(commands)

    def give_back(self, commands: int) -> None:
        """Let others have their turn."""
        self.running -= commands
        if self._line:
            self._serve()

    def _fits(self, commands: int) -> bool:
        return not self.running or self.running + commands <= WINDOW

    def _serve(self) -> None:
        while self._line and (not self.are_taken or self._fits(self._line[0][0])):
            commands, turn = self._line.popleft()
            if not turn.done():
                self.running += commands
                turn.set_result(None)
