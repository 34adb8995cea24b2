"""The ages of connections: old ones are closed, a few at a time, so that clients find their way to other shards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

_REASON: Final = "the connection has lived its time (max_connection_age)"
_SPREAD: Final = 0.2  # of the age: connections that were made together are not closed together
_LOOKS: Final = 100  # in the time of an age
_LONGEST: Final = 10.0  # s between two looks
_SCATTER: Final = 2654435761  # Knuth's multiplier: numbers that follow each other give fractions that do not


class Aging(Protocol):
    """A connection that may become old."""

    @property
    def number(self) -> int:
        """In microseconds since 1970, when it was made."""

    def expire(self, reason: str, *, is_overdue: bool) -> None:
        """Close it, a worker's once it has finished what it has; when it is overdue, whatever is under way."""


class Ages:
    """Looks at the ages of a shard's connections."""

    def __init__(self, connections: Callable[[], Iterable[Aging]], limit: float, patience: float) -> None:
        """Look after what `connections` returns.

        Args:
            connections: the open ones.
            limit: seconds that one may live, more or less.
            patience: seconds after that until it is overdue.
        """
        self._connections = connections
        self._limit = limit
        self._patience = patience

    async def run(self) -> None:
        """Look at all again and again, until cancelled."""
        while True:
            await asyncio.sleep(min(self._limit / _LOOKS, _LONGEST))
            self._look()

    def _look(self) -> None:
        now = time.time()
        for connection in list(self._connections()):
            left = self.limit_of(connection.number) - (now - connection.number / 1e6)
            if left <= 0:
                connection.expire(_REASON, is_overdue=left < -self._patience)

    def limit_of(self, number: int) -> float:
        """Return the seconds that the connection of a number may live."""
        fraction = number * _SCATTER % 2**32 / 2**32
        return self._limit * (1 - _SPREAD / 2 + _SPREAD * fraction)
