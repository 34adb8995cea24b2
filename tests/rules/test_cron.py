"""Cron patterns: what cron-parser says (`cron_table.json`), and what must be true of any answer."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.cron import LAST_INSTANT, next_fire
from bullmq_proxy.gateway.rules.cron_fields import DAY, HOUR, MACROS, MINUTE, MONTH, SECOND, WEEKDAY, Field, parse

Row = tuple[str, str, "str | int", dict[str, "str | int"], Any]

TABLE: Final = Path(__file__).with_name("cron_table.json")
ROWS: Final[list[Row]] = [tuple(row) for row in json.loads(TABLE.read_text())["rows"]]
MINUTE_MS: Final = 60_000


def instant(text: str | int) -> int:
    """Milliseconds since 1970, of an ISO date or as they are."""
    return text if isinstance(text, int) else round(datetime.fromisoformat(text).timestamp() * 1000)


def at(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def refusal(pattern: str, after: int = 0, **options: Any) -> str:
    """The text with which a pattern or an option is refused."""
    with pytest.raises(GatewayError) as caught:
        next_fire(pattern, after, **options)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENTS
    return caught.value.message


def answer(row: Row) -> Any:
    """What we say to a question of the table, in the form of its answers."""
    pattern, zone, after, dates, expected = row
    start_date, end_date = (instant(dates[name]) if name in dates else None for name in ("startDate", "endDate"))
    fires: list[int | None] = []
    last = instant(after)
    try:
        for _ in expected:
            found = next_fire(pattern, last, tz=zone, start_date=start_date, end_date=end_date)
            fires.append(found)
            if found is None:
                break
            last = found
    except GatewayError as error:
        return {"error": error.message}
    return fires


@pytest.fixture
def process_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Put this process into a zone; the test before gets its own back."""

    def put(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


class TestTable:
    def test_it_has_enough_patterns_zones_and_instants(self) -> None:
        assert len({row[0] for row in ROWS}) > 250
        assert len({row[1] for row in ROWS}) > 50
        assert len({(row[1], row[2]) for row in ROWS}) > 80

    def test_every_answer_is_cron_parser_s(self, process_zone: Any) -> None:
        process_zone("UTC")  # where the script was, too
        expected = [row[4] if isinstance(row[4], dict) else [t and instant(t) for t in row[4]] for row in ROWS]
        wrong = [
            (*row[:4], ours, theirs)
            for row, ours, theirs in zip(ROWS, map(answer, ROWS), expected, strict=True)
            if ours != theirs
        ]
        assert wrong == []


class TestSearch:
    def test_the_rarest_pattern_is_found(self) -> None:
        assert next_fire("0 0 * 2 1#5", at("2072-02-29T00:00"), tz="UTC") == at("2112-02-29T00:00")

    def test_what_no_calendar_has_ends_soon(self) -> None:
        began = time.process_time()
        assert next_fire("0 0 31 2,4,6 *", 0, tz="Europe/Berlin") is None
        assert time.process_time() - began < 2

    def test_an_instant_that_fires_is_not_its_own_next(self) -> None:
        assert next_fire("* * * * * *", 5000, tz="UTC") == 6000

    def test_a_skipped_hour_fires_right_after_the_gap(self) -> None:
        zone = "America/New_York"
        before_the_gap = at("2026-03-08T01:59", zone)
        first = next_fire("30 2 * * *", before_the_gap, tz=zone)
        assert first == at("2026-03-08T03:30", zone)
        assert next_fire("30 2 * * *", first, tz=zone) == at("2026-03-09T02:30", zone)

    def test_an_hour_that_runs_twice_fires_in_its_first_run(self) -> None:
        zone = "America/New_York"
        first = next_fire("30 1 * * *", at("2026-11-01T00:00", zone), tz=zone)
        assert first == at("2026-11-01T01:30", zone)
        assert next_fire("30 1 * * *", first, tz=zone) == at("2026-11-02T01:30", zone)

    def test_every_hour_fires_in_both_runs(self) -> None:
        zone = "America/New_York"
        first = at("2026-11-01T01:00", zone)
        assert next_fire("0 * * * *", first, tz=zone) == first + 60 * MINUTE_MS

    def test_where_node_loses_its_way_we_do(self) -> None:
        assert next_fire("0 3 * * *", at("2026-04-04T11:00", "Australia/Lord_Howe"), tz="Australia/Lord_Howe") is None


class TestZones:
    @pytest.mark.parametrize("tz", [None, "local", "SYSTEM"])
    @pytest.mark.parametrize("name", ["Europe/Berlin", "Asia/Kathmandu", "America/New_York"])
    def test_without_a_zone_it_is_that_of_the_process(self, process_zone: Any, tz: str | None, name: str) -> None:
        process_zone(name)
        for after in (at("2026-03-07T12:00"), at("2026-03-28T12:00"), at("2026-10-31T12:00")):
            assert next_fire("30 2 * * *", after, tz=tz) == next_fire("30 2 * * *", after, tz=name)

    def test_the_text_about_an_unknown_zone_has_the_date_here(self, process_zone: Any) -> None:
        process_zone("America/New_York")
        expected = "CronDate: unhandled timestamp: Tue Nov 24 2026 03:06:26 GMT-0500 (EST)"  # Node writes EST in full
        assert refusal("* * * * *", at("2026-11-24T08:06:26"), tz="Nope/Zone") == expected

    @pytest.mark.parametrize("name", ["PST", "IST", "SystemV/EST5", "US/Pacific-New"])
    def test_a_name_that_only_icu_has_is_unknown(self, name: str) -> None:
        assert refusal("* * * * *", tz=name).startswith("CronDate: unhandled timestamp: ")

    def test_the_far_future_has_zones_too(self) -> None:
        far = 146_097 * 86_400_000 * 30  # 12,000 years, after which the calendar is the same
        after = at("2030-03-30T12:00")
        near = next_fire("30 2 * * *", after, tz="Europe/Berlin")
        assert near is not None
        assert next_fire("30 2 * * *", after + far, tz="Europe/Berlin") == near + far

    def test_after_the_last_date_of_javascript_nothing_fires(self) -> None:
        assert next_fire("* * * * *", LAST_INSTANT, tz="UTC") is None


class TestPatterns:
    @pytest.mark.parametrize(("macro", "fields"), MACROS.items())
    def test_a_macro_is_its_fields(self, macro: str, fields: str) -> None:
        assert parse(macro) == parse(fields)

    def test_numbers_that_javascript_rounds_are_shown_as_written(self) -> None:
        expected = "Constraint error, got value 9007199254740993 expected range 0-59"
        assert refusal("9007199254740993 * * * *") == expected

    @given(st.sampled_from([SECOND, MINUTE, HOUR, DAY, MONTH]), st.data())
    def test_h_picks_within_its_range(self, field: Field, data: st.DataObject) -> None:
        low, high = sorted(data.draw(st.tuples(*[st.integers(field.low, field.high)] * 2)))
        step = data.draw(st.none() | st.integers(1, field.high))
        text = f"H({low}-{high})" + ("" if step is None else f"/{step}")
        picked = data.draw(st.floats(0, 1, exclude_max=True))
        values = self._values(field, text, picked)
        assert values <= set(range(low, high + 1))
        if step is None:
            assert len(values) == 1
        else:
            ordered = sorted(values)
            assert all(after - before == step for before, after in itertools.pairwise(ordered))
            assert len(values) >= (high - low + 1) // step

    @pytest.mark.parametrize(
        ("text", "picked", "values"),
        [
            ("H", 0.0, {0}),
            ("H", 0.999, {59}),
            ("H/15", 0.5, {7, 22, 37, 52}),
            ("H(10-20)", 0.5, {15}),
            ("H(10-20)/5", 0.5, {12, 17}),
            ("H(13-20)/5", 0.5, {17}),
            ("H(1-5)/10", 0.5, {5}),
            ("H(6-8)/10", 0.5, {7}),
            ("3,H", 0.5, {3, 30}),
        ],
    )
    def test_h_picks_what_it_was_given(self, text: str, picked: float, values: set[int]) -> None:
        assert self._values(SECOND, text, picked) == values

    def test_h_is_another_number_each_time(self) -> None:
        assert len({parse("H * * * * *").seconds for _ in range(200)}) > 30

    @staticmethod
    def _values(field: Field, text: str, picked: float) -> set[int]:
        """The values of one field of a pattern."""
        fields = [text if each is field else "*" for each in (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)]
        pattern = parse(" ".join(fields), lambda: picked)
        return set(
            {
                SECOND: pattern.seconds,
                MINUTE: pattern.minutes,
                HOUR: pattern.hours,
                DAY: pattern.days,
                MONTH: pattern.months,
            }[field]
        )


class Drawn(NamedTuple):
    """A field as text, and the values that it means."""

    text: str
    values: frozenset[int]


def everything(low: int, high: int) -> st.SearchStrategy[Drawn]:
    return st.builds(Drawn, st.sampled_from("*?"), st.just(frozenset(range(low, high + 1))))


def lists(low: int, high: int) -> st.SearchStrategy[Drawn]:
    values = st.frozensets(st.integers(low, high), min_size=1, max_size=4)
    return values.map(lambda chosen: Drawn(",".join(map(str, chosen)), chosen))


@st.composite
def steps(draw: st.DrawFn, low: int, high: int) -> Drawn:
    """A range with a step, of all values, of those from the first, or of those between two."""
    first, last = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
    step = draw(st.integers(1, high))
    return draw(
        st.sampled_from(
            [
                Drawn(f"*/{step}", frozenset(range(low, high + 1, step))),
                Drawn(f"{first}/{step}", frozenset(range(first, high + 1, step))),
                Drawn(f"{first}-{last}/{step}", frozenset(range(first, last + 1, step))),
            ]
        )
    )


def fields(low: int, high: int) -> st.SearchStrategy[Drawn]:
    return everything(low, high) | lists(low, high) | steps(low, high)


class Drawing(NamedTuple):
    """A pattern of five fields, and when it fires by the book."""

    minutes: Drawn
    hours: Drawn
    days: Drawn
    months: Drawn
    weekdays: Drawn

    @property
    def pattern(self) -> str:
        return " ".join(field.text for field in self)

    def fires(self, when: datetime) -> bool:
        day, weekday = when.day in self.days.values, when.isoweekday() % 7 in self.weekdays.values
        restricted = [field.text not in "*?" for field in (self.days, self.weekdays)]
        return (
            when.minute in self.minutes.values
            and when.hour in self.hours.values
            and when.month in self.months.values
            and (day or weekday if all(restricted) else day and weekday)
        )


# With a day that every month has, so that each of these fires; weekdays without 7. What is left out is in the table.
days = everything(1, 31) | lists(1, 28) | steps(1, 31).filter(lambda field: min(field.values) <= 28)
drawings = st.builds(
    Drawing,
    fields(0, 59),
    fields(0, 23),
    days,
    fields(1, 12),
    everything(0, 6) | lists(0, 6),
)
instants = st.integers(at("1971-01-01T00:00"), at("2060-01-01T00:00"))
WINDOW: Final = timedelta(hours=30)


def quiet(zone: ZoneInfo, first: datetime, last: datetime) -> bool:
    """Whether no clock changes between two instants (none does so twice within an hour)."""
    hours = range(int((last - first) / timedelta(hours=1)) + 2)
    return len({(first + timedelta(hours=hour)).astimezone(zone).utcoffset() for hour in hours}) == 1


class TestProperties:
    @given(drawings, instants, st.sampled_from(["UTC", "Asia/Kathmandu", "Europe/Berlin", "America/St_Johns"]))
    def test_it_is_the_first_match_after_the_start(self, drawing: Drawing, after: int, name: str) -> None:
        zone = ZoneInfo(name)
        start = datetime.fromtimestamp(after / 1000, UTC)
        assume(quiet(zone, start - timedelta(days=1), start + WINDOW + timedelta(days=1)))
        found = next_fire(drawing.pattern, after, tz=name)
        assert found is not None
        candidate = start.replace(second=0, microsecond=0)
        first = next(
            (
                when
                for minute in range(1, int(WINDOW / timedelta(minutes=1)))
                if drawing.fires((when := candidate + timedelta(minutes=minute)).astimezone(zone))
            ),
            None,
        )
        if first is not None:
            assert found == round(first.timestamp() * 1000)
        else:
            assert found >= after + WINDOW / timedelta(milliseconds=1) - 2 * MINUTE_MS

    @given(drawings, instants, st.sampled_from(["America/New_York", "Europe/Berlin", "America/Sao_Paulo"]))
    def test_it_matches_all_fields_or_follows_a_gap(self, drawing: Drawing, after: int, name: str) -> None:
        zone = ZoneInfo(name)
        found = next_fire(drawing.pattern, after, tz=name)
        assert found is not None
        assert found > after
        there = datetime.fromtimestamp(found / 1000, zone)
        if not drawing.fires(there):
            an_hour_ago = datetime.fromtimestamp(found / 1000 - 3600, zone)
            assert there.utcoffset() != an_hour_ago.utcoffset()
            assert drawing.fires(there.replace(hour=there.hour - 1))

    @given(drawings, instants, st.integers(0, 10**11), st.integers(0, 10**11))
    def test_dates_only_cut_off(self, drawing: Drawing, after: int, start: int, length: int) -> None:
        start_date, end_date = after - 10**10 + start, after - 10**10 + start + length
        found = next_fire(drawing.pattern, after, tz="UTC", start_date=start_date, end_date=end_date)
        uncut = next_fire(drawing.pattern, max(after, start_date), tz="UTC")
        assert uncut is not None
        assert found == (uncut if uncut <= end_date else None)

    @given(st.text("0123456789*?,-/LH#()WJULsunmo @\t", max_size=30))
    def test_any_text_gives_an_instant_none_or_a_refusal(self, text: str) -> None:
        try:
            found = next_fire(text, 0, tz="UTC")
        except GatewayError as error:
            assert error.code is ErrorCode.INVALID_ARGUMENTS
        else:
            assert found is None or found > 0
