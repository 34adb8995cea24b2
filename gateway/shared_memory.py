"""Memory that all shards of a gateway share: the connections and calls of each key, figures, history, signs of life.

The supervisor makes it; each shard maps it by a descriptor that it inherits. A shard writes its own part and reads the
others': aligned numbers of 64 bits, which no reader ever sees half written, so that no lock is needed.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Final

LAYOUT: Final = 3
"""Number of the layout below. Shards of another version may map the memory: count up with any change of it."""

COLUMNS: Final = 1024
"""How many keys a gateway can count."""

FIGURES: Final = 2400
"""How many figures a shard can publish."""

SERIES: Final = 33
"""How many series of figures each slot has for the history: that of all queues, and those of the busiest ones."""

STEPS: Final = 360
"""Steps of a series; the oldest one is written over."""

WIDTH: Final = 7
"""Numbers of a step: which one it is, and its figures."""

Published = tuple[float | None, list[float]]
"""The age in seconds of what a shard has published, None where it has ended, and its figures."""

Title = tuple[int, int]
"""What a series is of; only zeros where it is of nothing."""

_PLACES: Final = 2 + FIGURES  # of one shard: the layout of the figures, the time, the figures
_TITLES: Final = 2 * SERIES
_HISTORY: Final = SERIES * STEPS * WIDTH
_CELL: Final = 8  # bytes
_HEADER: Final = struct.Struct("QQ")  # LAYOUT, slots


class LayoutError(Exception):
    """The memory was made by a version with another layout."""


def make_memory(size: int) -> int:
    """Return a descriptor of so many bytes, all zero, that processes can map which inherit it."""
    if sys.platform == "linux":
        fd = os.memfd_create("bullmq-proxy")
    else:
        import tempfile  # noqa: PLC0415 - with all that it imports, each shard would carry it

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


class SharedMemory:
    """For each slot: connections and calls per key, figures, history, and a count of signs of life.

    Attributes:
        fd: descriptor of the memory, for `attach`; -1 where it belongs to this process alone.
    """

    def __init__(self, slots: int, fd: int = -1) -> None:
        """Map the memory of a descriptor, or make some for this process alone."""
        self.fd = fd
        whole = memoryview(mmap.mmap(fd, _size(slots)))[_HEADER.size :]
        counts, beats = slots * COLUMNS * _CELL, slots * _CELL
        self._open = whole[:counts].cast("Q")
        self._spent = whole[counts : 2 * counts].cast("Q")
        self._beats = whole[2 * counts : 2 * counts + beats].cast("Q")
        figures, titles = slots * _PLACES * _CELL, slots * _TITLES * _CELL
        rest = whole[2 * counts + beats :]
        self._figures = rest[:figures].cast("d")
        self._titles = rest[figures : figures + titles].cast("Q")
        self._history = rest[figures + titles :].cast("d")

    @classmethod
    def create(cls, slots: int) -> SharedMemory:
        """Make memory that other processes can attach. The caller closes `fd`; what is mapped stays."""
        fd = make_memory(_size(slots))
        os.pwrite(fd, _HEADER.pack(LAYOUT, slots), 0)
        return cls(slots, fd)

    @classmethod
    def attach(cls, fd: int) -> SharedMemory:
        """Map the memory that another process has created.

        Raises:
            LayoutError: it has another layout than this version's.
        """
        layout, slots = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
        if layout != LAYOUT:
            raise LayoutError(f"the shared memory has layout {layout}, not {LAYOUT}")
        return cls(slots, fd)

    def row(self, slot: int) -> ShardMemory:
        """Return the memory as the shard of a slot uses it."""
        return ShardMemory(self._open, self._spent, self._figures, self._beats, self._titles, self._history, slot)

    def beats(self) -> list[int]:
        """Return how often each slot's shard has published its figures; a hanging one has stopped doing so."""
        return self._beats.tolist()

    def clear(self, slot: int) -> None:
        """Forget the connections and signs of life of a slot's shard that has died, and that its figures are current.

        The parent calls it before it starts the next one. The calls that the shard let through stay counted, its
        figures are there for its successor to go on with, and so does the history.
        """
        start = slot * COLUMNS
        self._open[start : start + COLUMNS] = memoryview(bytes(COLUMNS * _CELL)).cast("Q")
        self._figures[slot * _PLACES + 1] = 0.0
        self._beats[slot] = 0


def _size(slots: int) -> int:
    """Return the bytes of the memory of so many slots."""
    return _HEADER.size + slots * _CELL * (2 * COLUMNS + 1 + _PLACES + _TITLES + _HISTORY)


class ShardMemory:
    """The shared memory as one shard uses it."""

    __slots__ = ("_beats", "_figures", "_history", "_open", "_slot", "_spent", "_start", "_titles")

    def __init__(
        self,
        open: memoryview[int],
        spent: memoryview[int],
        figures: memoryview[float],
        beats: memoryview[int],
        titles: memoryview[int],
        history: memoryview[float],
        slot: int,
    ) -> None:
        self._open = open
        self._spent = spent
        self._figures = figures
        self._beats = beats
        self._titles = titles
        self._history = history
        self._slot = slot
        self._start = slot * COLUMNS

    def add(self, column: int, change: int) -> None:
        """Change the number of this shard's open connections of a key."""
        self._open[self._start + column] += change

    def total(self, column: int) -> int:
        """Return the number of open connections of a key in the whole gateway."""
        return sum(self._open[column::COLUMNS])

    def spend(self, column: int, count: int = 1) -> None:
        """Count calls of a key that this shard lets through."""
        self._spent[self._start + column] += count

    def spent(self, column: int) -> int:
        """Return the number of calls of a key that the whole gateway has let through, ever."""
        return sum(self._spent[column::COLUMNS])

    def publish(self, layout: int, figures: Sequence[float]) -> None:
        """Publish this shard's figures, and a sign of life for the parent.

        Args:
            layout: number of the figures' order and meaning: not 0, and another one for each other meaning.
            figures: at most `FIGURES`.
        """
        start = self._slot * _PLACES
        cells = array("d", (layout, time.monotonic(), *figures))
        self._figures[start : start + len(cells)] = memoryview(cells)
        self._beats[self._slot] += 1

    def published(self, layout: int) -> dict[int, Published]:
        """Return what the shard of each slot has published in this layout."""
        now, slots = time.monotonic(), range(len(self._figures) // _PLACES)
        rows = {slot: list(self._figures[slot * _PLACES : (slot + 1) * _PLACES]) for slot in slots}
        return {slot: (now - row[1] if row[1] else None, row[2:]) for slot, row in rows.items() if row[0] == layout}

    def counted(self, layout: int, count: int) -> list[float]:
        """Return the first figures that the shard before in this slot has published in this layout, or zeros."""
        row = list(self._figures[self._slot * _PLACES : (self._slot + 1) * _PLACES])
        return row[2 : 2 + count] if row[0] == layout else [0.0] * count

    def history(self) -> tuple[memoryview[int], memoryview[float]]:
        """Return the titles of this slot's series, two numbers for each, and all their steps."""
        return self._history_of(self._slot)

    def histories(self) -> Iterator[tuple[memoryview[int], memoryview[float]]]:
        """Yield what `history` returns, for each slot."""
        return map(self._history_of, range(len(self._titles) // _TITLES))

    def _history_of(self, slot: int) -> tuple[memoryview[int], memoryview[float]]:
        titles = self._titles[slot * _TITLES : (slot + 1) * _TITLES]
        return titles, self._history[slot * _HISTORY : (slot + 1) * _HISTORY]
