"""Whole numbers as JavaScript has them, and the numbers that it reads in texts from Redis.

None stands for NaN, which JSON writes as null.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Annotated, Final

from msgspec import Meta

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""Whole numbers beyond are not exact in JavaScript, Lua and Redis scores, and msgpack has no room for all of them."""

Whole = Annotated[int, Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]
Count = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]
Milliseconds = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]

# Leading whitespace, a sign, hexadecimal or decimal digits; 309 decimal ones are Infinity.
_LEADING_INTEGER: Final = re.compile(
    r"\s*(?P<sign>[+-]?)(?:0[xX](?P<hex>[0-9a-fA-F]{1,300})|(?!0[xX])(?P<whole>[0-9]{1,400}))"
)
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BASED: Final = re.compile(r"0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")
_WHOLE_UP_TO: Final = 1e21  # JavaScript writes larger numbers with an exponent,
_PLAIN_FROM: Final = 1e-6  # and smaller ones


def parse_int(text: bytes | None) -> int | None:
    """Return `parseInt(text)`: leading digits count, None where it is NaN or Infinity."""
    if text is None:
        return None
    if text.isdigit() and len(text) < 20:  # nearly always; a tenth of the time that the pattern takes
        return int(text)
    match = _LEADING_INTEGER.match(text.decode(errors="replace"))
    if match is None:
        return None
    size = int(match["hex"], 16) if match["hex"] else int(match["whole"])
    if size >= 10**308:
        return None
    return -size if match["sign"] == "-" else size


def to_number(text: str) -> int | float | None:
    """Return `Number(text)`: the whole text counts, None where it is NaN or infinite."""
    text = text.strip()
    if not text:
        return 0
    if _BASED.fullmatch(text):
        value = float(int(text, 0)) if len(text) < 250 else math.inf
    elif _DECIMAL.fullmatch(text):
        value = float(text)
    else:
        return None
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < _WHOLE_UP_TO else value


def number_text(value: float) -> str:
    """Return `String(value)` of a finite number."""
    if value == 0 or _PLAIN_FROM <= abs(value) < _WHOLE_UP_TO:
        return f"{Decimal(repr(value + 0.0)).normalize():f}"
    mantissa, exponent = repr(value).split("e")
    return f"{mantissa}e{int(exponent):+d}"


def number_of(value: object) -> float:
    """Return `Number(value)` for a value from JSON, `nan` where it is none.

    A list is its text in JavaScript: [] is 0, and [3] is 3.
    """
    match value:
        case None | False:
            return 0
        case True:
            return 1
        case int() | float():
            try:
                return float(value) if isinstance(value, float) or abs(value) > MAX_SAFE_INTEGER else value
            except OverflowError:
                return math.inf
        case str():
            number = to_number(value)
            return math.nan if number is None else number
        case []:
            return 0
        case [(str() | int() | float() | list()) as only] if not isinstance(only, bool):
            return number_of(only)
    return math.nan


def is_true(value: object) -> bool:
    """Return the truth of a value from JSON in JavaScript: empty arrays and objects are true."""
    return bool(value) or isinstance(value, list | dict)
