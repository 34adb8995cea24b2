"""The board: how many connections each key has in each slot, in memory that all shards of a gateway share.

The supervisor makes it before it forks. Each shard writes into its own row alone and reads the others': whole aligned
numbers of 32 bits, which no reader ever sees half written, so that no lock is needed.
"""

from __future__ import annotations

import mmap
from typing import Final

COLUMNS: Final = 1024
"""How many keys a gateway can count."""

_CELL: Final = 4  # bytes


class Board:
    """One row of counts for each slot, one column for each key."""

    def __init__(self, slots: int) -> None:
        """Make an empty board; processes that are forked later share it."""
        self._cells = memoryview(mmap.mmap(-1, slots * COLUMNS * _CELL)).cast("I")

    def row(self, slot: int) -> Row:
        """What the shard of a slot may write."""
        return Row(self._cells, slot)

    def clear(self, slot: int) -> None:
        """The slot's shard is dead, and its connections with it. For the parent, before it forks the next one."""
        start = slot * COLUMNS
        self._cells[start : start + COLUMNS] = memoryview(bytes(COLUMNS * _CELL)).cast("I")


class Row:
    """The board as one shard sees it."""

    __slots__ = ("_cells", "_start")

    def __init__(self, cells: memoryview[int], slot: int) -> None:
        self._cells = cells
        self._start = slot * COLUMNS

    def add(self, column: int, change: int) -> None:
        """Count a connection of our own more, or less."""
        self._cells[self._start + column] += change

    def own(self, column: int) -> int:
        """The connections of a key in this shard."""
        return self._cells[self._start + column]

    def total(self, column: int) -> int:
        """The connections of a key in the whole gateway."""
        return sum(self._cells[column::COLUMNS])
