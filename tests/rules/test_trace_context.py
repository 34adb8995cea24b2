"""What a job carries of a trace, written into options without reading what else they say."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from bullmq_proxy.gateway.rules.trace_context import carrying, handed_on, own_telemetry, with_member

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("text", ["{}", " { } ", '{"a":1}', '{"t":1.0,"b":12345678901234567890}', '{"a":"\\u0074"}'])
def test_a_member_is_added_and_the_rest_stays(text: str) -> None:
    changed = with_member(text.encode(), "t", b"[7]").decode()
    assert json.loads(changed, parse_float=str) == {**json.loads(text, parse_float=str), "t": [7]}


@pytest.mark.parametrize("text", ["", "[]", "null", "no json", '{"t":', '\\u {"t":1', "7 {}"])
def test_what_is_no_object_stays_as_it_is(text: str) -> None:
    assert with_member(text.encode(), "t", b"7").decode() == text


@pytest.mark.parametrize(
    ("options", "parent", "may_carry"),
    [
        ("{}", None, True),
        ("null", None, True),
        ('{"telemetry":null}', None, True),
        ('{"telemetry":{"metadata":""}}', None, True),
        ('{"telemetry":{"omitContext":true}}', None, False),
        ('{"telemetry":{"metadata":"m"}}', None, False),
        ('{"telemetry":{"metadata":7}}', None, False),
        ('{"telemetry":[]}', None, False),
        (json.dumps({"telemetry": {"metadata": json.dumps({"traceparent": PARENT})}}), PARENT, False),
    ],
)
def test_what_a_producer_says_itself_is_seen(options: str, parent: str | None, may_carry: bool) -> None:
    headers, may = own_telemetry(Raw(options.encode()))
    assert (headers.get("traceparent"), may) == (parent, may_carry)


def test_options_that_are_null_carry_a_trace() -> None:
    assert bytes(carrying(Raw(b"null"), "m")) == b'{"telemetry":{"metadata":"m"}}'


def test_what_else_a_job_carries_is_handed_on() -> None:
    stored = json.dumps({"tm": json.dumps({"traceparent": "x", "tracestate": "y", "baggage": "b=1"}), "attempts": 1.0})
    options = json.loads(handed_on(stored.encode(), {"traceparent": PARENT}))
    assert json.loads(options["tm"]) == {"baggage": "b=1", "traceparent": PARENT}
    assert options["attempts"] == 1


@pytest.mark.parametrize("stored", ['{"tm":"no json"}', '{"tm":[1]}', '{"tm":"7"}', "{}"])
def test_what_is_no_trace_is_replaced(stored: str) -> None:
    assert json.loads(json.loads(handed_on(stored.encode(), {"traceparent": PARENT}))["tm"]) == {"traceparent": PARENT}


@pytest.mark.parametrize("stored", ["", "7", '{"tm":', "\xff"])
def test_options_that_are_none_stay_as_they_are(stored: str) -> None:
    assert handed_on(stored.encode("latin-1"), {"traceparent": PARENT}) == stored.encode("latin-1")
