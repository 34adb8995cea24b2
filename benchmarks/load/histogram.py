"""Latencies in buckets of 3 %: constant memory, exact counts, the same in every language that a peer is written in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping


class Histogram:
    """Counts of latencies.

    A bucket holds 1 µs below 64 µs, and above that 1/32 of a power of two: value `v` with `s` bits more than 6 falls
    into bucket `32 * s + (v >> s)`, which counts up without a gap.
    """

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        """Make a histogram, empty or with counts by bucket."""
        self.counts: Counter[int] = Counter(counts or {})

    def record(self, seconds: float, times: int = 1) -> None:
        """Count a latency."""
        self.counts[bucket(int(seconds * 1e6))] += times

    def quantile(self, share: float) -> float | None:
        """The latency in ms that `share` of all do not exceed: the middle of its bucket. None without any."""
        total = sum(self.counts.values())
        if not total:
            return None
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen >= share * total:
                return middle(index) / 1000
        raise AssertionError("the counts add up to the total")


def merged(histograms: Iterable[Mapping[int, int]]) -> Histogram:
    """All counts of several histograms."""
    whole = Histogram()
    for counts in histograms:
        whole.counts.update(counts)
    return whole


def bucket(microseconds: int) -> int:
    """The bucket of a latency."""
    shift = max(0, microseconds.bit_length() - 6)
    return 32 * shift + (microseconds >> shift)


def middle(index: int) -> float:
    """The middle of a bucket in µs."""
    shift = max(0, index // 32 - 1)
    return ((index - 32 * shift) << shift) + (1 << shift) / 2 - (0.5 if not shift else 0)
