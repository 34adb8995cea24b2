"""How many calls a key may make: a token bucket that all shards fill and empty in the same way.

What connections a key has, and how many calls all shards have let through, stands on the board (`shared_memory.py`).
"""

from __future__ import annotations


class Bucket:
    """A token bucket: a call takes a token, time brings them back, and there is room for those of one second.

    Each shard has one of its own for a key; what the others took it learns from the sum of all calls, so that they are
    as one. Knows no clock: the caller says what time it is, in seconds.
    """

    __slots__ = ("_at", "_spent", "_tokens")

    def __init__(self) -> None:
        self._tokens = float("inf")  # full, however much that is
        self._at = 0.0
        self._spent: int | None = None

    def take(self, rate: float, now: float, spent: int) -> bool:
        """Take one token, if there is one; the caller then counts the call among those of all shards.

        Args:
            rate: tokens per second; it may differ from call to call.
            now: never less than at the last call.
            spent: calls that all shards have let through until now; those of the others take their tokens.
        """
        self.look(rate, now, spent)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        self._spent = spent + 1
        return True

    def look(self, rate: float, now: float, spent: int) -> None:
        """Bring the bucket up to date; the arguments are those of `take`."""
        room = max(rate, 1.0)  # less than one would never let anything through
        taken = 0 if self._spent is None else spent - self._spent
        self._tokens = max(-room, min(room, self._tokens + (now - self._at) * rate) - taken)
        self._at, self._spent = now, spent
