"""What is said about values that cannot be used: the place, what was expected, and the nearest known name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

from msgspec import Meta


def shows(shape: Any) -> Meta:
    """Marks a type that a function reads, or checks further, by itself: documents show `shape` in its place.

    `Annotated[Raw, shows(JobOptions)]` stays text here. A field that shows `Never` is known only to be refused.
    """
    return Meta(extra={"shows": shape})


def shortened(name: str) -> str:
    """Return a name of the client's making, cut for a message."""
    return name if len(name) <= 100 else name[:100] + "…"


_CANDIDATES: Final = 3
_LONGEST: Final = 64  # characters of a name that are compared


def nearest(name: str, known: Collection[str]) -> str:
    """Return `, did you mean …?` where a known name is near enough, else nothing.

    To compare a name with 100 others letter by letter takes 2 ms, and clients can be wrong a thousand times a second:
    only the ones that share most pairs of letters are compared.
    """
    pairs = _pairs(name[:_LONGEST])

    def share(other: str) -> float:
        others = _pairs_of_known(other)
        return len(pairs & others) / (len(pairs) + len(others))

    ranked = sorted(known, key=share, reverse=True)[:_CANDIDATES]
    close = difflib.get_close_matches(name[:_LONGEST], ranked, n=1)
    return f", did you mean `{close[0]}`?" if close else ""


def _pairs(name: str) -> set[str]:
    name = f" {name.lower()} "
    return {name[at : at + 2] for at in range(len(name) - 1)}


@lru_cache(maxsize=4096)
def _pairs_of_known(name: str) -> frozenset[str]:
    return frozenset(_pairs(name))


_PATTERN: Final = "matching regex"
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)


def describe(error: Exception, known: frozenset[str], root: str = "args") -> str:
    """Return a decoding error in the words of the wire: its place as `args[2].delay`, for a typo the nearest name."""
    text = str(error).replace(" - at `key` in `$", " as a key - at `$")
    what, _, place = text.partition(" - at `$")
    if unknown := _UNKNOWN_FIELD.match(what):
        field = shortened(unknown["field"])
        what = f"Unknown option `{field}`{nearest(field, known - {field})}"  # known elsewhere in the arguments
    if _PATTERN in what:  # the only pattern is that of job ids
        what = "Expected a job's id, not the name of one of BullMQ's own keys"
    place = place.rstrip("`")
    return f"{what} - at `{root}{place}`"
