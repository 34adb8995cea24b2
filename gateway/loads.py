"""The load of each shard, for the others to see, and the lines by which they hand on sockets (SCM_RIGHTS, unix(7)).

The supervisor makes them; each shard inherits their descriptors.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from bullmq_proxy.gateway.shared_memory import make_memory

_CELL: Final = 8  # bytes
_SLACK: Final = 20  # one for so many: that much more than another shard's is no reason to hand on
_UNTAKEN: Final = 64  # sockets that a shard may have to take still: one that has more does not get on
PULSE: Final = 0.5
"""Seconds between two signs of life of a shard, without which nothing is handed on to it."""
_LATE: Final = 3 * PULSE
MOST_HOPS: Final = 3
"""Times that one socket is handed on at most: shards that accept at one moment choose the same one, which hands on."""


class Lines(NamedTuple):
    """Descriptors by which shards hand on sockets.

    Attributes:
        memory: that all shards map.
        inlets: of each slot, where its shard gets sockets.
        outlets: of each slot, where others send them.
    """

    memory: int
    inlets: tuple[int, ...]
    outlets: tuple[int, ...]

    @classmethod
    def create(cls, slots: int) -> Lines:
        """Make them; whoever has made them closes them."""
        memory = make_memory(_size(slots))
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(slots)]
        for pair in pairs:
            for end in pair:
                end.setblocking(False)
        return cls(memory, tuple(inlet.detach() for inlet, _ in pairs), tuple(outlet.detach() for _, outlet in pairs))

    @classmethod
    def of(cls, descriptors: Sequence[int]) -> Lines | None:
        """Return the lines that `descriptors` has listed; None for none."""
        slots = len(descriptors) // 2
        return (
            cls(descriptors[0], tuple(descriptors[1 : slots + 1]), tuple(descriptors[slots + 1 :])) if slots else None
        )

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them."""
        return (self.memory, *self.inlets, *self.outlets)

    def forget(self, slot: int, *, closes: bool) -> None:
        """Note that a slot has no shard now, so that nobody hands anything on to it.

        Args:
            slot: of the shard that was there.
            closes: close what it has not taken; else its next shard does.
        """
        loads = Loads(self, slot)
        loads.leave()
        loads.weigh(-loads.weight)
        while closes and (taken := self.take(slot, loads)):
            for each, _ in taken:
                each.close()

    def close(self) -> None:
        """Close all of them."""
        for fd in self.descriptors:
            os.close(fd)

    def take(self, slot: int, loads: Loads, most: int = 1) -> list[tuple[socket.socket, int]]:
        """Return sockets that were handed to a slot, at most so many, and how often each was handed on."""
        inlet = socket.socket(fileno=self.inlets[slot])
        taken: list[tuple[socket.socket, int]] = []
        try:
            while len(taken) < most:
                hops, descriptors, _, _ = socket.recv_fds(inlet, 1, 1)
                taken.extend((socket.socket(fileno=fd), hops[0]) for fd in descriptors)
                loads.count_taken()
        except BlockingIOError:
            pass
        finally:
            inlet.detach()
        return taken


def _size(slots: int) -> int:
    return _CELL * slots * (slots + 3)


def _now() -> int:
    """Return the time in ms, by the clock that all processes have."""
    return time.monotonic_ns() // 1_000_000


class Loads:
    """The load of each slot's shard, in the shared memory; each number has one shard that writes it."""

    def __init__(self, lines: Lines, slot: int) -> None:
        """Map the memory, for the shard of a slot."""
        self._slots = slots = len(lines.inlets)
        self._slot = slot
        cells = memoryview(mmap.mmap(lines.memory, _size(slots))).cast("q")
        self._weights, self._alive_at, self._taken = (cells[part * slots : (part + 1) * slots] for part in range(3))
        self._given = cells[3 * slots :]  # by each slot, to each slot

    @property
    def weight(self) -> int:
        """The load of this shard."""
        return self._weights[self._slot]

    def weigh(self, change: int) -> None:
        """Note that this shard has so much more to do."""
        self._weights[self._slot] += change

    def show_life(self) -> None:
        """Let others hand on sockets to this shard, for a while."""
        self._alive_at[self._slot] = _now()

    def leave(self) -> None:
        """Let nobody do so any more."""
        self._alive_at[self._slot] = 0

    def count_given(self, slot: int) -> None:
        """Count a socket that was handed on: it weighs on the other shard from now on, which has not seen it yet."""
        self._given[self._slot * self._slots + slot] += 1

    def count_taken(self) -> None:
        """Count a socket that was taken."""
        self._taken[self._slot] += 1

    def lighter(self) -> int | None:
        """Return the slot of the shard that has least to do, if that is less than this one has."""
        loads = {slot: self._load_of(slot) for slot in range(self._slots) if slot != self._slot and self._gets_on(slot)}
        if not loads:
            return None
        least = min(loads, key=loads.__getitem__)
        own = self._load_of(self._slot)
        return least if loads[least] + own // _SLACK < own else None

    def _load_of(self, slot: int) -> int:
        return self._weights[slot] + self._untaken(slot)

    def _untaken(self, slot: int) -> int:
        return sum(self._given[slot :: self._slots]) - self._taken[slot]

    def _gets_on(self, slot: int) -> bool:
        return _now() - self._alive_at[slot] < _LATE * 1000 and self._untaken(slot) < _UNTAKEN
