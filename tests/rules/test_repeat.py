"""Job schedulers: repeat options, the next job of a scheduler, and its JSON (chapter by chapter as in Node)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.cron import next_fire
from bullmq_proxy.gateway.rules.dates import javascript_instant, read_date
from bullmq_proxy.gateway.rules.repeat import (
    LATEST_START,
    LONGEST,
    RepeatOptions,
    TemplateOptions,
    check_end_date,
    check_repeat,
    check_template,
    created_iteration,
    given_repeat,
    given_template,
    next_iteration,
    scheduler_options,
    stored_options,
    taken_options,
    template_data,
)
from bullmq_proxy.gateway.rules.schedulers import is_legacy_key, legacy_error, scheduler_json
from bullmq_proxy.gateway.values.json_text import encode

NOW: Final = 1_795_500_000_123
HOUR: Final = 3_600_000
MIDNIGHT: Final = 1_795_564_800_000  # the next one in UTC
DAILY: Final = {"pattern": "0 0 * * *", "tz": "UTC"}


def refusal(run: Callable[[], Any]) -> str:
    with pytest.raises(GatewayError) as caught:
        run()
    assert caught.value.code is ErrorCode.INVALID_ARGUMENTS
    return caught.value.message


def given_json(options: dict[str, Any]) -> dict[str, Any]:
    return given_repeat(msgspec.convert(options, RepeatOptions), "args[1]")


def due(repeat: dict[str, Any], now: int = NOW, **options: Any) -> int | None:
    iteration = next_iteration("s", repeat, options, now)
    assert iteration is not None
    return iteration.due


@pytest.fixture
def process_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put this process into a zone; the test before gets its own back."""

    def put(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


class TestDates:
    @pytest.mark.parametrize(
        ("text", "instant"),
        [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01", 0),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1970-01-01T00:00-00:30", HOUR // 2),
            ("2100-01-01T00:00:00.5Z", 4_102_444_800_500),
            ("2100-01-01T00:00:00.1239999Z", 4_102_444_800_123),
            ("1969-12-31T23:59:59.999Z", -1),
        ],
    )
    def test_iso_8601_is_read_as_javascript_reads_it(self, text: str, instant: int) -> None:
        assert javascript_instant(text) == instant

    @pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Asia/Tokyo"])
    def test_a_time_without_a_zone_is_one_of_the_process_and_a_day_is_not(
        self, process_zone: Callable[[str], None], zone: str
    ) -> None:
        process_zone(zone)
        ahead = {"America/New_York": -5, "UTC": 0, "Asia/Tokyo": 9}[zone]
        assert javascript_instant("2100-01-01T00:00") == 4_102_444_800_000 - ahead * HOUR
        assert javascript_instant("2100-01-01") == 4_102_444_800_000

    @pytest.mark.parametrize(
        "text",
        [
            *("", "soon", "2030", "2030-06", "20300601", "2030-W01-1", "2030-02-30", "2030-13-01", "0000-01-01"),
            *("2030-06-01T24:00Z", "2030-06-01 12:00", "2030-06-01T12Z", "2030-06-01T12:00:00,5Z"),
            *("2030-06-01T12:00+2", "2030-06-01T12:00+25:00", "Sat, 01 Jun 2030 00:00:00 GMT"),
            *(" 2030-06-01", "2030-06-01\n", "٢٠٣٠-06-01"),
        ],
    )
    def test_other_texts_are_none(self, text: str) -> None:
        assert read_date(text) is None
        assert javascript_instant(text) is None

    @given(st.text(max_size=40))
    def test_no_text_breaks_it(self, text: str) -> None:
        assert read_date(text) is None or javascript_instant(text) is not None

    def test_a_pattern_takes_a_text_without_a_zone_as_one_of_its_own(self) -> None:
        at_noon = next_fire("0 12 * * *", 0, tz="Asia/Tokyo", start_date="2100-01-01T11:00")
        assert at_noon == javascript_instant("2100-01-01T12:00+09:00")
        assert next_fire("0 0 * * *", 0, tz="Asia/Tokyo", start_date="2100-01-01T00:00:00.5Z") == javascript_instant(
            "2100-01-02T00:00+09:00"
        )

    @pytest.mark.parametrize(
        ("zone", "first"),
        [("America/New_York", "2100-06-02T00:00-04:00"), ("Asia/Tokyo", "2100-06-02T00:00+09:00")],
    )
    def test_a_pattern_starts_at_the_later_one_of_a_day_s_two_beginnings(self, zone: str, first: str) -> None:
        assert due({**DAILY, "tz": zone, "startDate": "2100-06-01"}) == javascript_instant(first)

    def test_a_pattern_does_not_fire_after_a_text_either(self) -> None:
        assert next_fire("0 0 * * *", NOW, tz="UTC", end_date="2026-11-25") == MIDNIGHT
        assert next_fire("0 0 * * *", NOW, tz="UTC", end_date="2026-11-24T23:59:59") is None

    def test_a_text_that_cannot_be_read_is_refused_in_cron_parser_s_words(self) -> None:
        assert refusal(lambda: next_fire("* * * * *", 0, start_date="soon")) == "CronDate: unhandled timestamp: soon"
        wrong_zone = refusal(lambda: next_fire("* * * * *", 0, tz="Nowhere", end_date="2100-01-01"))
        assert wrong_zone == "CronDate: unhandled timestamp: 2100-01-01"


class TestGivenOptions:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"every": 1},
            {"every": 0},
            {"every": 5, "pattern": "", "tz": "", "offset": 0, "limit": 0, "count": 0},
            {"pattern": "* * * * *", "startDate": 0, "endDate": 0, "immediately": False},
            {"every": LONGEST, "offset": LONGEST, "startDate": LATEST_START, "endDate": 8_640_000_000_000_000},
            {"every": 5, "startDate": "2030-06-01", "endDate": "2031-06-01T00:00:00.000Z"},
        ],
    )
    def test_they_stay_as_they_are(self, options: dict[str, Any]) -> None:
        assert given_json(options) == options

    @pytest.mark.parametrize("name", ["startDate", "endDate"])
    @pytest.mark.parametrize("date", ["soon", "", "2030-02-30"])
    def test_a_text_that_is_no_date_is_refused_with_its_place(self, name: str, date: str) -> None:
        message = f"Expected milliseconds or a date in ISO 8601 - at `args[1].{name}`"
        assert refusal(lambda: given_json({"every": 5, name: date})) == message

    @pytest.mark.parametrize(
        ("name", "date"),
        [("startDate", LATEST_START + 1), ("startDate", "5000-01-01"), ("endDate", 8_640_000_000_000_001)],
    )
    def test_a_date_that_lua_cannot_write_is_refused(self, name: str, date: Any) -> None:
        message = refusal(lambda: given_json({"every": 5, name: date}))
        assert message in (
            f"Expected a date up to {LATEST_START} ms - at `args[1].{name}`",
            f"Expected milliseconds or a date in ISO 8601 - at `args[1].{name}`",
        )

    def test_all_times_have_the_14_digits_that_lua_writes(self) -> None:
        assert len(str(LATEST_START + 2 * LONGEST - 1)) <= 14

    def test_an_every_of_0_beside_a_pattern_is_refused(self) -> None:
        message = refusal(lambda: given_json({"pattern": "* * * * *", "every": 0}))
        assert message == "Expected a whole number >= 1 - at `args[1].every`"

    @pytest.mark.parametrize("name", ["jobId", "delay", "deduplication", "repeat"])
    def test_a_template_cannot_have_what_the_scheduler_decides(self, name: str) -> None:
        value = {"jobId": "x", "delay": 0, "deduplication": {"id": "x"}, "repeat": {}}[name]
        options = msgspec.convert({name: value}, TemplateOptions)
        message = refusal(lambda: given_template(options, "args[2].opts"))
        assert message == f"The jobs of a scheduler cannot have this option - at `args[2].opts.{name}`"

    def test_no_template_has_no_options(self) -> None:
        assert given_template(None, "args[2].opts") == {}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"priority": 1.5}, "Priority should not be float"),
            ({"priority": 2**21}, "Priority should be between 0 and 2097151"),
            ({"priority": -1}, "Priority should be between 0 and 2097151"),
            ({"backoff": {"type": "fixed", "jitter": 2}}, "Jitter should be between 0 and 1"),
        ],
    )
    def test_a_template_cannot_have_what_breaks_its_jobs(self, options: dict[str, Any], message: str) -> None:
        assert refusal(lambda: check_template(options)) == message

    def test_a_whole_priority_is_an_int(self) -> None:
        options = {"priority": 3.0}
        check_template(options)
        assert json.dumps(options) == '{"priority": 3}'

    @pytest.mark.parametrize(("text", "stored"), [("null", "{}"), (" { } ", "{}"), ("{}", "{}"), ("[]", "[]")])
    def test_no_data_is_stored_as_the_script_knows_it(self, text: str, stored: str) -> None:
        assert template_data(Raw(text.encode())) == Raw(stored.encode())

    def test_other_data_stays_the_text_that_the_client_wrote(self) -> None:
        text = Raw(b'{ "n" : 1.0 }')
        assert template_data(text) is text


BOTH: Final = "Both .pattern and .every options are defined for this repeatable job"
NEITHER: Final = "Either .pattern or .every options must be defined for this repeatable job"
AT_ONCE: Final = "Both .immediately and .startDate options are defined for this repeatable job"
DEBOUNCE: Final = "Debounce option has been removed. Use deduplication option instead"


class TestChecks:
    @pytest.mark.parametrize(
        ("repeat", "options", "message"),
        [
            ({"every": 5, "pattern": "* * * * *", "immediately": True, "startDate": 1}, {"debounce": 1}, BOTH),
            ({"immediately": True, "startDate": 1}, {"debounce": 1}, NEITHER),
            ({"every": 0}, {}, NEITHER),
            ({"every": 5, "immediately": True, "startDate": 1}, {"debounce": None}, AT_ONCE),
            ({"every": 5, "immediately": True, "startDate": 0}, {"debounce": None}, DEBOUNCE),
        ],
    )
    def test_they_come_in_node_s_order_and_words(
        self, repeat: dict[str, Any], options: dict[str, Any], message: str
    ) -> None:
        assert refusal(lambda: check_repeat(repeat, options)) == message

    @pytest.mark.parametrize("end", [NOW - 1, "2026-01-01"])
    def test_the_end_must_be_ahead(self, end: Any) -> None:
        message = refusal(lambda: check_end_date({"endDate": end}, NOW))
        assert message == "End date must be greater than current timestamp"

    @pytest.mark.parametrize("repeat", [{}, {"endDate": 0}, {"endDate": NOW}, {"endDate": "2100-01-01"}])
    def test_no_end_or_one_ahead_is_right(self, repeat: dict[str, Any]) -> None:
        check_end_date(repeat, NOW)


class TestNextIteration:
    def test_every_leaves_the_time_to_the_script(self) -> None:
        iteration = next_iteration("s", {"every": HOUR, "immediately": True}, {"attempts": 2}, NOW)
        assert iteration == (
            None,
            {
                "attempts": 2,
                "repeat": {"every": HOUR, "offset": None, "count": 1},
                "jobId": "repeat:s:undefined",
                "timestamp": NOW,
                "repeatJobKey": "s",
            },
        )

    def test_a_pattern_has_its_time_in_the_options(self) -> None:
        iteration = next_iteration("s", {**DAILY, "limit": 2, "endDate": "2100-01-01", "offset": 5}, {}, NOW)
        assert iteration == (
            MIDNIGHT,
            {
                "repeat": {**DAILY, "limit": 2, "endDate": 4_102_444_800_000, "offset": None, "count": 1},
                "jobId": f"repeat:s:{MIDNIGHT}",
                "timestamp": NOW,
                "repeatJobKey": "s",
                "delay": MIDNIGHT - NOW,
                "prevMillis": MIDNIGHT,
            },
        )

    def test_the_job_before_counts_when_it_was_taken_early(self) -> None:
        assert due(DAILY, prevMillis=MIDNIGHT) == MIDNIGHT + 24 * HOUR
        assert due(DAILY, prevMillis=NOW - HOUR) == MIDNIGHT

    def test_immediately_is_now_even_if_the_pattern_never_fires(self) -> None:
        assert due({**DAILY, "immediately": True}) == NOW
        assert due({"pattern": "0 0 31 2,4 *", "tz": "UTC", "immediately": True}) == NOW

    def test_immediately_does_not_save_a_bad_pattern(self) -> None:
        message = refusal(lambda: next_iteration("s", {"pattern": "99 * * * *", "immediately": True}, {}, NOW))
        assert message == "Constraint error, got value 99 expected range 0-59"

    @pytest.mark.parametrize(
        "repeat",
        [
            {"every": 5, "limit": 0},
            {"every": 5, "limit": 3, "count": 3},
            {"every": 5, "endDate": NOW - 1},
            {"every": 5, "endDate": "2026-01-01"},
            {**DAILY, "endDate": MIDNIGHT - 1},
            {"pattern": "0 0 31 2,4 *", "tz": "UTC"},
            {"pattern": "99 * * * *", "limit": 0},
        ],
    )
    def test_there_is_none_after_the_limit_and_the_end(self, repeat: dict[str, Any]) -> None:
        assert next_iteration("s", repeat, {}, NOW) is None

    @pytest.mark.parametrize("repeat", [{"every": 5, "limit": 3, "count": 2}, {"every": 5, "endDate": NOW}])
    def test_there_is_one_up_to_them(self, repeat: dict[str, Any]) -> None:
        assert next_iteration("s", repeat, {}, NOW) is not None

    @pytest.mark.parametrize("repeat", [{"every": "5", "limit": "3", "count": "2"}, {"every": -5.5, "offset": -1}])
    def test_what_only_node_takes_is_handed_on(self, repeat: dict[str, Any]) -> None:
        iteration = next_iteration("s", repeat, {}, NOW)
        assert iteration is not None
        count = int(repeat.get("count", 0)) + 1
        assert iteration.options["repeat"] == {**repeat, "offset": repeat.get("offset"), "count": count}

    def test_the_options_of_a_taken_job_are_node_s(self) -> None:
        stored = b'{"kl":3,"backoff":500,"repeatJobKey":"s","tm":"m","de":{"id":"x"},"repeat":{"every":5,"count":1}}'
        assert taken_options(stored) == {
            "attempts": 0,
            "keepLogs": 3,
            "backoff": {"type": "fixed", "delay": 500},
            "telemetry": {"metadata": "m"},
            "deduplication": {"id": "x"},
            "repeat": {"every": 5, "count": 1},
        }

    def test_the_scheduler_keeps_what_describes_it(self) -> None:
        repeat = {"every": HOUR, "offset": 7, "limit": 0, "startDate": "2100-01-01", "count": 4, "tz": ""}
        iteration = next_iteration("s", {**repeat, "limit": 9}, {}, NOW)
        assert iteration is not None
        assert scheduler_options("beat", {**repeat, "limit": 9}, iteration) == {
            "name": "beat",
            "every": HOUR,
            "offset": 7,
            "limit": 9,
            "startDate": 4_102_444_800_000,
            "tz": "",
        }

    def test_stored_options_have_short_names_and_no_null(self) -> None:
        options = {"keepLogs": 3, "repeat": {"every": 5, "offset": None}, "telemetry": {"metadata": "m"}}
        assert stored_options(options) == {"kl": 3, "repeat": {"every": 5}, "tm": "m"}
        assert stored_options({}) == {}

    def test_the_created_job_is_shown_with_node_s_quirks(self) -> None:
        template = {"backoff": 5, "priority": 2, "failParentOnFailure": True, "parent": {"id": "m", "queue": "bull:q"}}
        iteration = next_iteration("s", {"every": HOUR}, template, NOW)
        assert iteration is not None
        job = created_iteration(b"repeat:s:17", "beat", Raw(b"[1]"), iteration, 9, "bull:q")
        assert json.loads(encode(job)) == {
            "name": "beat",
            "data": [1],
            "opts": {
                **template,
                "attempts": 0,
                "backoff": {"type": "fixed", "delay": 5},
                "repeat": {"every": HOUR, "offset": None, "count": 1},
                "jobId": "repeat:s:undefined",
                "delay": 9,
                "timestamp": NOW,
            },
            "id": "repeat:s:17",
            "progress": 0,
            "returnvalue": None,
            "stacktrace": None,
            "delay": 9,
            "priority": 2,
            "attemptsStarted": 0,
            "attemptsMade": 0,
            "stalledCounter": 0,
            "repeatJobKey": "s",
            "timestamp": NOW,
            "queueQualifiedName": "bull:q",
            "parentKey": "bull:q:m",
            "parent": {"id": "m", "queueKey": "bull:q", "fpof": True},
        }


class TestSchedulerJson:
    def test_it_shows_what_is_there(self) -> None:
        fields = {
            b"name": b"beat",
            b"ic": b"3",
            b"limit": b"0",
            b"startDate": b"17",
            b"endDate": b"4.2e3",
            b"tz": b"UTC",
            b"pattern": b"",
            b"every": b"5000",
            b"offset": b"x",
            b"data": b'{"n":1.0}',
            b"opts": b'{"kl":3,"backoff":5,"tm":"m"}',
        }
        assert json.loads(encode(scheduler_json("s", fields, b"1795564800000"))) == {
            "key": "s",
            "name": "beat",
            "next": MIDNIGHT,
            "iterationCount": 3,
            "limit": 0,
            "startDate": 17,
            "endDate": 4,
            "tz": "UTC",
            "every": 5000,
            "offset": None,
            "template": {"data": {"n": 1.0}, "opts": {"keepLogs": 3, "backoff": 5, "telemetry": {"metadata": "m"}}},
        }

    @pytest.mark.parametrize(
        ("fields", "template"),
        [({b"data": b"1"}, {"data": 1}), ({b"opts": b'{"attempts":2}'}, {"opts": {"attempts": 2}})],
    )
    def test_half_a_template_is_one(self, fields: dict[bytes, bytes], template: dict[str, Any]) -> None:
        shown = json.loads(encode(scheduler_json("s", fields, None)))
        assert shown == {"key": "s", "next": None, "template": template}

    def test_no_hash_is_no_scheduler(self) -> None:
        assert scheduler_json("s", {}, None) is None

    @pytest.mark.parametrize(
        "key",
        ["name:id:::* * * * *", "name:id:17:UTC:5000", ":::: ", "a:b:1:c:0 0 :x", "a:b::c:5", "ü:b:::* *\n"],
    )
    def test_a_repeatable_job_of_old_is_refused_in_node_s_words(self, key: str) -> None:
        assert is_legacy_key(key)
        with pytest.raises(GatewayError) as caught:
            scheduler_json(key, {}, b"17")
        assert caught.value.message == legacy_error(key).message
        assert f'(key: "{key}")' in caught.value.message

    @pytest.mark.parametrize("key", ["", "s", "a:b:c", "a:b::c:", "a:b:x:c:5", "a:b:1:c:x", "a:b:1:c:5:6", "a:b:٣:c:5"])
    def test_other_keys_are_those_of_schedulers(self, key: str) -> None:
        assert not is_legacy_key(key)
