"""The safety net: asks now and then whether idle queues have something to do that nobody has told of.

One EXISTS asks for hundreds of queues; a script for each would cost a shard with thousands of them some percent of a
core.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol

from bullmq_proxy.gateway.broker.redis.command_link import CommandLink, Links
from bullmq_proxy.gateway.broker.redis.socket import pack_command

_AT_A_TIME: Final = 256  # queues in one command; that takes Redis 0.1 ms


class Idle(Protocol):
    """One that has nothing to do as far as it knows.

    Attributes:
        suspects: the keys that stand for something to do, should they exist.
    """

    suspects: list[str]

    def wake_up(self) -> None:
        """Look what there is to do."""


class SafetyNet:
    """All idle ones of one kind on a shard."""

    def __init__(self, link: Links, period: float) -> None:
        """Make the net; it looks by `link`, the one for commands, once in `period` seconds after each of them."""
        self._link = link
        self._period = period
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Idle, None] = {}  # who was looked after last stands last
        self._timer: asyncio.TimerHandle | None = None

    def add(self, idle: Idle) -> None:
        """Look after somebody."""
        self._idle[idle] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._period, self._look_on)

    def discard(self, idle: Idle) -> None:
        """Let one go that is idle no more."""
        self._idle.pop(idle, None)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_on(self) -> None:
        """Look after the next ones: all of them once in a period, in equal steps."""
        self._timer = None
        some = list(islice(self._idle, _AT_A_TIME))
        if not some:
            return
        self._timer = self._loop.call_later(self._period * len(some) / len(self._idle), self._look_on)
        for idle in some:
            del self._idle[idle]
            self._idle[idle] = None
        together: dict[CommandLink, list[Idle]] = {}  # on a cluster, those of each slot
        for idle in some:
            together.setdefault(self._link.of(idle.suspects[0]), []).append(idle)
        for link, theirs in together.items():
            if link.is_up:
                self._look_after(link, theirs)

    def _look_after(self, link: CommandLink, some: list[Idle]) -> None:
        keys = [key for idle in some for key in idle.suspects]
        link.send(pack_command("EXISTS", *keys), partial(self._looked, link, some))

    def _looked(self, link: CommandLink, some: list[Idle], found: Any) -> None:
        """Search the halves for whose keys they are."""
        if isinstance(found, Exception) or not found:
            return
        if len(some) == 1:
            if some[0] in self._idle:
                some[0].wake_up()
            return
        half = len(some) // 2
        self._look_after(link, some[:half])
        self._look_after(link, some[half:])
