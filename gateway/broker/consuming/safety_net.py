"""The safety net: asks now and then whether idle queues have something to do that nobody has told of.

One EXISTS asks for hundreds of queues; a script for each would cost a shard with thousands of them some percent of a
core.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from bullmq_proxy.gateway.broker.redis.command_link import CommandLink
from bullmq_proxy.gateway.broker.redis.socket import pack_words

_AT_A_TIME: Final = 256  # queues in one command; that takes Redis 0.1 ms


class Idle(Protocol):
    """One that has nothing to do as far as it knows."""

    def wake_up(self) -> None:
        """Look what there is to do."""


class _Suspects(NamedTuple):
    """The keys that stand for something to do for somebody, should they exist."""

    idle: Idle
    link: CommandLink
    number: int
    words: bytes


class _Group:
    """Those who are looked after together, by commands that stay the same while nobody joins or leaves."""

    def __init__(self) -> None:
        self.members: dict[Idle, _Suspects] = {}
        self._commands: list[tuple[CommandLink, list[_Suspects], bytes]] = []  # on a cluster, one for each slot

    def changed(self) -> None:
        """Forget the commands."""
        self._commands.clear()

    def commands(self) -> list[tuple[CommandLink, list[_Suspects], bytes]]:
        """Return the commands, for whom they ask, and the links that they go by."""
        if not self._commands:
            together: dict[CommandLink, list[_Suspects]] = {}
            for suspects in self.members.values():
                together.setdefault(suspects.link, []).append(suspects)
            self._commands = [(link, some, _pack(some)) for link, some in together.items()]
        return self._commands


class SafetyNet:
    """All idle ones of one kind on a shard."""

    def __init__(self, period: float) -> None:
        """Make the net; it looks after each of them once in `period` seconds."""
        self._period = period
        self._loop = asyncio.get_running_loop()
        self._groups: deque[_Group] = deque()  # the one that was looked after last stands last
        self._idle: dict[Idle, _Group] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, idle: Idle, link: CommandLink, keys: list[str]) -> None:
        """Look after somebody: wake it up when one of `keys` exists, which is asked by `link`."""
        self.discard(idle)
        if not self._groups or len(self._groups[-1].members) >= _AT_A_TIME:
            self._groups.append(_Group())
        group = self._idle[idle] = self._groups[-1]
        group.members[idle] = _Suspects(idle, link, len(keys), pack_words(*keys))
        group.changed()
        if self._timer is None:
            self._timer = self._loop.call_later(self._period, self._look_on)

    def discard(self, idle: Idle) -> None:
        """Let one go that is idle no more."""
        group = self._idle.pop(idle, None)
        if group is not None:
            del group.members[idle]
            group.changed()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_on(self) -> None:
        """Look after the next group: all of them once in a period, in equal steps."""
        self._timer = None
        if not self._idle:
            self._groups.clear()
            return
        self._timer = self._loop.call_later(self._period / len(self._groups), self._look_on)
        group = self._groups.popleft()
        if self._groups and len(group.members) + len(self._groups[0].members) <= _AT_A_TIME:
            group.members |= self._groups.popleft().members
            self._idle.update(dict.fromkeys(group.members, group))
            group.changed()
        self._groups.append(group)
        for link, some, command in group.commands():
            if link.is_up:
                link.send(command, partial(self._looked, link, some))

    def _looked(self, link: CommandLink, some: list[_Suspects], found: Any) -> None:
        """Search the halves for whose keys they are."""
        if isinstance(found, Exception) or not found:
            return
        if len(some) == 1:
            group = self._idle.get(some[0].idle)
            if group is not None and group.members[some[0].idle] is some[0]:
                some[0].idle.wake_up()
            return
        half = len(some) // 2
        for part in (some[:half], some[half:]):
            link.send(_pack(part), partial(self._looked, link, part))


def _pack(some: list[_Suspects]) -> bytes:
    """Ask how many of their keys exist."""
    number = sum([suspects.number for suspects in some])
    return b"*%d\r\n$6\r\nEXISTS\r\n%b" % (1 + number, b"".join([suspects.words for suspects in some]))
