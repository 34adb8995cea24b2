"""Pauses between starts of something that keeps dying: at once, then 0.5, 1, 2 … 30 seconds."""

from __future__ import annotations

FIRST = 0.5
LONGEST = 30.0
# Seconds in health that make up for one death: what dies more often than that is started ever more rarely, while one
# that an accident ends now and then is back at once. A start takes about half a second.
HEALTHY = 2.0


class Backoff:
    """Counts deaths. Knows no clock: the caller says how long the dead one was healthy."""

    def __init__(self) -> None:
        self._deaths = 0

    def __repr__(self) -> str:
        return f"<Backoff deaths={self._deaths}>"

    def pause(self, healthy_for: float) -> float:
        """Seconds to wait before the next start.

        Args:
            healthy_for: seconds that the dead one was fit to serve, 0 when it never was.
        """
        self._deaths = max(0, self._deaths - int(healthy_for / HEALTHY)) + 1
        if self._deaths == 1:
            return 0.0
        # The exponent is bounded because 2**n of a long outage would overflow a float.
        return min(LONGEST, FIRST * 2.0 ** min(self._deaths - 2, 16))
