"""When a cron pattern fires next: as cron-parser 5.10.3 says when Node's BullMQ 6.7 asks it (`defaultRepeatStrategy`).

No library for Python agrees with it (`docs/cron.md` has the numbers), so this is an evaluator of our own. How a pattern
is read is in `rules/cron_fields.py`. The search walks: on to the next month, day, hour, minute or second until all
fields match. Where clocks change, what it finds depends on the steps by which it got there, so they are those of
cron-parser, and so are their consequences:

* Clocks go forward: a skipped hour fires in the first hour after the gap (`30 2 * * *` at 3:30), but only in a search
  that began before the gap, and never when a whole day was stepped over (`0 0 * * *` misses a skipped midnight).
* Clocks go back: the second run of an hour is passed over, unless the pattern names all 24 hours or the search begins
  inside of it.
* Clocks go back by half an hour (Australia/Lord_Howe): some searches go in circles. Node gives up, and so do we.

What still differs:

| pattern | zone | here | Node |
|---|---|---|---|
| any | `PST`, `IST`, `SystemV/EST5` and others that only ICU has | refused as an unknown zone | fires |
| any | an unknown one, in a process that is not in UTC | the text ends in `(CET)` | in `(Central European …)` |
| a number above 2**53: `9007199254740993 * * * *` | any | refused with the number as written | with a rounded one |
| `H` with more than one value to choose from | any | a random one for each call | the same, another one |
| any | one whose rules have changed lately | the tz database of this machine | that of Node's ICU |
| any, with a start date in the last hours of the year 275760 | east of UTC | None | refused |
"""

from __future__ import annotations

import functools
import re
import time
import zoneinfo
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import Final

from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.rules.cron_fields import Pattern, parse
from bullmq_proxy.gateway.rules.dates import milliseconds, read_date

# The rarest pattern that fires at all, a fifth Monday in February, needs 1,570. Node ends its walks at 10,000, but a
# walk that is longer than this one turns in circles or looks for what no calendar has, as `0 0 31 2,4 *`.
MOST_STEPS: Final = 4_000
LAST_INSTANT: Final = 8_640_000_000_000_000  # ms; JavaScript has no later date

_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_EPOCH: Final = date(1970, 1, 1).toordinal()
# The calendar repeats itself every 400 years. Python's ends with the year 9999: the far future is found further back.
_CYCLE: Final = 146_097 * _DAY
_FAR_FUTURE: Final = (date(9000, 1, 1).toordinal() - _EPOCH) * _DAY

# Not those of the C library, which follow its locale.
_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# The seconds by which a zone's clocks are ahead of UTC, for an instant in seconds since 1970.
Offset = Callable[[int], int]


def next_fire(
    pattern: str,
    after: int,
    *,
    tz: str | None = None,
    start_date: int | str | None = None,
    end_date: int | str | None = None,
) -> int | None:
    """Return the first instant after `after` at which a pattern fires; all instants are in milliseconds since 1970.

    Args:
        pattern: one to six fields, seconds first, or `@hourly` and the like.
        after: when the last iteration was, or now. From 1970 on.
        tz: an IANA name, `utc`, or `utc+5:30` and the like, in upper or lower case. None, or `local`, is the zone of
            this process, as in Node (BullMQ for Python takes UTC).
        start_date: nothing fires at or before this instant; 0 means no such date, as in Node. A text is a date in
            ISO 8601, in `tz` where it names no offset from UTC.
        end_date: nothing fires after this instant; the same forms.

    Returns:
        None if it does not fire before the end date, never fires, or the search turns in circles (see above).

    Raises:
        GatewayError: `INVALID_ARGUMENTS` with cron-parser's text, for a bad pattern first, then for a bad zone or date.
    """
    cron = parse(pattern)
    offset = _zone(tz)
    start, end = _instant(start_date, offset), _instant(end_date, offset)
    begin = max(after, start or after)
    if offset is None or begin > LAST_INSTANT:
        raise invalid_arguments(f"CronDate: unhandled timestamp: {_javascript_date(begin)}")
    first = -(-start // 1000) if start else None
    last = min(end or LAST_INSTANT, LAST_INSTANT) // 1000
    shift = max(0, -(-(begin // 1000 - _FAR_FUTURE) // _CYCLE)) * _CYCLE
    walk = _Walk(cron, offset, begin // 1000 - shift)
    found = walk.search(begin % 1000 > 0, None if first is None else first - shift, last - shift)
    return None if found is None else (found + shift) * 1000


def _instant(date: int | str | None, offset: Offset | None) -> int | None:
    """Return a date as cron-parser reads it, in milliseconds; None or 0 where there is none."""
    if not date:
        return None
    if isinstance(date, str):
        read = read_date(date)
        if read is not None and offset is not None:
            local = milliseconds(read)
            return (
                local
                if read.tzinfo
                else _resolve(offset, local // 1000, offset(int(time.time()))) * 1000 + local % 1000
            )
    elif offset is not None and abs(date) <= LAST_INSTANT:
        return date
    raise invalid_arguments(f"CronDate: unhandled timestamp: {date}")


class _Walk:
    """A clock on the wall of a time zone, moved forward until all fields match.

    Args:
        cron: the pattern.
        offset: the zone.
        at: where the walk begins, in seconds since 1970.
    """

    def __init__(self, cron: Pattern, offset: Offset, at: int) -> None:
        self._cron = cron
        self._offset = offset
        self._go(at)
        # What the last steps of an hour or less came across; patterns of all 24 hours do not care.
        self._gap: tuple[int, int] | None = None  # the first hour that was skipped, and the hour after the gap
        self._again: int | None = None  # the hour that runs for the second time

    def search(self, fraction: bool, first: int | None, last: int) -> int | None:
        """Walk to the next match, and return it in seconds.

        Args:
            fraction: the walk began within a second, so that the next full second is the first that may match.
            first: the search fails where it comes before this instant; None without one.
            last: the search fails where it comes after this instant.
        """
        cron = self._cron
        begin = None if fraction else self._at
        if fraction:
            self._step(1)
        for _ in range(MOST_STEPS):
            if self._at > last or (first is not None and self._at < first):
                return None
            today = self._today()
            if today.month not in cron.months:
                self._to_next_month(today)
            elif not self._is_day(today):
                self._to_next_day()
            elif not self._is_hour():
                self._to_hour()
            elif (minute := self._local // _MINUTE % 60) not in cron.minutes:
                following = _following(cron.minutes, minute)
                if following is None:
                    self._step(_HOUR)
                self._set(minute=cron.minutes[0] if following is None else following)
                self._set(second=cron.seconds[0])
            elif (second := self._local % 60) not in cron.seconds:
                following = _following(cron.seconds, second)
                if following is None:
                    self._step(_MINUTE)
                self._set(second=cron.seconds[0] if following is None else following)
            elif self._at == begin:
                self._step(1)
            else:
                return self._at
        return None

    def _is_day(self, today: date) -> bool:
        """Return whether the day fires: with both fields of days restricted, either is enough."""
        cron = self._cron
        weekday = today.isoweekday() % 7
        in_month = today.day in cron.days or (cron.last_day and (today + timedelta(1)).month != today.month)
        in_week = (weekday in cron.weekdays and (not cron.occurrence or -(-today.day // 7) == cron.occurrence)) or (
            weekday in cron.last_weekdays and (today + timedelta(7)).month != today.month
        )
        if cron.any_weekday:
            return in_month
        return in_week or (in_month and not cron.any_day)

    def _is_hour(self) -> bool:
        """Return whether the hour fires, for itself or for one that was skipped right before it."""
        hour = self._hour
        if self._gap is not None and self._gap[1] == hour:
            skipped = self._gap[0]
            while skipped != hour:
                if skipped in self._cron.hours:
                    return True
                skipped = (skipped + 1) % 24
        return hour in self._cron.hours and self._again != hour

    def _to_hour(self) -> None:
        """Leave an hour that does not fire."""
        hour = self._hour
        if self._again == hour:
            self._again = None
            self._step(_HOUR)
            return
        self._gap = None
        following = _following(self._cron.hours, hour)
        if following is None:
            self._to_next_day()
            return
        if self._clocks_change_today():
            # Hour by hour, so that the gap or the second run is noticed.
            for _ in range(following - hour):
                self._step(_HOUR)
                if self._hour >= following:
                    break
        else:
            self._set(hour=following)
        self._set(minute=self._cron.minutes[0])
        self._set(second=self._cron.seconds[0])

    def _step(self, seconds: int) -> None:
        """Go on by a second, or to the start of the next minute or hour, and notice whether the clocks change."""
        hour, offset = self._hour, self._ahead
        self._go(self._at + seconds)
        if seconds == _HOUR:
            self._set(minute=0, second=0)
        elif seconds == _MINUTE:
            self._set(second=0)
        if len(self._cron.hours) == 24:
            return
        advance = (self._hour - hour) % 24
        if self._ahead > offset and advance >= 2:
            self._gap = ((hour + 1) % 24, self._hour)
        elif advance == 0 and self._local % _HOUR == 0:
            self._again = self._hour

    def _to_next_day(self) -> None:
        self._go_local(self._local + _DAY)
        self._set(hour=0, minute=0, second=0)

    def _to_next_month(self, today: date) -> None:
        # The 1st, and the hour as it is: the offset there decides between two midnights.
        there = (today.replace(day=1) + timedelta(31)).replace(day=1)
        longest = ((there + timedelta(31)).replace(day=1) - there).days
        there = there.replace(day=min(today.day, longest))
        self._go_local((there.toordinal() - _EPOCH) * _DAY + self._local % _DAY)
        day = self._today()
        self._go_local(self._local - self._local % _DAY - (day.day - 1) * _DAY)

    def _clocks_change_today(self) -> bool:
        midnight = self._local - self._local % _DAY
        return self._offset(self._resolve(midnight)) != self._offset(self._resolve(midnight + _DAY - 1))

    @property
    def _local(self) -> int:
        """What the clock shows, as seconds since 1970 without any zone."""
        return self._at + self._ahead

    @property
    def _hour(self) -> int:
        return self._local // _HOUR % 24

    def _today(self) -> date:
        return date.fromordinal(self._local // _DAY + _EPOCH)

    def _set(self, hour: int | None = None, minute: int | None = None, second: int | None = None) -> None:
        """Turn some hands of the clock within its day."""
        days, rest = divmod(self._local, _DAY)
        hour = rest // _HOUR if hour is None else hour
        minute = rest // _MINUTE % 60 if minute is None else minute
        second = rest % 60 if second is None else second
        self._go_local(days * _DAY + hour * _HOUR + minute * _MINUTE + second)

    def _go(self, at: int) -> None:
        self._at = at
        self._ahead = self._offset(at)

    def _go_local(self, local: int) -> None:
        self._go(self._resolve(local))

    def _resolve(self, local: int) -> int:
        return _resolve(self._offset, local, self._ahead)


def _resolve(offset: Offset, local: int, ahead: int) -> int:
    """Return the instant at which a clock shows a time.

    As in Luxon, which cron-parser uses: of two such instants the one with the offset of now, `ahead`, or else the one
    that comes of the offset found there; a time within a gap moves forward by the length of the gap.
    """
    there = offset(local - ahead)
    if there == ahead:
        return local - there
    again = offset(local - there)
    return local - (there if again == there else min(there, again))


def _following(values: Sequence[int], value: int) -> int | None:
    """Return the next greater one of sorted numbers."""
    index = bisect_right(values, value)
    return values[index] if index < len(values) else None


@functools.lru_cache(maxsize=256)
def _zone(name: str | None) -> Offset | None:
    """Return the zone with a name that Luxon would take; None if there is none."""
    lower = (name or "").lower()
    if name is None or lower in ("local", "system", "default"):
        return lambda at: time.localtime(at).tm_gmtoff
    if lower in ("utc", "gmt"):
        return lambda _: 0
    if fixed := re.fullmatch(r"utc([+-])([0-9]{1,2})(?::([0-9]{2}))?", lower):
        size = int(fixed[2]) * _HOUR + int(fixed[3] or 0) * _MINUTE
        ahead = size if fixed[1] == "+" else -size
        return lambda _: ahead
    full_name = _zone_names().get(lower) if name.isascii() else None
    if full_name is None:
        return None
    zone = zoneinfo.ZoneInfo(full_name)
    return lambda at: _seconds(datetime.fromtimestamp(at, zone).utcoffset())


def _seconds(offset: timedelta | None) -> int:
    assert offset is not None
    return offset.days * _DAY + offset.seconds


@functools.cache
def _zone_names() -> dict[str, str]:
    """Return all zones of this machine, by their names in lower case."""
    # The last two are files of some systems rather than zones, and ICU knows neither.
    return {name.lower(): name for name in zoneinfo.available_timezones() - {"Factory", "localtime"}}


def _javascript_date(ms: int) -> str:
    """Return an instant as JavaScript's `String(new Date(ms))` writes it, in the zone of this process."""
    if ms > LAST_INSTANT:
        return "Invalid Date"
    shift = max(0, -(-(ms // 1000 - _FAR_FUTURE) // _CYCLE))
    there = time.localtime(ms // 1000 - shift * _CYCLE)
    sign, size = "-" if there.tm_gmtoff < 0 else "+", abs(there.tm_gmtoff) // 60
    name = "Coordinated Universal Time" if there.tm_zone == "UTC" else there.tm_zone
    day = f"{_WEEKDAYS[there.tm_wday]} {_MONTHS[there.tm_mon - 1]} {there.tm_mday:02} {there.tm_year + shift * 400:04}"
    return f"{day} {time.strftime('%H:%M:%S', there)} GMT{sign}{size // 60:02}{size % 60:02} ({name})"
