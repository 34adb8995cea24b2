"""The safety net: asks now and then whether idle queues have something to do that nobody has told of.

One EXISTS asks for hundreds of queues; a script for each would cost a shard with thousands of them some percent of a
core.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

from bullmq_proxy.gateway.broker.redis.command_link import CommandLink
from bullmq_proxy.gateway.broker.redis.socket import pack_words

_AT_A_TIME: Final = 256  # queues in one command; that takes Redis 0.1 ms


class Idle(Protocol):
    """One that has nothing to do as far as it knows."""

    def wake_up(self) -> None:
        """Look what there is to do."""


class _Suspects(NamedTuple):
    """The keys that stand for something to do, should they exist; packed once, for they are asked for over and over."""

    link: CommandLink
    number: int
    words: bytes


class SafetyNet:
    """All idle ones of one kind on a shard."""

    def __init__(self, period: float) -> None:
        """Make the net; it looks after each of them once in `period` seconds."""
        self._period = period
        self._loop = asyncio.get_running_loop()
        # Who was looked after last stands last. A dict would search its beginning through all that have moved.
        self._idle: OrderedDict[Idle, _Suspects] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, idle: Idle, link: CommandLink, keys: list[str]) -> None:
        """Look after somebody: wake it up when one of `keys` exists, which is asked by `link`."""
        self._idle[idle] = _Suspects(link, len(keys), pack_words(*keys))
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
        some = list(islice(self._idle.items(), _AT_A_TIME))
        if not some:
            return
        self._timer = self._loop.call_later(self._period * len(some) / len(self._idle), self._look_on)
        together: dict[CommandLink, list[tuple[Idle, _Suspects]]] = {}  # on a cluster, those of each slot
        for entry in some:
            self._idle.move_to_end(entry[0])
            together.setdefault(entry[1].link, []).append(entry)
        for link, theirs in together.items():
            if link.is_up:
                self._look_after(link, theirs)

    def _look_after(self, link: CommandLink, some: list[tuple[Idle, _Suspects]]) -> None:
        number = sum([suspects.number for _, suspects in some])
        words = b"".join([suspects.words for _, suspects in some])
        link.send(b"*%d\r\n$6\r\nEXISTS\r\n%b" % (1 + number, words), partial(self._looked, link, some))

    def _looked(self, link: CommandLink, some: list[tuple[Idle, _Suspects]], found: Any) -> None:
        """Search the halves for whose keys they are."""
        if isinstance(found, Exception) or not found:
            return
        if len(some) == 1:
            ((idle, suspects),) = some
            if self._idle.get(idle) is suspects:
                idle.wake_up()
            return
        half = len(some) // 2
        self._look_after(link, some[:half])
        self._look_after(link, some[half:])
