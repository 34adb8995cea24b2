"""What is said about values that cannot be used: the place, what was expected, and the nearest known name."""

from __future__ import annotations

import difflib
import re
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


def nearest(name: str, known: Any) -> str:
    """Return `, did you mean …?` where a known name is near enough, else nothing."""
    close = difflib.get_close_matches(name[:100], list(known), n=1)
    return f", did you mean `{close[0]}`?" if close else ""


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
