"""The JSON of a job: as `add` returns it, as `getJob` shows it, as a worker gets it; from sound and from odd hashes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from bullmq_proxy.gateway.rules.jobs import (
    Hash,
    created_job,
    deduplication_id,
    loaded_job,
    payload,
    pushed_job,
    raw_job,
    shown_options,
    stacktrace,
    to_hash,
)
from bullmq_proxy.gateway.rules.options import OptionsCache
from bullmq_proxy.gateway.values.json_text import encode

QUEUE = "bull:n1"
# What Node stores for a plain job.
PLAIN: Hash = {
    b"name": b"a",
    b"data": b'{"x":1}',
    b"opts": b'{"attempts":0}',
    b"timestamp": b"1795499061411",
    b"delay": b"0",
    b"priority": b"0",
}
SHOWN: dict[str, Any] = {
    "name": "a",
    "data": {"x": 1},
    "opts": {"attempts": 0},
    "id": "1",
    "progress": 0,
    "returnvalue": None,
    "stacktrace": [],
    "delay": 0,
    "priority": 0,
    "attemptsStarted": 0,
    "attemptsMade": 0,
    "stalledCounter": 0,
    "timestamp": 1795499061411,
    "queueQualifiedName": "bull:n1",
}


def created(options: dict[str, Any], *, duplicate: bool = False, data: bytes = b'{"x":1}') -> Any:
    prepared = OptionsCache().prepare(Raw(json.dumps(options).encode()))
    return json.loads(b"".join(created_job(b"1", "a", Raw(data), prepared, 1795499061411, QUEUE, duplicate=duplicate)))


def loaded(**fields: str | bytes | None) -> Any:
    """A plain job with some fields changed, or left out where they are None."""
    changes = {name.encode(): value.encode() if isinstance(value, str) else value for name, value in fields.items()}
    whole: dict[bytes, bytes | None] = {**PLAIN, **changes}
    return json.loads(encode(loaded_job("1", {n: v for n, v in whole.items() if v is not None}, QUEUE)))


def pushed(fields: Hash) -> Any:
    return json.loads(pushed_job("1", fields, "n1", "token-1"))


class TestCreated:
    """The members of a job that Node's `add` returns."""

    def test_a_plain_job(self) -> None:
        assert created({}) == {
            "name": "a",
            "data": {"x": 1},
            "opts": {"attempts": 0},
            "id": "1",
            "progress": 0,
            "returnvalue": None,
            "stacktrace": None,
            "priority": 0,
            "attemptsStarted": 0,
            "attemptsMade": 0,
            "stalledCounter": 0,
            "timestamp": 1795499061411,
            "queueQualifiedName": "bull:n1",
        }

    def test_the_data_is_the_text_that_was_sent(self) -> None:
        prepared = OptionsCache().prepare(Raw(b"{}"))
        text = b'{"n": 1.50, "big": 12345678901234567890123, "u": "\\u00e9"}'
        assert b'"data":%b,' % text in b"".join(created_job(b"1", "a", Raw(text), prepared, 1, QUEUE))

    @pytest.mark.parametrize("delay", [0, 5000])
    def test_a_delay_shows_when_it_was_given(self, delay: int) -> None:
        assert created({"delay": delay})["delay"] == delay

    @pytest.mark.parametrize("options", [{}, {"backoff": {"type": "fixed", "delay": 7}}, {"backoff": 7}])
    def test_no_delay_shows_when_none_was_given(self, options: dict[str, Any]) -> None:
        assert "delay" not in created(options)

    def test_a_priority_shows_on_the_job_and_in_its_options(self) -> None:
        job = created({"priority": 3})
        assert (job["priority"], job["opts"]) == (3, {"attempts": 0, "priority": 3})

    def test_a_parent_shows_with_what_the_parent_keeps(self) -> None:
        job = created({"parent": {"id": "9", "queue": "bull:p"}, "ignoreDependencyOnFailure": True})
        assert (job["parentKey"], job["parent"]) == ("bull:p:9", {"id": "9", "queueKey": "bull:p", "idof": True})
        assert job["opts"]["parent"] == {"id": "9", "queue": "bull:p"}

    def test_a_deduplication_id_shows(self) -> None:
        assert created({"deduplication": {"id": "d"}})["deduplicationId"] == "d"

    def test_a_job_that_was_there_already_says_so(self) -> None:
        assert created({"jobId": "1x"}, duplicate=True)["duplicate"] is True
        assert "duplicate" not in created({"jobId": "1x"})

    def test_an_id_of_any_bytes_can_be_shown(self) -> None:
        prepared = OptionsCache().prepare(Raw(b"{}"))
        assert json.loads(b"".join(created_job(b"\xff", 'a"', Raw(b"1"), prepared, 1, QUEUE)))["id"] == "\ufffd"


class TestLoaded:
    """The members of a job that Node's `getJob` returns."""

    def test_a_plain_job(self) -> None:
        assert loaded() == SHOWN

    def test_a_finished_job(self) -> None:
        assert loaded(
            returnvalue='{"ok":true}',
            progress="50",
            finishedOn="1795499061500",
            processedOn="1795499061450",
            ats="2",
            atm="1",
            stc="1",
            pb="worker-1",
            stacktrace='["Error: no\\n at x"]',
            failedReason="no",
            rjk="r",
            deid="d",
            defa="later",
            parentKey="bull:p:9",
            parent='{"id":"9","queueKey":"bull:p"}',
        ) == {
            **SHOWN,
            "returnvalue": {"ok": True},
            "progress": 50,
            "finishedOn": 1795499061500,
            "processedOn": 1795499061450,
            "attemptsStarted": 2,
            "attemptsMade": 1,
            "stalledCounter": 1,
            "processedBy": "worker-1",
            "stacktrace": ["Error: no\n at x"],
            "failedReason": "no",
            "repeatJobKey": "r",
            "deduplicationId": "d",
            "deferredFailure": "later",
            "parentKey": "bull:p:9",
            "parent": {"id": "9", "queueKey": "bull:p"},
        }

    def test_a_hash_without_job_fields_shows_what_node_shows(self) -> None:
        assert json.loads(encode(loaded_job("ghost1", {b"atm": b"1"}, QUEUE))) == {
            "data": {},
            "opts": {"attempts": 0},
            "id": "ghost1",
            "progress": 0,
            "returnvalue": None,
            "stacktrace": [],
            "delay": None,
            "priority": None,
            "attemptsStarted": 0,
            "attemptsMade": 1,
            "stalledCounter": 0,
            "timestamp": None,
            "queueQualifiedName": "bull:n1",
        }

    def test_a_delay_with_a_fraction_is_cut(self) -> None:
        assert loaded(delay="1.5")["delay"] == 1

    @pytest.mark.parametrize("field", ["finishedOn", "processedOn"])
    def test_a_time_of_zero_is_none(self, field: str) -> None:
        assert field not in loaded(**{field: "0"})

    @pytest.mark.parametrize(
        ("field", "shown"), [("failedReason", "failedReason"), ("pb", "processedBy"), ("defa", "deferredFailure")]
    )
    def test_an_empty_text_is_none(self, field: str, shown: str) -> None:
        assert shown not in loaded(**{field: ""})

    @pytest.mark.parametrize("text", ["", "{", "undefined"])
    def test_a_return_value_that_is_no_json_is_left_out(self, text: str) -> None:
        assert "returnvalue" not in loaded(returnvalue=text)

    @pytest.mark.parametrize("text", ["", "{}", "null", "7", "{", b"\xff", "[" * 100_000])
    def test_a_stack_trace_that_is_no_array_is_empty(self, text: str | bytes) -> None:
        assert loaded(stacktrace=text)["stacktrace"] == []

    def test_data_that_is_no_json_goes_out_as_a_string(self) -> None:
        assert loaded(data="{oops")["data"] == "{oops"
        assert loaded(data=b"\xff!")["data"] == "\ufffd!"
        assert loaded(data="")["data"] == {}
        assert loaded(data=None)["data"] == {}

    def test_half_a_surrogate_pair_in_the_data_changes_nothing(self) -> None:
        assert loaded(data='{"cut":"\\ud83d"}')["data"] == {"cut": "\ud83d"}

    def test_the_older_name_of_the_attempts_comes_first(self) -> None:
        assert loaded(attemptsMade="3", atm="1")["attemptsMade"] == 3

    def test_a_deduplication_id_is_found_in_the_options_too(self) -> None:
        job = loaded(opts='{"attempts":0,"de":{"id":"d","ttl":5}}')
        assert (job["deduplicationId"], job["opts"]) == ("d", {"attempts": 0, "deduplication": {"id": "d", "ttl": 5}})

    def test_a_scheduler_s_key_is_found_in_the_options_and_not_shown_there(self) -> None:
        job = loaded(opts='{"attempts":2,"repeatJobKey":"every-day"}')
        assert (job["repeatJobKey"], job["opts"]) == ("every-day", {"attempts": 2})

    @given(
        st.dictionaries(
            st.sampled_from(
                b"name data opts progress returnvalue stacktrace delay priority ats attemptsMade atm stc rjk timestamp"
                b" parentKey parent deid finishedOn processedOn failedReason defa pb unknown".split()
            ),
            st.binary(max_size=20)
            | st.sampled_from([b"9" * 5000, b"[" * 5000, b'{"de":7}', b'{"de":{"id":[]}}', b"[1]", b"null"]),
        )
    )
    def test_no_hash_breaks_a_frame(self, fields: Hash) -> None:
        # Python's own parser refuses very long numbers, which are JSON all the same.
        job = json.loads(encode(loaded_job("1", fields, QUEUE)).decode(), parse_int=str)
        assert job["id"] == "1"
        assert json.loads(pushed_job("1", fields, "n1", "t").decode(), parse_int=str)["job"]["id"] == "1"
        assert json.loads(encode(raw_job(fields)).decode(), parse_int=str)["data"] is not None


class TestRaw:
    """What Node calls `JobJson`."""

    def test_payloads_stay_text_and_options_as_they_are_stored(self) -> None:
        fields = {
            **PLAIN,
            b"opts": b'{"kl":5,"backoff":7,"repeatJobKey":"r"}',
            b"returnvalue": b"null",
            b"stacktrace": b"[]",
            b"failedReason": b"",
            b"deid": b"d",
            b"finishedOn": b"0",
            b"parent": b'{"id":"9","queueKey":"bull:p"}',
        }
        assert json.loads(encode(raw_job(fields))) == {
            "name": "a",
            "data": '{"x":1}',
            "opts": {"keepLogs": 5, "backoff": 7, "repeatJobKey": "r"},
            "progress": 0,
            "delay": 0,
            "priority": 0,
            "timestamp": 1795499061411,
            "attemptsStarted": 0,
            "attemptsMade": 0,
            "stalledCounter": 0,
            "finishedOn": 0,
            "debounceId": "d",
            "deduplicationId": "d",
            "failedReason": "",
            "stacktrace": "[]",
            "returnvalue": "null",
            "parent": {"id": "9", "queueKey": "bull:p"},
        }

    def test_a_job_that_was_removed_has_nothing(self) -> None:
        assert json.loads(encode(raw_job({}))) == {
            "data": "{}",
            "opts": {},
            "progress": 0,
            "delay": None,
            "priority": None,
            "timestamp": None,
            "attemptsStarted": 0,
            "attemptsMade": 0,
            "stalledCounter": 0,
        }


class TestOptions:
    def test_short_names_are_shown_long(self) -> None:
        stored = {
            "fpof": True,
            "cpof": True,
            "idof": True,
            "rdof": True,
            "kl": 5,
            "de": {"id": "d"},
            "tm": "m",
            "omc": True,
        }
        assert json.loads(bytes(shown_options(json.dumps(stored).encode()))) == {
            "attempts": 0,
            "failParentOnFailure": True,
            "continueParentOnFailure": True,
            "ignoreDependencyOnFailure": True,
            "removeDependencyOnFailure": True,
            "keepLogs": 5,
            "deduplication": {"id": "d"},
            "telemetry": {"metadata": "m", "omitContext": True},
        }

    @pytest.mark.parametrize("delay", [0, 500, 1.5, -1])
    def test_a_backoff_that_is_stored_as_a_number_shows_as_node_s(self, delay: float) -> None:
        text = json.dumps({"attempts": 2, "backoff": delay}, separators=(",", ":")).encode()
        shown = {"attempts": 2, "backoff": {"type": "fixed", "delay": delay}}
        assert json.loads(bytes(shown_options(text))) == shown

    def test_options_without_short_names_go_out_as_they_are_stored(self) -> None:
        text = b'{"backoff": {"type":"fixed","delay":1.0},"attempts":3}'
        assert shown_options(text) == Raw(text)

    @pytest.mark.parametrize(
        ("backoff", "shown"),
        [("5", {"type": "fixed", "delay": 5}), ("0", {"type": "fixed", "delay": 0}), ('"mine"', "mine"), ("[1]", [1])],
    )
    def test_a_backoff_that_is_a_number_is_a_fixed_delay(self, backoff: str, shown: Any) -> None:
        for text in (f'{{"backoff":{backoff},"attempts":2}}', f'{{"attempts" : 2, "kl": 1, "backoff" : {backoff}}}'):
            options = json.loads(bytes(shown_options(text.encode())))
            assert (options["attempts"], options["backoff"]) == (2, shown)

    @pytest.mark.parametrize("backoff", ["null", "false", '""'])
    def test_a_backoff_that_is_nothing_is_left_out(self, backoff: str) -> None:
        assert shown_options(f'{{"attempts":2,"backoff":{backoff}}}'.encode()) == Raw(b'{"attempts":2}')

    def test_values_go_out_as_they_are_stored_also_beside_short_names(self) -> None:
        text = b'{"fpof":true,"n":1.50,"big":123456789012345678901234567890,"u":"\\u00e9"}'
        assert bytes(shown_options(text)) == (
            b'{"attempts":0,"failParentOnFailure":true,"n":1.50,"big":123456789012345678901234567890,"u":"\\u00e9"}'
        )

    def test_the_items_of_an_array_are_numbered(self) -> None:
        assert json.loads(bytes(shown_options(b'[7,{"a":1}]'))) == {"attempts": 0, "0": 7, "1": {"a": 1}}

    @pytest.mark.parametrize("text", [None, b"", b"{", b"[]", b"7", b"null", b"\xff", b'{"attempts":', b"[" * 100_000])
    def test_what_is_no_object_counts_as_none(self, text: bytes | None) -> None:
        assert json.loads(bytes(shown_options(text))) == {"attempts": 0}

    @pytest.mark.parametrize("text", [None, b"{}", b'{"de":null}', b'{"de":{"id":7}}', b'{"de":{}}', b'{"de":"d"}'])
    def test_a_deduplication_id_is_a_string_or_none(self, text: bytes | None) -> None:
        assert deduplication_id(text) is None


class TestPushed:
    def test_a_worker_gets_the_payload_and_what_it_needs_of_the_job(self) -> None:
        assert pushed({**PLAIN, b"ats": b"1", b"processedOn": b"1795499061999"}) == {
            "type": "process",
            "payload": {"x": 1},
            "job": {
                "id": "1",
                "name": "a",
                "opts": {"attempts": 0},
                "attemptsMade": 0,
                "attemptsStarted": 1,
                "stalledCounter": 0,
                "timestamp": 1795499061411,
                "processedOn": 1795499061999,
                "delay": 0,
                "priority": 0,
                "token": "token-1",
                "queue": "n1",
            },
        }

    def test_a_retried_child_job_shows_its_past_and_its_parent(self) -> None:
        job = pushed(
            {
                **PLAIN,
                b"parentKey": b"bull:p:9",
                b"parent": b'{"id":"9"}',
                b"rjk": b"r",
                b"deid": b"d",
                b"failedReason": b"no",
                b"progress": b"50",
                b"stacktrace": b'["s"]',
            }
        )["job"]
        assert {name: job[name] for name in ("parentKey", "parent", "repeatJobKey", "deduplicationId")} == {
            "parentKey": "bull:p:9",
            "parent": {"id": "9"},
            "repeatJobKey": "r",
            "deduplicationId": "d",
        }
        assert (job["failedReason"], job["progress"], job["stacktrace"]) == ("no", 50, ["s"])

    def test_the_payload_is_the_stored_text(self) -> None:
        text = b'{"n": 1.50, "u": "\\u00e9", "big": 123456789012345678901234567890}'
        assert b'"payload":%b,' % text in pushed_job("1", {**PLAIN, b"data": text}, "n1", "t")

    def test_values_that_are_no_json_are_left_out(self) -> None:
        job = pushed({**PLAIN, b"progress": b"{", b"parent": b"", b"stacktrace": b"\xff"})["job"]
        assert not job.keys() & {"progress", "parent", "stacktrace"}


class TestPieces:
    def test_a_flat_reply_is_a_hash(self) -> None:
        assert to_hash([b"a", b"1", b"b", b"2"]) == {b"a": b"1", b"b": b"2"}
        assert to_hash([]) == {}

    @given(st.binary(max_size=30))
    def test_every_payload_can_go_out(self, text: bytes) -> None:
        msgspec.json.decode(encode({"payload": payload(text)}))

    def test_stack_traces_are_what_the_array_holds(self) -> None:
        assert stacktrace(b'["a",null,{"b":1}]') == ["a", None, {"b": 1}]
        assert stacktrace(None) == []
