"""What a worker may answer: every form of PROTOCOL 4, and what the oldest clients send."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from bullmq_proxy.gateway.wire.answers import (
    Ack,
    Answer,
    Completed,
    Delay,
    Failed,
    Invoke,
    Log,
    Pause,
    Progress,
    Release,
    Resume,
    WaitChildren,
    cancel,
    decode_answer,
    drain,
    finished,
    lost,
)
from bullmq_proxy.gateway.wire.envelope import InvalidMessage
from tests.wire.strategies import damaged, json_texts


def read(data: str) -> Answer:
    id, answer = decode_answer(f'{{"id":3,"data":{data}}}'.encode())
    assert id == b"3"
    return answer


def refusal(data: str) -> str:
    with pytest.raises(InvalidMessage) as refused:
        read(data)
    assert refused.value.id == b"3"
    return refused.value.message


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        ("{}", Completed(Raw(b"null"))),
        ('{"type":"ack"}', Ack()),
        ('{"type":"release"}', Release()),
        ('{"type":"delay","delay":5000}', Delay(5000)),
        ('{"type":"delay","delay":0}', Delay(0)),
        ('{"type":"waitChildren"}', WaitChildren()),
        ('{"type":"pause"}', Pause()),
        ('{"type":"resume"}', Resume()),
        ('{"type":"log","row":"half way"}', Log("half way")),
        ('{"type":"progress","progress":50}', Progress(Raw(b"50"))),
        ('{"type":"progress","progress":null}', Progress(Raw(b"null"))),
        ('{"type":"progress","progress":{"step": 2}}', Progress(Raw(b'{"step": 2}'))),
        ('{"fn":"add","args":["a",{}]}', Invoke("add", [Raw(b'"a"'), Raw(b"{}")])),
        ('{"fn":"count"}', Invoke("count", [])),
    ],
)
def test_every_type_of_answer_is_understood(data: str, answer: Answer) -> None:
    assert read(data) == answer


class TestResults:
    @pytest.mark.parametrize("result", ["null", "0", "false", '""', "[]", '{"a": [1, 2.50]}', '"\\u00e9"', "1e400"])
    def test_any_json_completes_the_job_as_the_same_text(self, result: str) -> None:
        assert read(f'{{"result":{result}}}') == Completed(Raw(result.encode()))

    def test_a_label_does_not_change_a_result(self) -> None:
        assert read('{"type":"completed","result":1}') == Completed(Raw(b"1"))

    def test_an_error_that_is_null_is_none(self) -> None:
        assert read('{"err":null,"result":5}') == Completed(Raw(b"5"))

    def test_an_error_beside_a_result_is_a_failure(self) -> None:
        assert read('{"result":null,"err":{"message":"no"}}') == Failed("no")

    @given(json_texts())
    def test_no_result_is_changed_on_its_way(self, result: bytes) -> None:
        assert decode_answer(b'{"id":0,"data":{"result":%b}}' % result) == (b"0", Completed(Raw(result)))


class TestErrors:
    @pytest.mark.parametrize(
        ("data", "failed"),
        [
            ('{"err":{"message":"no","stack":"at x"}}', Failed("no", "at x")),
            ('{"err":{"message":"no"}}', Failed("no")),
            ('{"err":{"message":"no","stack":null}}', Failed("no")),
            ('{"err":{"message":"no","unrecoverable":true}}', Failed("no", None, True)),
            ('{"err":{"message":"no"},"unrecoverable":true}', Failed("no", None, True)),
            ('{"err":"just a text"}', Failed("just a text")),
            ('{"err":"","unrecoverable":true}', Failed("", None, True)),
            ('{"message":"no","stack":"at x"}', Failed("no", "at x")),
            ('{"message":"no"}', Failed("no")),
            ('{"stack":"at x"}', Failed("", "at x")),
            ('{"type":"failed","err":{"message":"no"}}', Failed("no")),
        ],
    )
    def test_each_of_the_three_forms_fails_the_job(self, data: str, failed: Failed) -> None:
        assert read(data) == failed

    @pytest.mark.parametrize(
        ("err", "message"),
        [
            ("{}", ""),
            ("null", "null"),
            ("42", "42"),
            ("[1,2]", "[1,2]"),
            ('{"message":{"code":7}}', '{"code":7}'),
            ('{"message":7,"stack":["a"]}', "7"),
            ('{"message":"no","unrecoverable":"yes"}', '{"message":"no","unrecoverable":"yes"}'),
        ],
    )
    def test_an_error_of_any_shape_still_fails_the_job_and_shows_as_text(self, err: str, message: str) -> None:
        answer = read(f'{{"err":{err}}}')
        assert isinstance(answer, Failed)
        assert answer.message == message


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ('{"type":"progress"}', "Object missing required field `progress` - at `$.data`"),
            ('{"type":"log"}', "Object missing required field `row` - at `$.data`"),
            ('{"type":"log","row":7}', "Expected a string, got a whole number - at `$.data.row`"),
            ('{"type":"delay"}', "Expected a whole number >= 0 - at `$.data.delay`"),
            ('{"type":"delay","delay":-1}', "Expected a whole number >= 0 - at `$.data.delay`"),
            ('{"type":"delay","delay":9007199254740993}', "Expected a whole number >= 0 - at `$.data.delay`"),
            ('{"type":"delay","delay":"1"}', "Expected a number, got a string - at `$.data.delay`"),
            ('{"type":"akc"}', "Unknown type `akc`, did you mean `ack`? - at `$.data.type`"),
            ('{"type":"zzz"}', "Unknown type `zzz` - at `$.data.type`"),
            ('{"type":7}', "Expected a string, got a whole number - at `$.data.type`"),
            ('{"reslt":1}', "Expected one of `result`, `err`, `fn`, or a `type` such as `ack` - at `$.data`"),
            ("null", "Expected an object, got null - at `$.data`"),
            ('{"err":{},"unrecoverable":1}', "Expected true or false, got a whole number - at `$.data.unrecoverable`"),
        ],
    )
    def test_the_place_is_named(self, data: str, message: str) -> None:
        assert refusal(data) == message

    def test_a_long_unknown_type_is_cut(self) -> None:
        assert len(refusal(f'{{"type":"{"x" * 10_000}"}}')) < 200

    @given(st.binary(max_size=100) | damaged(st.just(b'{"id":0,"data":{"err":{"message":"no","stack":"s"}}}')))
    def test_nothing_else_is_ever_raised(self, text: bytes) -> None:
        try:
            decode_answer(text)
        except InvalidMessage as refused:
            assert refused.message

    def test_deep_nesting_is_refused(self) -> None:
        with pytest.raises(InvalidMessage, match="nested too deeply"):
            decode_answer(b'{"id":0,"data":{"result":%b1%b}}' % (b"[" * 100_000, b"]" * 100_000))

    @pytest.mark.parametrize("depth", range(850, 1000, 10))
    def test_an_error_is_read_at_every_depth_that_the_envelope_allows(self, depth: int) -> None:
        deep = b"[" * depth + b"]" * depth
        try:
            _, answer = decode_answer(b'{"id":0,"data":{"err":{"message":%b}}}' % deep)
        except InvalidMessage:
            return
        assert isinstance(answer, Failed)


class TestMessagesToTheWorker:
    def test_a_stored_answer_is_confirmed(self) -> None:
        assert json.loads(finished("12", "completed")) == {"type": "finished", "state": "completed", "jobId": "12"}

    def test_an_answer_that_came_to_nothing_is_told(self) -> None:
        assert json.loads(lost(b'{"message":"m","code":"NOT_LOCKED"}')) == {
            "type": "lost",
            "err": {"message": "m", "code": "NOT_LOCKED"},
        }

    def test_a_job_can_be_taken_away(self) -> None:
        assert json.loads(cancel('lock "lost"')) == {"type": "cancel", "reason": 'lock "lost"'}

    def test_a_shard_says_when_it_goes(self) -> None:
        assert json.loads(drain(30_000)) == {"type": "drain", "deadline": 30_000}
