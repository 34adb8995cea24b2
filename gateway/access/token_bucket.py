"""The token bucket that limits the calls of a key over all shards.

Shards count the calls that they let through in shared memory (`shared_memory.py`); each keeps a bucket of its own.
"""

from __future__ import annotations


class TokenBucket:
    """A token bucket with room for the calls of one second: a call takes a token, time brings tokens back.

    The calls of other shards take tokens, too: the bucket learns of them by the sum of all calls. The caller passes
    the time, in seconds.
    """

    __slots__ = ("_at", "_spent", "_tokens")

    def __init__(self) -> None:
        self._tokens = float("inf")  # full, however much that is
        self._at = 0.0
        self._spent: int | None = None

    def take(self, rate: float, now: float, spent: int, count: int = 1) -> bool:
        """Take tokens, if there are so many; the caller then adds them to the sum of all shards.

        Args:
            rate: tokens per second; it may differ from call to call.
            now: seconds; never less than at the last call.
            spent: the sum of calls that all shards have let through.
            count: how many to take: all or none.

        Returns:
            Whether the call may be made.
        """
        self.update(rate, now, spent)
        if self._tokens < count:
            return False
        self._tokens -= count
        self._spent = spent + count
        return True

    def update(self, rate: float, now: float, spent: int) -> None:
        """Add the tokens that time has brought, and take those of other shards; arguments as for `take`."""
        room = max(rate, 1.0)  # less than one would never let anything through
        taken = 0 if self._spent is None else spent - self._spent
        self._tokens = max(-room, min(room, self._tokens + (now - self._at) * rate) - taken)
        self._at, self._spent = now, spent
