"""Long lists that are taken apart piece by piece: to free 20,000 entries at once takes about a millisecond."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


class OneTime(list[T]):
    """A list that nobody else holds: whoever gets it may take it apart."""


def taken(entries: list[T], size: int) -> Iterator[list[T]]:
    """Take all entries out of a list, so many at a time, in their order."""
    entries.reverse()
    while entries:
        yield entries[: -size - 1 : -1]
        del entries[-size:]
