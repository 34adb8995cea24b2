"""Histograms: each duration counts to the first bound that is not less."""

from __future__ import annotations

from bullmq_proxy.gateway.values.histogram import CALLS, Histogram


def test_a_duration_counts_to_the_first_bound_that_is_not_less() -> None:
    histogram = Histogram(CALLS)
    for seconds in (0.0, 0.001, 0.0011, 5.0, 5.1):
        histogram.add(seconds)
    *counts, total = histogram.figures
    assert (counts[0], counts[1], counts[-2], counts[-1]) == (2, 1, 1, 1)
    assert sum(counts) == 5
    assert abs(total - 10.1021) < 1e-9
