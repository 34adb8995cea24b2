"""The token bucket that limits how often something may be done."""

from __future__ import annotations


class TokenBucket:
    """A token bucket, full at first: what is done takes a token, time brings tokens back.

    Where others take from the same limit, as the shards of a gateway do, the bucket learns of that by the sum of all
    that was taken. The caller passes the time, in seconds.
    """

    __slots__ = ("_at", "_spent", "_tokens")

    def __init__(self) -> None:
        self._tokens = float("inf")  # full, however much that is
        self._at = 0.0
        self._spent: int | None = None

    def take(self, rate: float, now: float, count: int = 1, *, seconds: float = 1.0, spent: int | None = None) -> bool:
        """Take tokens, if there are so many; the caller then adds them to the sum of all.

        Args:
            rate: tokens per second; it may differ from call to call.
            now: seconds; never less than at the last call.
            count: how many to take: all or none.
            seconds: for which the bucket has room.
            spent: the sum of what all have taken; None where there is nobody else.

        Returns:
            Whether there were so many.
        """
        self.update(rate, now, seconds=seconds, spent=spent)
        if self._tokens < count:
            return False
        self._tokens -= count
        self._spent = None if spent is None else spent + count
        return True

    def update(self, rate: float, now: float, *, seconds: float = 1.0, spent: int | None = None) -> None:
        """Add the tokens that time has brought, and take those of others; arguments as for `take`."""
        room = max(rate * seconds, 1.0)  # less than one would never let anything through
        taken = 0 if self._spent is None or spent is None else spent - self._spent
        self._tokens = max(-room, min(room, self._tokens + (now - self._at) * rate) - taken)
        self._at, self._spent = now, spent
