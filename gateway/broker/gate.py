"""A gate that lets so many pass at a time, and the others in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable


class Gate:
    """Places for so many at a time, and a line of those who wait for one."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._line: dict[Callable[[], bool], None] = {}  # in order; nobody stands in it while a place is free

    def enter(self, turn: Callable[[], bool]) -> bool:
        """Take a place, which `leave` gives back.

        Args:
            turn: is called later, where False is returned now: it has the place then, and says whether it keeps it.
        """
        if self._free:
            self._free -= 1
            return True
        self._line[turn] = None
        return False

    def leave(self) -> None:
        """Give a place back: to the first who waits and still wants it."""
        while self._line:
            turn = next(iter(self._line))
            del self._line[turn]
            if turn():
                return
        self._free += 1

    def go_away(self, turn: Callable[[], bool]) -> None:
        """Wait no longer for a place."""
        self._line.pop(turn, None)
