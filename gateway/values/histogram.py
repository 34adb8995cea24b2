"""Histograms of durations, in the form that Prometheus reads."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

CALLS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Seconds; upper bounds for what is answered soon."""

JOBS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0, 3600.0)
"""Seconds; upper bounds for what may take long."""


class Histogram:
    """Durations by size.

    Attributes:
        bounds: in seconds; a duration counts to the first one that is not less, or to those beyond all.
        counts: of each bound, and of those beyond.
        seconds: of all together.
    """

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Make an empty one."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds

    @property
    def figures(self) -> list[float]:
        """The counts, and the sum of the seconds."""
        return [*self.counts, self.seconds]
