"""Dates that clients send as text: ISO 8601, as JavaScript and as cron-parser read it.

They agree where the text names its offset from UTC. Without one JavaScript takes the zone of the process, or UTC for a
date without a time; cron-parser takes the time zone of the pattern for both.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_ISO: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?P<time>T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def read_date(text: str) -> datetime | None:
    """Return the date that a text stands for, without a zone where it names none; None where it is no ISO 8601."""
    if not _ISO.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # the 30th of February
        return None


def javascript_instant(text: str) -> int | None:
    """Return the milliseconds of `new Date(text)`; None where it is no ISO 8601."""
    date = read_date(text)
    if date is None:
        return None
    if date.tzinfo is None and "T" not in text:
        date = date.replace(tzinfo=UTC)
    return milliseconds(date.astimezone(UTC))


def milliseconds(date: datetime) -> int:
    """Return a date with a zone in milliseconds since 1970; one without is taken as UTC."""
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
