"""What is said about values that cannot be used: the place, what was expected, and the nearest known name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final, Protocol, cast

import msgspec
from msgspec import Meta, Raw


def shows(shape: Any) -> Meta:
    """Mark a type that a function reads, or checks further, by itself: documents show `shape` in its place.

    `Annotated[Raw, shows(JobOptions)]` stays text here. A field that shows `Never` is known only to be refused.
    """
    return Meta(extra={"shows": shape})


class Decoder(Protocol):
    """Reads a value from JSON text."""

    def decode(self, text: Raw, /) -> Any:
        """Return the value; one that cannot be used is one of msgspec's errors."""


def decoded_by(decoder: Decoder, *, shows: Any) -> Meta:
    """Mark the type of an argument that a decoder of its own reads; documents show `shows` in its place."""
    return Meta(extra={"decoder": decoder, "shows": shows})


def decoder_of(hint: Any) -> Decoder:
    """Return what reads an argument of a type: msgspec's decoder, or that of `decoded_by`."""
    for meta in getattr(hint, "__metadata__", ()):
        if meta.extra and "decoder" in meta.extra:
            return cast(Decoder, meta.extra["decoder"])
    return msgspec.json.Decoder(hint)


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


_WANTED: Final[dict[str, str]] = {}  # by pattern


def matching(pattern: str, wanted: str, **more: Any) -> Meta:
    """Restrict a text to a pattern; an error says `Expected WANTED` in place of the pattern. `more` is as in `Meta`."""
    _WANTED[pattern] = wanted
    return Meta(pattern=pattern, **more)


_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)


def describe(error: Exception, known: frozenset[str], root: str = "args") -> str:
    """Return a decoding error in the words of the wire: its place as `args[2].delay`, for a typo the nearest name."""
    text = str(error).replace(" - at `key` in `$", " as a key - at `$")
    what, _, place = text.partition(" - at `$")
    if unknown := _UNKNOWN_FIELD.match(what):
        field = shortened(unknown["field"])
        what = f"Unknown option `{field}`{nearest(field, known - {field})}"  # known elsewhere in the arguments
    if "matching regex" in what:
        what = next(f"Expected {wanted}" for pattern, wanted in _WANTED.items() if repr(pattern) in what)
    place = place.rstrip("`")
    return f"{what} - at `{root}{place}`"
