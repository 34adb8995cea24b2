"""The use that clients make of one key: their open connections, and their calls."""

from __future__ import annotations

import time
from typing import Protocol

from bullmq_proxy.gateway.values.token_bucket import TokenBucket


class Counts(Protocol):
    """Counts of keys, each in its column: those in the memory of all shards, or those of one shard."""

    def add(self, column: int, change: int) -> None:
        """Change the number of this shard's open connections."""

    def total(self, column: int) -> int:
        """Return the number of open connections of all."""

    def spend(self, column: int, count: int = 1) -> None:
        """Count calls that this shard lets through."""

    def spent(self, column: int) -> int:
        """Return the number of calls that all have let through, ever."""


class OwnCounts:
    """The counts of one key on this shard alone; there is one column."""

    __slots__ = ("_open", "_spent")

    def __init__(self) -> None:
        """Begin with nothing."""
        self._open = self._spent = 0

    def add(self, column: int, change: int) -> None:
        """Change the number of open connections."""
        self._open += change

    def total(self, column: int) -> int:
        """Return the number of open connections."""
        return self._open

    def spend(self, column: int, count: int = 1) -> None:
        """Count calls."""
        self._spent += count

    def spent(self, column: int) -> int:
        """Return the number of calls, ever."""
        return self._spent


class Usage:
    """The use of a key, held against its limits."""

    __slots__ = ("__weakref__", "_bucket", "_counts")

    def __init__(self, counts: Counts) -> None:
        """Begin with a second's worth of calls; `counts` has the column of the key."""
        self._counts = counts
        self._bucket = TokenBucket()

    def enter(self, column: int, most: int | None) -> bool:
        """Count a connection, unless there are `most` already; return whether it is counted."""
        # First counted, then compared: of two shards at once both may refuse, but never does one too many come in.
        self._counts.add(column, 1)
        if most is None or self._counts.total(column) <= most:
            return True
        self.leave(column)
        return False

    def leave(self, column: int) -> None:
        """Count a connection no more."""
        self._counts.add(column, -1)

    def learn(self, column: int, rate: float) -> None:
        """Learn what other shards let through; `rate` is the limit, in calls per second."""
        self._bucket.update(rate, time.monotonic(), spent=self._counts.spent(column))

    def spend(self, column: int, rate: float, count: int) -> bool:
        """Let so many calls through, if all shards together have so many left of `rate` per second."""
        spent = self._counts.spent(column)
        if not self._bucket.take(rate, time.monotonic(), count, spent=spent):
            return False
        self._counts.spend(column, count)
        return True
