"""What is said about values that cannot be used: the place, what was expected, and the nearest known name."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

from msgspec import Meta, Raw

from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.values.json_text import UNREADABLE
from bullmq_proxy.gateway.values.reading import Reader, Shape
from bullmq_proxy.gateway.values.token_bucket import TokenBucket

T = TypeVar("T")


def shows(shape: Any) -> Meta:
    """Mark a type that a function reads, or checks further, by itself: documents show `shape` in its place.

    `Annotated[Raw, shows(JobOptions)]` stays text here. A field that shows `Never` is known only to be refused.
    """
    return Meta(extra={"shows": shape})


def read_by(reader: Reader[Any], *, shows: Any) -> Meta:
    """Mark the type of an argument that a reader of its own reads; documents show `shows` in its place."""
    return Meta(extra={"reader": reader, "shows": shows})


def reader_of(hint: Any, *, packed: bool) -> Reader[Any]:
    """Return what reads an argument of a type: that of `read_by`, or the type's own; `packed` as for `Reader`."""
    for meta in getattr(hint, "__metadata__", ()):
        if meta.extra and "reader" in meta.extra:
            return cast("Reader[Any]", meta.extra["reader"])
    return Reader(hint, packed=packed)


def shortened(name: str) -> str:
    """Return a name of the client's making, cut for a message."""
    return name if len(name) <= 100 else name[:100] + "…"


_SUGGESTIONS_PER_SECOND: Final = 200.0  # people read few, and a flood must not cost more
_SUGGESTIONS: Final = TokenBucket()
_CANDIDATES: Final = 3
_LONGEST: Final = 64  # characters of a name that are compared


def nearest(name: str, known: Collection[str]) -> str:
    """Return `, did you mean …?` where a known name is near enough, else nothing.

    To compare a name with 100 others letter by letter takes 2 ms, and clients can be wrong a thousand times a second:
    only the ones that share most pairs of letters are compared, and none when there is too much to compare.
    """
    if not _SUGGESTIONS.take(_SUGGESTIONS_PER_SECOND, time.monotonic()):
        return ""
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


def read(reader: Reader[T], text: bytes | Raw, root: str, known: frozenset[str] = frozenset()) -> T:
    """Return the value of a text.

    Args:
        reader: of its type.
        text: JSON.
        root: its place in the arguments, such as `args[2]`.
        known: names of options, for the nearest one to a name that is not known.

    Raises:
        GatewayError: INVALID_ARGUMENTS that names the place within.
    """
    try:
        return reader.decode(text)
    except UNREADABLE as error:
        return read_again(reader, text, error, root, known)


def read_again(
    reader: Reader[T], text: bytes | Raw, error: Exception, root: str, known: frozenset[str] = frozenset()
) -> T:
    """Return the value of a text that the reader's `decode` has refused with `error`; else as `read`."""
    try:
        return reader.read_again(text, error)
    except UNREADABLE as last:
        raise invalid_arguments(describe(last, reader.shape, root, known)) from None


_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_ENUM: Final = re.compile(r"Invalid enum value '(?P<value>.*)'", re.DOTALL)
_TYPES: Final = re.compile(r"`(?P<wanted>[a-z]+(?: \| [a-z]+)*)`(?:, got `(?P<got>[a-z]+)`)?")
_WORDS: Final = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_ELSEWHERE: Final = {"repeat": "jobs that repeat are set up by `upsertJobScheduler`"}
"""Options that are known in BullMQ, and what stands for them here."""


def describe(error: Exception, shape: Shape, root: str, known: frozenset[str] = frozenset()) -> str:
    """Return an error in the words of JSON: its place as `args[2].delay`, the values there may be, the nearest name."""
    if isinstance(error, RecursionError):
        return f"The value is nested too deeply - at `{root}`"
    text = str(error).replace(" - at `key` in `$", " as a key - at `$")
    what, _, place = text.partition(" - at `$")
    place = place.rstrip("`")
    if unknown := _UNKNOWN_FIELD.match(what):
        field = shortened(unknown["field"])
        hint = f": {_ELSEWHERE[field]}" if field in _ELSEWHERE else nearest(field, known - {field})  # known elsewhere
        what = f"Unknown option `{field}`{hint}"
    elif (enum := _ENUM.match(what)) and (part := shape.at(place)):
        value = shortened(enum["value"])
        values = ", ".join(f"`{each}`" for each in part.enum)
        what = f"Expected one of {values}, got `{value}`{nearest(value, part.enum)}"
    elif "matching regex" in what:
        what = next(f"Expected {wanted}" for pattern, wanted in _WANTED.items() if repr(pattern) in what)
    return f"{in_words(what)} - at `{root}{place}`"


def in_words(what: str) -> str:
    """Return an error of msgspec's with the types in the words of JSON."""
    return _TYPES.sub(_types_in_words, what) if what.startswith("Expected `") else what


def _types_in_words(found: re.Match[str]) -> str:
    wanted = found["wanted"].split(" | ")
    if not all(each in _WORDS for each in (*wanted, found["got"] or "null")):
        return found[0]
    words = [_WORDS[each] for each in wanted if each != "int" or "float" not in wanted]
    words[-2:] = [" or ".join(words[-2:])]
    text = ", ".join(words)
    if found["got"] is None:
        return text
    got = "a number that is not whole" if found["got"] == "float" and "int" in wanted else _WORDS[found["got"]]
    return f"{text}, got {got}"
