"""Cron patterns as text: what cron-parser 5.10.3 makes of each field, and its words for what it refuses.

When a pattern fires is `rules/cron.py`. The rules here were found by asking cron-parser (`tests/interop/
cron_oracle.mjs`), and some of them are surprising:

* Missing fields stand at the front: `* * *` is `0 * * * * *`, and so is the empty pattern.
* The name of a month or a weekday means its number in both of these fields: `mon` as a month is January.
* The `*` and `?` of a field are replaced by its whole range before anything else, so `*-5` is `0-59` of the minutes.
* `5/15` is `5-59/15`; of `1-2-3` the third number is ignored; digits end a number, so `1-31L` is `1-31`.
* Only a field that is exactly `*` or `?` counts as unrestricted for the rule of days, not `*/1` and not `1-31`.
* Listing a value twice is an error, also as `0,7` and `SUN,7`, and no range may wrap around.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from bullmq_proxy.gateway.errors import invalid_arguments

MACROS: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
    "@minutely": "0 * * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 0 * * 1-5",
    "@weekends": "0 0 0 * * 0,6",
}
LONGEST_PATTERN: Final = 1024  # UTF-16 code units
MOST_VALUES: Final = 256  # of one field, looked at before each item of its list

# A number or, in the two fields of days, the text of an item with an `L`.
Value = int | str


class Field(NamedTuple):
    """One of the six fields: its name in messages about values and in messages about `H`, its range, its letter."""

    name: str
    hash_name: str
    low: int
    high: int
    letter: str = ""

    @property
    def range(self) -> str:
        return f"{self.low}-{self.high}"


SECOND: Final = Field("Second", "second", 0, 59)
MINUTE: Final = Field("Minute", "minute", 0, 59)
HOUR: Final = Field("Hour", "hour", 0, 23)
DAY: Final = Field("DayOfMonth", "dayOfMonth", 1, 31, "L")
MONTH: Final = Field("Month", "month", 1, 12)
WEEKDAY: Final = Field("DayOfWeek", "dayOfWeek", 0, 7, "L")

_MONTH_NAMES: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAY_NAMES: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES: Final = {
    **{name: number for number, name in enumerate(_MONTH_NAMES, 1)},
    **{name: number for number, name in enumerate(_WEEKDAY_NAMES)},
}
_DAYS_IN_MONTH: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# What JavaScript calls white space.
_SPACE: Final = "\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_HASH: Final = re.compile(r"H(?:\(([0-9]+)-([0-9]+)\))?(?:/([0-9]+))?")
# A field that holds one of these may hold any other character, too; what is wrong then shows later.
_FREE: Final = re.compile(r"H\([0-9]+-[0-9]+\)|H/[0-9]+")


class Pattern(Struct, frozen=True):
    """A parsed pattern. Numbers are sorted; Sunday is 0 (a 7 in `weekdays` never matches by itself)."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    last_day: bool  # the last day of the month counts as one of `days`
    last_weekdays: frozenset[int]  # these count in the last seven days of the month
    occurrence: float  # `#n`: the nth of its kind in the month; 0 without one


def parse(pattern: str, pick: Callable[[], float] = random.random) -> Pattern:
    """Read a cron pattern.

    Args:
        pattern: one to six fields, or one of `MACROS`.
        pick: a number from 0 up to 1 for each field, which `H` stands for in it. Node's BullMQ gives cron-parser
            no seed, so that there, too, an `H` is another number each time the pattern is read.

    Raises:
        GatewayError: `INVALID_ARGUMENTS` with cron-parser's text.
    """
    raw = _split(MACROS.get(pattern, pattern))
    weekday_text, occurrence = _occurrence(raw[5])
    second = _values(SECOND, raw[0], pick())
    minute = _values(MINUTE, raw[1], pick())
    hour = _values(HOUR, raw[2], pick())
    month = _values(MONTH, raw[4], pick())
    day = _values(DAY, raw[3], pick())
    if isinstance(occurrence, str):
        raise invalid_arguments(occurrence)
    weekday = _values(WEEKDAY, weekday_text, pick())
    longest = _DAYS_IN_MONTH[month[0] - 1] if len(month) == 1 and isinstance(month[0], int) else 31
    day = [value for value in day if isinstance(value, str) or value <= longest] or day
    for field, values in (
        (SECOND, second),
        (MINUTE, minute),
        (HOUR, hour),
        (DAY, day),
        (MONTH, month),
        (WEEKDAY, weekday),
    ):
        _check(field, values)
    any_weekday = raw[5] in ("*", "?")
    numbers = {value for value in day if isinstance(value, int)}
    if any_weekday and "L" not in raw[3] and numbers and min(numbers) > longest:
        raise invalid_arguments("Invalid explicit day of month definition")
    return Pattern(
        seconds=_numbers(second),
        minutes=_numbers(minute),
        hours=_numbers(hour),
        days=frozenset(_numbers(day)),
        months=frozenset(_numbers(month)),
        weekdays=frozenset(_numbers(weekday)),
        any_day=raw[3] in ("*", "?"),
        any_weekday=any_weekday,
        last_day="L" in raw[3],
        last_weekdays=frozenset(int(str(value)[0]) % 7 for value in weekday) if "L" in raw[5] else frozenset(),
        occurrence=occurrence,
    )


def _split(pattern: str) -> list[str]:
    """Return the six fields of a pattern, seconds first."""
    if len(pattern.encode("utf-16-le", "surrogatepass")) > 2 * LONGEST_PATTERN:
        raise invalid_arguments(f"Invalid cron expression, too long, expected at most {LONGEST_PATTERN} characters")
    fields = re.split(f"[{_SPACE}]+", re.sub(f"^[{_SPACE}]+|[{_SPACE}]+$", "", pattern)) if pattern else []
    if len(fields) > 6:
        raise invalid_arguments("Invalid cron expression, too many fields")
    return ["0", "*", "*", "*", "*", "*"][: 6 - len(fields)] + fields


def _occurrence(text: str) -> tuple[str, float | str]:
    """Return the weekday before a `#`, and the number after it; or what is wrong with it, to be told in its turn."""
    weekday, *after = text.split("#")
    if not after:
        return weekday, 0
    if mixed := re.search("[,/-]", text):
        return weekday, (
            f"Constraint error, invalid dayOfWeek `#` and `{mixed[0]}` special characters are incompatible"
        )
    number = _number(after[0])
    if len(after) > 1 or number is None or not 1 <= number <= 5:
        return weekday, "Constraint error, invalid dayOfWeek occurrence number (#)"
    return weekday, number


def _values(field: Field, text: str, picked: float) -> list[Value]:
    """Return all values that a field names, in its order and with repetitions."""
    if field in (MONTH, WEEKDAY):
        text = re.sub("[A-Za-z]{3}", _number_of_name, text)
    if not re.fullmatch(f"[?,*0-9H/{field.letter}{'#' if field is WEEKDAY else ''}-]+", text) and not _FREE.search(
        text
    ):
        raise invalid_arguments(f"Invalid characters, got value: {text}")
    text = re.sub("[*?]", field.range, text)
    text = _without_hashes(field, text, picked)
    values: list[Value] = []
    for item in text.split(","):
        if len(values) > MOST_VALUES:
            raise _too_many(field)
        values += _item(field, item)
    return values


def _number_of_name(match: re.Match[str]) -> str:
    name = match[0].lower()
    if name not in _NAMES:
        raise invalid_arguments(f'Validation error, cannot resolve alias "{name}"')
    return str(_NAMES[name])


def _without_hashes(field: Field, text: str, picked: float) -> str:
    """Put numbers in place of `H`, `H(1-5)`, `H/5` and `H(0-29)/5`."""
    count = 0

    def numbers(match: re.Match[str]) -> str:
        nonlocal count
        low, high = (field.low, field.high) if match[1] is None else (int(match[1]), int(match[2]))
        step = None if match[3] is None else int(match[3])
        if step == 0:
            raise invalid_arguments("Invalid step: 0, must be positive")
        if low > high:
            raise invalid_arguments(f"Invalid range: {low}-{high}, min > max")
        first, last = max(low, field.low), min(high, field.high)
        if first > last:
            raise invalid_arguments(f"Invalid range: {low}-{high}, no usable value in the {field.hash_name} field")
        size = last - first + 1
        if step is not None:
            count += math.ceil(size / step)
            if count > MOST_VALUES:
                raise _too_many(field)
        # With a step: its multiples, all moved by the same part of a step; a wide one may leave none in the range.
        moved = range(first // step * step + math.floor(picked * step), last + 1, step) if step is not None else ()
        chosen = [str(value) for value in moved if value >= first] or [str(first + math.floor(picked * size))]
        return ",".join(chosen)

    return _HASH.sub(numbers, text)


def _item(field: Field, text: str) -> Sequence[Value]:
    """Return the values of one item of a list: a number, a range, either with a step, or a text with `L`."""
    if not text:
        raise invalid_arguments("Invalid list value format")
    span, *steps = text.split("/")
    if len(steps) > 1:
        raise invalid_arguments(f"Invalid repeat: {text}")
    if "-" not in span and not steps:
        return [_single(field, text)]
    first, last = span.split("-")[:2] if "-" in span else (span, str(field.high))
    low, high = _leading(first), _leading(last)
    if low is None or high is None or low < field.low or high > field.high:
        got = "-".join("NaN" if bound is None else str(bound) for bound in (low, high))
        raise invalid_arguments(f"Constraint error, got range {got} expected range {field.range}")
    if low > high:
        raise invalid_arguments(f"Invalid range: {low}-{high}, min({low}) > max({high})")
    step = _leading(steps[0]) if steps else 1
    if step is None or step <= 0:
        raise invalid_arguments(f"Constraint error, cannot repeat at every {'NaN' if step is None else step} time.")
    values = range(low, high + 1, step)
    return [0, *values] if field is WEEKDAY and 7 in values and 0 not in values else values


def _single(field: Field, text: str) -> Value:
    if field.letter and field.letter in text:
        return text
    value = int(text) if re.fullmatch("[0-9]+", text) else text
    number = _leading(text)
    if number is None or not field.low <= number <= field.high:
        raise invalid_arguments(f"Constraint error, got value {value} expected range {field.range}")
    return number % 7 if field is WEEKDAY else value


def _check(field: Field, values: list[Value]) -> None:
    """Refuse leftover texts, repetitions and an `L` without a weekday."""
    values.sort(key=lambda value: (isinstance(value, str), value))
    for value in values:
        if isinstance(value, str) and not (field.letter and re.fullmatch(f"[0-9]{{0,2}}{field.letter}", value)):
            letters = f" or chars {field.letter}" if field.letter else ""
            raise invalid_arguments(
                f"Cron{field.name} Validation error, got value {value} expected range {field.range}{letters}"
            )
    for before, value in itertools.pairwise(values):
        if before == value:
            raise invalid_arguments(f"Cron{field.name} Validation error, duplicate values found: {value}")
    if field is WEEKDAY and "L" in values:
        raise invalid_arguments("CronDayOfWeek Validation error, unexpected standalone L")


def _too_many(field: Field) -> Exception:
    return invalid_arguments(f"Constraint error, too many values in {field.name} field, expected at most {MOST_VALUES}")


def _leading(text: str) -> int | None:
    """Return the number that a text starts with, as JavaScript's `parseInt`."""
    match = re.match("[+-]?[0-9]+", text)
    return int(match[0]) if match else None


def _number(text: str) -> float | None:
    """Return a number, as JavaScript's `Number`; None where that says NaN."""
    if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return float(text)
    return float(int(text, 0)) if re.fullmatch("0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+", text) else None


def _numbers(values: list[Value]) -> tuple[int, ...]:
    return tuple(value for value in values if isinstance(value, int))
