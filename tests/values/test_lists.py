"""Lists that are taken apart."""

from __future__ import annotations

import pytest

from bullmq_proxy.gateway.sessions.results import encoded
from bullmq_proxy.gateway.turns import Turns
from bullmq_proxy.gateway.values.lists import OneTime, taken


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_all_entries_come_in_order_and_are_gone(count: int) -> None:
    entries = list(range(count))
    left, found = [], []
    for some in taken(entries, 3):
        found += some
        left.append(len(entries))
    assert (found, entries) == (list(range(count)), [])
    assert left == [count - at for at in range(0, count, 3)]


@pytest.mark.parametrize("count", [0, 1, 100, 101, 1000])
async def test_results_that_are_taken_apart_are_the_same_json(count: int) -> None:
    entries = [str(n) for n in range(count)]
    for wrap in (lambda value: value, lambda value: {"a": value}):
        texts = [await encoded(wrap(make(entries)), Turns()) for make in (list, OneTime)]
        assert len({text if isinstance(text, bytes) else b"".join(text) for text in texts}) == 1
