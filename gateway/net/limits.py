"""How many calls a key may make: a token bucket. What connections it has is counted on the board (`gateway.board`)."""

from __future__ import annotations


class Bucket:
    """A token bucket: a call takes a token, time brings them back, and there is room for those of one second.

    Knows no clock: the caller says what time it is, in seconds.
    """

    __slots__ = ("_at", "_tokens")

    def __init__(self) -> None:
        self._tokens = float("inf")  # full, however much that is
        self._at = 0.0

    def take(self, rate: float, now: float) -> bool:
        """Take one token, if there is one.

        Args:
            rate: tokens per second; it may differ from call to call.
            now: never less than at the last call.
        """
        room = max(rate, 1.0)  # less than one would never let anything through
        self._tokens = min(room, self._tokens + (now - self._at) * rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
