"""Turns: those who have much to do share a small window before Redis, and turns of the loop, while others are heard.

All commands of a shard stand in one line before Redis, and all its clients in one before the loop; a round trip of a
job comes by there several times. So what lies in these lines decides how long everybody waits. While nobody else is
heard those who have much to do may fill them, which takes the fewest turns of the loop for each command.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from time import perf_counter
from typing import Final

from bullmq_proxy.gateway.flushing import flush_now

WINDOW: Final = 5
"""Commands that all who send much have under way at a time, while others are heard, before a Redis without delay."""

LARGEST_WINDOW: Final = 64
"""Commands, however long the way to Redis is. A call that counts as more is a long one, and followed by a rest."""

REST: Final = 3
"""Times as long as a long call took are the others alone with Redis after it."""

LONGEST_REST: Final = 0.05
"""Seconds that a rest takes at most."""

COMMAND_SIZE: Final = 2048
"""Bytes of a call that count as one command more."""

ROUND_TRIPS: Final = 60
"""The shortest of so many counts: the others have waited in the line."""

SLICE: Final = 0.0001
"""Seconds that one of them goes on in a turn of the loop."""

_COMMAND: Final = 0.0001  # s of a round trip for which there is one command more
_LONG_AGO: Final = -2  # a period


class Turns:
    """The turns of a shard.

    Attributes:
        are_taken: whether those who send much take turns, since somebody who sends little was heard lately.
        last_quiet: who was heard last of those who send little.
        period: counts seconds, by which connections know what was lately.
        running: commands that have their turn.
        unfinished: who goes on in one of the next turns of the loop.
        window: commands that all who send much have under way at a time.
    """

    __slots__ = (
        "_line",
        "_long_since",
        "_other_in",
        "_quiet_in",
        "_rests",
        "_round_trips",
        "are_taken",
        "last_quiet",
        "period",
        "running",
        "unfinished",
        "window",
    )

    def __init__(self) -> None:
        """Make those of a shard in which nobody has been heard."""
        self.are_taken = False
        self.period = 0
        self.running = 0
        self.unfinished = Unfinished(self)
        self.window = WINDOW
        self.last_quiet: object = None
        self._quiet_in = _LONG_AGO  # the last period in which it was heard
        self._other_in = _LONG_AGO  # the last one in which another one was
        self._long_since = 0.0  # perf_counter time at which a long command was sent
        self._rests = 0  # after long ones
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)

    def tick(self) -> None:
        """Begin another period; turns end when nobody who sends little was heard in the last one."""
        self.are_taken = self._quiet_in == self.period
        if not self.are_taken:
            self.last_quiet = None
        self.period += 1
        self._serve()

    def hear_quiet(self, who: object) -> None:
        """Note that somebody is heard who sends little."""
        if self.last_quiet is not who:
            self._other_in = self._quiet_in
            self.last_quiet = who
        self._quiet_in = self.period
        self.are_taken = True

    def forget_quiet(self) -> None:
        """Take no turns because of the last one, which sends much now, or is gone, if it was the only one."""
        if self._other_in < self.period - 1:
            self.last_quiet = None
            self._quiet_in = _LONG_AGO
            self.are_taken = False
            self._serve()

    def note_round_trip(self, seconds: float) -> None:
        """Note how long Redis took to answer one command: the longer the way, the more commands keep it busy."""
        self._round_trips.append(seconds)
        self.window = min(WINDOW + int(min(self._round_trips) / _COMMAND), LARGEST_WINDOW)

    # Before Redis

    async def take(self, commands: int) -> None:
        """Wait for the turn of so many commands; who takes them gives back each when it has its reply."""
        if not self.are_taken or (not self._line and self._fits(commands)):
            self._grant(commands)
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
        """Let others have their turn, after a while if it was a long one."""
        self.running -= commands
        if commands > LARGEST_WINDOW and self.are_taken:
            self._rests += 1
            rest = min(REST * (perf_counter() - self._long_since), LONGEST_REST)
            asyncio.get_running_loop().call_later(rest, self._end_rest)
        elif self._line:
            self._serve()

    def _end_rest(self) -> None:
        self._rests -= 1
        self._serve()

    def share(self, entries: int, per_command: int = 1) -> int:
        """Return how many entries to send at once, at most `entries`: what fits into the window while turns are taken.

        Args:
            entries: for one turn of the loop while no turns are taken.
            per_command: how many of them take Redis as long as a command.
        """
        return min(entries, self.window * per_command) if self.are_taken else entries

    def _grant(self, commands: int) -> None:
        self.running += commands
        if commands > LARGEST_WINDOW:
            self._long_since = perf_counter()

    def _fits(self, commands: int) -> bool:
        return not self._rests and (not self.running or self.running + commands <= self.window)

    def _serve(self) -> None:
        while self._line and (not self.are_taken or self._fits(self._line[0][0])):
            commands, turn = self._line.popleft()
            if not turn.done():
                self._grant(commands)
                turn.set_result(None)

    # Of the loop

    async def wait_for_slice(self) -> None:
        """Let others have the loop; while turns are taken, wait for a turn of it in which nobody else goes on."""
        if not self.are_taken:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self.unfinished.add(turn, partial(_begin, turn))
        await turn
        flush_now(loop)


def _begin(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


class Unfinished(dict[object, Callable[[], None]]):
    """Those who go on in one of the next turns of the loop, and how; while turns are taken one goes on in each."""

    def __init__(self, turns: Turns) -> None:
        """Make an empty one."""
        super().__init__()
        self._turns = turns
        self._is_due = False

    def add(self, who: object, go_on: Callable[[], None]) -> None:
        """Let somebody go on soon."""
        self[who] = go_on
        self._go_on_soon()

    def _go_on_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._go_on, loop)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_due = False
        flush_now(loop)
        try:
            for who in list(islice(self, 1 if self._turns.are_taken else None)):
                if (go_on := self.pop(who, None)) is not None:
                    go_on()
        finally:
            if self:
                self._go_on_soon()
