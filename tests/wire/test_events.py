"""Events: subscriptions, stream ids, and a stream entry as Node's `QueueEvents` would emit it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.wire.events import (
    EVENTS,
    StreamEvent,
    Subscription,
    format_stream_id,
    gap_data,
    parse_stream_id,
)

ID = b"1700000000000-0"


def shown(**fields: str | bytes) -> Any:
    entry = {name.encode(): value.encode() if isinstance(value, str) else value for name, value in fields.items()}
    event = StreamEvent(ID, entry)
    message = json.loads(event.data)
    assert message["event"] == event.name
    return message["args"]


class TestEntries:
    """What Node's `QueueEvents` hands its listeners."""

    @pytest.mark.parametrize(
        ("fields", "args"),
        [
            ({"event": "added", "jobId": "12", "name": "welcome"}, {"jobId": "12", "name": "welcome"}),
            ({"event": "waiting", "jobId": "12", "prev": "delayed"}, {"jobId": "12", "prev": "delayed"}),
            ({"event": "active", "jobId": "12", "prev": "waiting"}, {"jobId": "12", "prev": "waiting"}),
            ({"event": "delayed", "jobId": "12", "delay": "1700000005000"}, {"jobId": "12", "delay": 1700000005000}),
            ({"event": "progress", "jobId": "12", "data": '{"step":2}'}, {"jobId": "12", "data": {"step": 2}}),
            (
                {"event": "completed", "jobId": "12", "returnvalue": '{"ok":true}', "prev": "active"},
                {"jobId": "12", "returnvalue": {"ok": True}, "prev": "active"},
            ),
            (
                {"event": "failed", "jobId": "12", "failedReason": "42", "prev": "active"},
                {"jobId": "12", "failedReason": "42", "prev": "active"},
            ),
            (
                {"event": "retries-exhausted", "jobId": "12", "attemptsMade": "1"},
                {"jobId": "12", "attemptsMade": "1"},
            ),
            ({"event": "stalled", "jobId": "12"}, {"jobId": "12"}),
            ({"event": "cleaned", "count": "1"}, {"count": "1"}),
            ({"event": "paused"}, {}),
            (
                {"event": "deduplicated", "jobId": "1", "deduplicationId": "d", "deduplicatedJobId": "2"},
                {"jobId": "1", "deduplicationId": "d", "deduplicatedJobId": "2"},
            ),
            (
                {"event": "mine", "data": "7", "returnvalue": "8", "delay": "9"},
                {"data": "7", "returnvalue": "8", "delay": "9"},
            ),
        ],
    )
    def test_the_fields_are_shown_as_node_shows_them(self, fields: dict[str, str], args: dict[str, Any]) -> None:
        assert shown(**fields) == [args, "1700000000000-0"]

    def test_drained_has_the_id_alone(self) -> None:
        assert shown(event="drained") == ["1700000000000-0"]

    def test_a_return_value_goes_out_as_the_text_that_was_stored(self) -> None:
        data = StreamEvent(ID, {b"event": b"completed", b"returnvalue": b'{"n": 1.50, "u": "\\u00e9"}'}).data
        assert b'{"n": 1.50, "u": "\\u00e9"}' in data

    @pytest.mark.parametrize("broken", ["", "{", "NaN", "undefined"])
    def test_a_value_that_is_no_json_is_shown_as_a_string(self, broken: str) -> None:
        assert shown(event="completed", returnvalue=broken)[0] == {"returnvalue": broken}
        assert shown(event="delayed", delay=broken)[0] == {"delay": broken}

    @given(st.dictionaries(st.binary(max_size=12), st.binary(max_size=12), max_size=5), st.sampled_from(sorted(EVENTS)))
    def test_no_entry_breaks_a_frame(self, fields: dict[bytes, bytes], event: str) -> None:
        message = json.loads(StreamEvent(ID, {**fields, b"event": event.encode()}).data.decode())
        assert (message["event"], message["args"][-1]) == (event, ID.decode())

    def test_an_entry_without_a_name_has_an_empty_one(self) -> None:
        assert StreamEvent(ID, {}).data == b'{"event":"","args":[{},"1700000000000-0"]}'


class TestSubscriptions:
    def test_all_events_are_wanted_unless_some_are_named(self) -> None:
        assert not any(Subscription([]).wants(name) for name in (*EVENTS, "mine"))
        assert all(Subscription(["*"]).wants(name) for name in (*EVENTS, "mine"))
        only = Subscription(["completed"])
        assert (only.wants("completed"), only.wants("failed"), only.wants("mine")) == (True, False, False)

    def test_on_and_off_change_what_is_in_force(self) -> None:
        subscription = Subscription(["completed"])
        subscription.on(["failed", "custom:mine"])
        assert subscription.in_force() == ["completed", "custom:mine", "failed"]
        subscription.off(["completed", "custom:mine"])
        assert subscription.in_force() == ["failed"]
        subscription.on(["*"])
        assert subscription.in_force() == ["*"]
        subscription.off(["*"])
        assert subscription.in_force() == []
        assert not subscription.wants("failed")

    def test_one_off_of_all_leaves_the_other_known_ones(self) -> None:
        subscription = Subscription(["*"])
        subscription.off(["active"])
        assert subscription.in_force() == sorted(EVENTS - {"active"})

    def test_a_custom_event_may_have_any_name_even_a_known_one(self) -> None:
        assert Subscription(["custom:completed"]).wants("completed")
        assert Subscription(["custom:a:b"]).wants("a:b")

    @pytest.mark.parametrize("name", ["", "complete", "custom:", "Completed", "custom", "x" * 500])
    def test_an_unknown_name_is_refused_and_nothing_changes(self, name: str) -> None:
        subscription = Subscription(["failed"])
        for change in (subscription.on, subscription.off):
            with pytest.raises(GatewayError) as refused:
                change(["completed", name])
            assert refused.value.code is ErrorCode.INVALID_ARGUMENTS
            assert f"Unknown event `{name[:100]}`" in refused.value.message
            assert all(known in refused.value.message for known in EVENTS)
        assert subscription.in_force() == ["failed"]

    @given(
        st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from([*sorted(EVENTS), "*", "custom:mine"]), max_size=3)))
    )
    def test_what_is_in_force_says_what_is_wanted(self, changes: list[tuple[bool, list[str]]]) -> None:
        subscription = Subscription([])
        for add, names in changes:
            (subscription.on if add else subscription.off)(names)
        again = subscription.in_force()
        for name in (*EVENTS, "mine"):
            wanted = again == ["*"] or name in again or f"custom:{name}" in again
            assert subscription.wants(name) is wanted


class TestStreamIds:
    @given(st.integers(0, 2**64 - 2), st.integers(0, 2**64 - 1))
    def test_an_id_is_a_pair_of_numbers(self, time: int, number: int) -> None:
        assert parse_stream_id(f"{time}-{number}") == (time, number)
        assert parse_stream_id(format_stream_id((time, number))) == (time, number)

    def test_ids_compare_as_in_redis(self) -> None:
        assert parse_stream_id("9-9") < parse_stream_id("10-0") < parse_stream_id("10-9") < parse_stream_id("10-10")

    @given(st.text())
    def test_nothing_else_is_one(self, text: str) -> None:
        try:
            id = parse_stream_id(text)
        except GatewayError as refused:
            assert refused.code is ErrorCode.INVALID_ARGUMENTS
        else:
            assert int(text.partition("-")[0]) == id[0]


def test_a_gap_names_both_ends() -> None:
    assert json.loads(gap_data((5, 1), (9, 0))) == {"event": "gap", "args": [{"from": "5-1", "to": "9-0"}]}
