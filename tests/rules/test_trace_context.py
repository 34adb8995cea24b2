"""Traces that jobs carry, written into options without reading the rest of them."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec import Raw

from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.jobs import shown_options
from bullmq_proxy.gateway.rules.options import OptionsCache
from bullmq_proxy.gateway.rules.stored_options import stored_options
from bullmq_proxy.gateway.rules.trace_context import (
    carried,
    carrying,
    cut,
    cut_given,
    handed_on,
    own_telemetry,
    with_member,
)

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
    options = json.loads(handed_on(carried(stored.encode()), {"traceparent": PARENT}))
    assert json.loads(options["tm"]) == {"baggage": "b=1", "traceparent": PARENT}
    assert options["attempts"] == 1


@pytest.mark.parametrize("stored", ['{"tm":"no json"}', '{"tm":[1]}', '{"tm":"7"}', "{}"])
def test_what_is_no_trace_is_replaced(stored: str) -> None:
    options = json.loads(handed_on(carried(stored.encode()), {"traceparent": PARENT}))
    assert json.loads(options["tm"]) == {"traceparent": PARENT}


@pytest.mark.parametrize("stored", ["", "7", '{"tm":', "\xff"])
def test_options_that_are_none_stay_as_they_are(stored: str) -> None:
    assert handed_on(carried(stored.encode("latin-1")), {"traceparent": PARENT}) == stored.encode("latin-1")


METADATA = json.dumps(json.dumps({"traceparent": PARENT, "tracestate": 'a=\\"b'}))


class TestTheShortWay:
    """Options that differ in nothing but their traces are read once: the result is that of the long way."""

    @pytest.mark.parametrize("rest", ["", '"attempts":3', '"delay":5,"backoff":7,"lifo":true'])
    def test_given_options(self, rest: str) -> None:
        own = f'"telemetry":{{"metadata":{METADATA}}}'
        short, long = (f"{{{','.join(filter(None, parts))}}}" for parts in ((own, rest), (rest, own)))
        assert cut_given(short.encode()) is not None
        assert rest == "" or cut_given(long.encode()) is None
        assert OptionsCache().prepare(Raw(short.encode())) == OptionsCache().prepare(Raw(long.encode()))

    def test_many_options(self) -> None:
        """A map of more than 15 members is written otherwise in msgpack."""
        flags = {"failParentOnFailure": False, "continueParentOnFailure": False, "removeDependencyOnFailure": False}
        keep = {"removeOnComplete": 1, "removeOnFail": 1, "keepLogs": 1, "stackTraceLimit": 1, "sizeLimit": 99}
        more = {"attempts": 1, "backoff": 1, "lifo": True, "delay": 1, "priority": 1, "timestamp": 1, "jobId": "j"}
        options = {**flags, **keep, **more, "ignoreDependencyOnFailure": False}
        for count in range(11, len(options) + 1):
            some = dict(list(options.items())[:count])
            telemetry = {"telemetry": {"metadata": "m"}}
            short, long = (
                json.dumps(each, separators=(",", ":")) for each in ({**telemetry, **some}, {**some, **telemetry})
            )
            prepared = OptionsCache().prepare(Raw(short.encode()))
            assert prepared == OptionsCache().prepare(Raw(long.encode()))
            assert msgspec.msgpack.decode(prepared.packed)["tm"] == "m"

    @pytest.mark.parametrize(
        "given",
        ['{"telemetry":{"metadata":"m"},"priority":-1}', '{"telemetry":{"metadata":"m"},"delay":"x"}'],
    )
    def test_wrong_options_have_the_same_error(self, given: str) -> None:
        with pytest.raises(GatewayError) as short:
            OptionsCache().prepare(Raw(given.encode()))
        turned = json.dumps(dict(reversed(json.loads(given).items())))
        with pytest.raises(GatewayError) as long:
            OptionsCache().prepare(Raw(turned.encode()))
        assert short.value.message == long.value.message

    @pytest.mark.parametrize(
        "given",
        [
            '{"telemetry":{"metadata":"m"},"telemetry":{}}',
            '{"telemetry":{"metadata":"m"},"\\u0074elemetry":{}}',
            '{"telemetry":{"metadata":"m","omitContext":true}}',
            '{"telemetry":{"metadata":"ä"}}',
        ],
    )
    def test_what_is_not_plain_goes_the_long_way(self, given: str) -> None:
        assert cut_given(given.encode()) is None

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_stored_options(self, place: int) -> None:
        members = ['"attempts":3', '"removeOnComplete":{"count":5}'][: 1 if place == 2 else 2]
        text = ",".join([*members[:place], f'"tm":{METADATA}', *members[place:]])
        stored = f"{{{text}}}".encode()
        assert cut(stored) is not None
        shown = json.loads(bytes(shown_options(stored)))
        assert shown.pop("telemetry") == {"metadata": json.loads(METADATA)}
        assert shown == json.loads(f"{{{','.join(members)}}}")
        assert stored_options(stored) == stored_options(f"{{{','.join(members)}}}".encode())

    @pytest.mark.parametrize(
        "stored",
        [
            '{"a":{"tm":"m"}}',
            '{"a":[{"tm":"m"}]}',
            '["tm","tm":"m"]',
            '{"tm":"m","tm":"n"}',
            '{"tm":"\\ud83d"}',
            '{"tm":"\t"}',
            '{"tm":"m}',
        ],
    )
    def test_what_is_not_plain_to_see_is_left_where_it_is(self, stored: str) -> None:
        assert cut(stored.encode()) is None
