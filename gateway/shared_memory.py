"""The board: what shards let each other see in shared memory. Connections and calls of each key, their figures, and
that they live.

The supervisor makes it before it forks. Each shard writes into its own row alone and reads the others': aligned
numbers of 64 bits, which no reader ever sees half written, so that no lock is needed.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Sequence
from typing import Final

COLUMNS: Final = 1024
"""How many keys a gateway can count."""

FIGURES: Final = 30
"""How many figures a shard can publish."""

_PLACES: Final = 2 + FIGURES  # of one shard: the layout, the time, the figures

_CELL: Final = 8  # bytes


class SharedMemory:
    """One row for each slot: of counts with a column for each key, of figures, and one count of signs of life."""

    def __init__(self, slots: int) -> None:
        """Make an empty board; processes that are forked later share it."""
        self._open, self._spent = (memoryview(mmap.mmap(-1, slots * COLUMNS * _CELL)).cast("Q") for _ in range(2))
        self._figures = memoryview(mmap.mmap(-1, slots * _PLACES * _CELL)).cast("d")
        self._beats = memoryview(mmap.mmap(-1, slots * _CELL)).cast("Q")

    def row(self, slot: int) -> ShardMemory:
        """What the shard of a slot may write."""
        return ShardMemory(self._open, self._spent, self._figures, self._beats, slot)

    def beats(self) -> list[int]:
        """How often each slot's shard has published its figures; one that stands still does so no more."""
        return self._beats.tolist()

    def clear(self, slot: int) -> None:
        """The slot's shard is dead, and its connections with it. For the parent, before it forks the next one.

        The calls that it let through stay counted; its figures are gone until its successor has some.
        """
        start = slot * COLUMNS
        self._open[start : start + COLUMNS] = memoryview(bytes(COLUMNS * _CELL)).cast("Q")
        start = slot * _PLACES
        self._figures[start : start + _PLACES] = memoryview(bytes(_PLACES * _CELL)).cast("d")
        self._beats[slot] = 0


class ShardMemory:
    """The board as one shard sees it."""

    __slots__ = ("_beats", "_figures", "_open", "_slot", "_spent", "_start")

    def __init__(
        self,
        open: memoryview[int],
        spent: memoryview[int],
        figures: memoryview[float],
        beats: memoryview[int],
        slot: int,
    ) -> None:
        self._open = open
        self._spent = spent
        self._figures = figures
        self._beats = beats
        self._slot = slot
        self._start = slot * COLUMNS

    def add(self, column: int, change: int) -> None:
        """Count a connection of our own more, or less."""
        self._open[self._start + column] += change

    def total(self, column: int) -> int:
        """The connections of a key in the whole gateway."""
        return sum(self._open[column::COLUMNS])

    def spend(self, column: int) -> None:
        """Count a call that we let through."""
        self._spent[self._start + column] += 1

    def spent(self, column: int) -> int:
        """The calls of a key that the whole gateway has let through, ever."""
        return sum(self._spent[column::COLUMNS])

    def publish(self, layout: int, figures: Sequence[float]) -> None:
        """Let all see our figures; which is our sign of life for the parent, too.

        Args:
            layout: of the figures: not 0, and another one where their order or meaning is another.
            figures: at most `FIGURES`.
        """
        start = self._slot * _PLACES
        for place, figure in enumerate((layout, time.monotonic(), *figures), start):
            self._figures[place] = figure
        self._beats[self._slot] += 1

    def published(self, layout: int) -> dict[int, tuple[float, list[float]]]:
        """The figures of all slots whose shards have published any of this layout, by slot, with their age in s."""
        now, slots = time.monotonic(), range(len(self._figures) // _PLACES)
        rows = {slot: list(self._figures[slot * _PLACES : (slot + 1) * _PLACES]) for slot in slots}
        return {slot: (now - row[1], row[2:]) for slot, row in rows.items() if row[0] == layout}
