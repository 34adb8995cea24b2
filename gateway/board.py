"""The board: how many connections each key has in each slot, and how many calls it has made, in shared memory.

The supervisor makes it before it forks. Each shard writes into its own row alone and reads the others': whole aligned
numbers of 64 bits, which no reader ever sees half written, so that no lock is needed.
"""

from __future__ import annotations

import mmap
from typing import Final

COLUMNS: Final = 1024
"""How many keys a gateway can count."""

_CELL: Final = 8  # bytes


class Board:
    """One row of counts for each slot, one column for each key."""

    def __init__(self, slots: int) -> None:
        """Make an empty board; processes that are forked later share it."""
        self._open, self._spent = (memoryview(mmap.mmap(-1, slots * COLUMNS * _CELL)).cast("Q") for _ in range(2))

    def row(self, slot: int) -> Row:
        """What the shard of a slot may write."""
        return Row(self._open, self._spent, slot)

    def clear(self, slot: int) -> None:
        """The slot's shard is dead, and its connections with it. For the parent, before it forks the next one.

        The calls that it let through stay counted.
        """
        start = slot * COLUMNS
        self._open[start : start + COLUMNS] = memoryview(bytes(COLUMNS * _CELL)).cast("Q")


class Row:
    """The board as one shard sees it."""

    __slots__ = ("_open", "_spent", "_start")

    def __init__(self, open: memoryview[int], spent: memoryview[int], slot: int) -> None:
        self._open = open
        self._spent = spent
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
