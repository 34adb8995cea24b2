"""`{"id": …, "data": {…}}`: what is read, what is refused, and how replies carry ids and payloads back unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.json_text import encode, error_json, json_text
from bullmq_proxy.gateway.values.text import printable
from bullmq_proxy.gateway.wire.envelope import InvalidMessage, decode_request, err, message, ok
from tests.wire.strategies import damaged, json_texts, texts, values

NUMBERS = ["0", "1", "-1", "-0", "1.5", "-0.25", "1e5", "1E+5", "1e-7", "1E400", "9007199254740993", "9" * 400]
STRINGS = ['""', '"a"', '"job 7"', '"\\u00e9"', '"\\ud83d\\ude00"', '"é"', '"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"null"']
OTHERS = ["null", "true", "false", "[]", "[1]", "{}", '{"id":1}']


def refusal(text: str | bytes) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as refused:
        decode_request(text.encode() if isinstance(text, str) else text)
    return refused.value


class TestIds:
    @pytest.mark.parametrize("id", NUMBERS + STRINGS)
    def test_a_number_or_a_string_comes_back_byte_for_byte(self, id: str) -> None:
        request = decode_request(f'{{"id":{id},"data":{{"fn":"count"}}}}'.encode())
        assert bytes(request.id) == id.encode()
        assert b"".join(ok(bytes(request.id), b"1")) == f'{{"id":{id},"data":{{"ok":1}}}}'.encode()

    @pytest.mark.parametrize("id", OTHERS)
    def test_anything_else_is_refused_and_not_sent_back(self, id: str) -> None:
        refused = refusal(f'{{"id":{id},"data":{{"fn":"count"}}}}')
        assert refused.message == "Expected a number or a string as `id` - at `$.id`"
        assert refused.id == b"null"

    @pytest.mark.parametrize("id", ["01", "1.", "+1", "-", ".5", "1e", "NaN", "Infinity", "0x1", "'a'", '"\\x"', "nul"])
    def test_what_is_no_json_is_no_id(self, id: str) -> None:
        refused = refusal(f'{{"id":{id},"data":{{"fn":"count"}}}}')
        assert refused.message.startswith("JSON is malformed")
        assert refused.id == b"null"

    def test_spaces_around_an_id_are_not_part_of_it(self) -> None:
        assert bytes(decode_request(b' { "id" : 7 , "data" : {"fn":"count"} } ').id) == b"7"

    def test_of_two_ids_the_last_one_counts(self) -> None:
        assert bytes(decode_request(b'{"id":1,"id":2,"data":{"fn":"count"}}').id) == b"2"

    @pytest.mark.parametrize(
        "data", ["null", "[]", "7", "{}", '{"fn":7}', '{"fn":null}', '{"args":[]}', '"text"', '{"fn":["add"]}']
    )
    def test_the_id_is_found_where_only_the_data_is_wrong(self, data: str) -> None:
        assert refusal(f'{{"data":{data},"id":"mine"}}').id == b'"mine"'

    def test_the_id_is_found_where_the_data_is_missing(self) -> None:
        refused = refusal('{"id":3}')
        assert (refused.id, refused.message) == (b"3", "Object missing required field `data`")

    def test_a_missing_id_is_said(self) -> None:
        assert refusal('{"data":{"fn":"count"}}').message == "Object missing required field `id`"


class TestMessages:
    @pytest.mark.parametrize(
        "text", ["", " ", "[]", "7", '"text"', "null", "true", "hello", "{", "{}x", "\x00", "[" * 9]
    )
    def test_what_is_no_envelope_is_refused_as_such(self, text: str) -> None:
        refused = refusal(text)
        assert refused.code is ErrorCode.INVALID_MESSAGE
        assert refused.id == b"null"
        assert json.loads(err(refused.id, refused)) == {
            "id": None,
            "data": {"err": {"message": refused.message, "code": "INVALID_MESSAGE"}},
        }

    def test_arguments_may_be_left_out(self) -> None:
        assert decode_request(b'{"id":1,"data":{"fn":"count"}}').data.args == []

    @pytest.mark.parametrize("args", ["null", "{}", "[]", " { } "])
    def test_so_may_be_what_stands_for_none(self, args: str) -> None:
        assert decode_request(f'{{"id":1,"data":{{"fn":"count","args":{args}}}}}'.encode()).data.args == []

    @pytest.mark.parametrize(
        ("args", "kind"), [('{"a":1}', "an object"), ("7", "a whole number"), ('"x"', "a string"), ("7.5", "a number")]
    )
    def test_arguments_that_are_no_array_are_the_calls_fault_not_the_envelopes(self, args: str, kind: str) -> None:
        refused = refusal(f'{{"id":1,"data":{{"fn":"add","args":{args}}}}}')
        assert (refused.code, refused.id) == (ErrorCode.INVALID_ARGUMENTS, b"1")
        assert refused.message == f"Expected an array, got {kind} - at `args`"

    def test_unknown_members_are_ignored(self) -> None:
        request = decode_request(b'{"v":2,"id":1,"data":{"fn":"count","trace":"x","args":[1]},"more":[]}')
        assert (request.data.fn, [bytes(arg) for arg in request.data.args]) == ("count", [b"1"])

    @pytest.mark.parametrize("opener", ["[", '{"a":'])
    @pytest.mark.parametrize("depth", [50_000, 150_000])
    def test_deep_nesting_is_refused_and_not_fallen_into(self, opener: str, depth: int) -> None:
        closer = "]" if opener == "[" else "}"
        deep = opener * depth + "1" + closer * depth
        assert (
            refusal(f'{{"id":1,"data":{{"fn":"add","args":[{deep}]}}}}').message == "The message is nested too deeply"
        )
        assert refusal(deep).message

    def test_bytes_that_are_not_utf_8_are_refused_where_they_are_read(self) -> None:
        assert refusal(b'{"id":1,"data":{"fn":"\xff"}}').message == "The message is not UTF-8"

    @pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "\\udc00\\ud800", "\\\\\\uD83d \\ud83d\\ude00"])
    def test_half_a_surrogate_pair_stays_the_text_that_was_sent(self, half: str) -> None:
        request = decode_request(f'{{"id":"{half}","data":{{"fn":"add","args":["a", {{"b" :"{half}"}}]}}}}'.encode())
        assert bytes(request.id) == f'"{half}"'.encode()
        assert bytes(request.data.args[1]) == f'{{"b" :"{half}"}}'.encode()

    @given(st.binary(max_size=200))
    def test_no_bytes_raise_anything_else(self, text: bytes) -> None:
        try:
            decode_request(text)
        except InvalidMessage as refused:
            json.loads(err(refused.id, refused))

    @given(damaged(st.just(b'{"id": 12, "data": {"fn": "add", "args": ["a", {"b": [1.5e3, null]}, {"delay": 5}]}}')))
    @example(b'{"id": 12, "data": {"fn": "add", "args": [\xc3]}}')
    def test_no_damage_makes_it_accept_what_is_no_json(self, text: bytes) -> None:
        try:
            request = decode_request(text)
        except InvalidMessage as refused:
            json.loads(err(refused.id, refused))
            return
        try:
            text.decode()
        except UnicodeDecodeError:
            return  # refused before it comes here: close code 1007
        assert isinstance(json.loads(bytes(request.id)), int | float | str)
        for arg in request.data.args:
            json.loads(bytes(arg))
            json.loads(b"".join(ok(bytes(request.id), arg)))

    @given(
        json_texts(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts),
        texts,
        st.lists(json_texts()),
    )
    def test_what_is_an_envelope_is_read_without_a_change(self, id: bytes, fn: str, args: list[bytes]) -> None:
        text = b'{"id":%b,"data":{"fn":%b,"args":[%b]}}' % (id, json.dumps(fn).encode(), b", ".join(args))
        request = decode_request(text)
        assert (bytes(request.id), request.data.fn) == (id, fn)
        assert [bytes(arg) for arg in request.data.args] == [arg.strip() for arg in args]

    @given(json_texts(values))
    def test_any_json_is_answered_as_an_envelope_or_refused(self, text: bytes) -> None:
        try:
            decode_request(text)
        except InvalidMessage as refused:
            assert refused.id == b"null" or json.loads(refused.id) == json.loads(text)["id"]


class TestReplies:
    def test_a_result_is_ok(self) -> None:
        assert b"".join(ok(b'"a"', b'{"x":1}')) == b'{"id":"a","data":{"ok":{"x":1}}}'

    def test_an_error_is_err(self) -> None:
        error = GatewayError(ErrorCode.NOT_FOUND, "Missing key for job 5. updateProgress")
        assert err(b"7", error) == (
            b'{"id":7,"data":{"err":{"message":"Missing key for job 5. updateProgress","code":"NOT_FOUND"}}}'
        )

    def test_what_the_gateway_sends_of_its_own_accord_has_its_own_number(self) -> None:
        assert message(0, b'{"type":"drain"}') == b'{"id":0,"data":{"type":"drain"}}'

    @given(st.text(alphabet=st.characters() | st.characters(categories=["Cs"])))
    def test_every_message_of_an_error_can_be_sent(self, text: str) -> None:
        sent = json.loads(error_json(GatewayError(ErrorCode.INTERNAL, text)))
        assert sent["message"] == printable(text)

    def test_half_a_surrogate_pair_becomes_a_replacement_character(self) -> None:
        assert printable("a\ud800b") == "a\ufffdb"
        assert printable("é\U0001f600") == "é\U0001f600"


class TestStoredText:
    @pytest.mark.parametrize("text", [b"null", b"0", b'"x"', b' {"a": [1, 2]} ', b'{"a":1e999}', '"é"'.encode()])
    def test_json_goes_out_as_it_is(self, text: bytes) -> None:
        assert json_text(text) == Raw(text.strip())

    def test_what_is_no_utf8_goes_out_as_nodes_replacement(self) -> None:
        assert bytes(json_text(b'{"a\xff":"\xf0\x9f\x92"}') or b"") == '{"a\ufffd":"\ufffd"}'.encode()

    @pytest.mark.parametrize(
        "text", [b"", b"nope", b"{", b"1 2", b"NaN", b'["\\ud800",NaN]', b'"\\ud800', b"[" * 100_000]
    )
    def test_what_is_no_json_does_not(self, text: bytes) -> None:
        assert json_text(text) is None

    def test_half_a_surrogate_pair_is_json_as_node_writes_it(self) -> None:
        assert json_text(b'{"cut":"\\ud83d"}') == Raw(b'{"cut":"\\ud83d"}')

    @given(st.binary(max_size=60) | damaged(json_texts()))
    def test_nothing_that_goes_out_breaks_a_frame(self, text: bytes) -> None:
        found = json_text(text)
        if found is not None:
            json.loads(encode({"payload": found}).decode())

    @given(json_texts())
    def test_every_payload_survives_unchanged(self, text: bytes) -> None:
        found: Any = json_text(text)
        assert bytes(found) == text
