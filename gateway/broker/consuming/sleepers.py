"""The net under sleeping queues: jobs without a marker are found all the same, as by BullMQ's `drainDelay`."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol

from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.socket import pack_command

_PERIOD: Final = 5.0  # s between two looks at a queue; BullMQ's drainDelay
_AT_A_TIME: Final = 256  # queues in one command; that takes Redis 0.1 ms


class Sleeper(Protocol):
    """One that sleeps until a marker comes.

    Attributes:
        suspects: the keys that stand for jobs to fetch, should they exist.
    """

    suspects: list[str]

    def wake_up(self) -> None:
        """End the sleep: there may be jobs."""


class Sleepers:
    """All sleepers of a shard. One EXISTS looks after hundreds of them; a fetch for each would cost each a script."""

    def __init__(self, link: Link, period: float = _PERIOD) -> None:
        """Make the net; it looks by `link`, the one for commands, once in `period` seconds."""
        self._link = link
        self._period = period
        self._loop = asyncio.get_running_loop()
        self._sleeping: dict[Sleeper, None] = {}  # who was looked after last stands last
        self._timer: asyncio.TimerHandle | None = None

    def add(self, sleeper: Sleeper) -> None:
        """Look after a sleeper."""
        self._sleeping[sleeper] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._period, self._look_on)

    def discard(self, sleeper: Sleeper) -> None:
        """Let one go that sleeps no more."""
        self._sleeping.pop(sleeper, None)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_on(self) -> None:
        """Look after the next ones: all of them once in a period, in equal steps."""
        self._timer = None
        some = list(islice(self._sleeping, _AT_A_TIME))
        if not some:
            return
        self._timer = self._loop.call_later(self._period * len(some) / len(self._sleeping), self._look_on)
        for sleeper in some:
            del self._sleeping[sleeper]
            self._sleeping[sleeper] = None
        if self._link.is_up:
            self._look_after(some)

    def _look_after(self, some: list[Sleeper]) -> None:
        keys = [key for sleeper in some for key in sleeper.suspects]
        self._link.send(pack_command("EXISTS", *keys), partial(self._looked, some))

    def _looked(self, some: list[Sleeper], found: Any) -> None:
        """Search the halves for whose keys they are."""
        if isinstance(found, Exception) or not found:
            return
        if len(some) == 1:
            if some[0] in self._sleeping:
                some[0].wake_up()
            return
        half = len(some) // 2
        self._look_after(some[:half])
        self._look_after(some[half:])
