"""What some languages write for the values that others write as they are."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from bullmq_proxy.gateway.values import reading
from bullmq_proxy.gateway.values.json_text import UNREADABLE
from bullmq_proxy.gateway.values.reading import Reader


class Inner(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """Options within options."""

    needed: str
    at_most: Annotated[int, Meta(le=5)] | UnsetType = UNSET
    any_number: float = 0.0


class Outer(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """Options."""

    count: int | UnsetType = UNSET
    kept: bool | int | Inner | UnsetType = UNSET
    names: list[str] = []
    data: Raw = Raw(b"{}")
    maybe: str | None = "unless it is given"
    labels: dict[str, int] = {}
    children: list[Outer] | None = None
    kind: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", Outer()),
        ("[]", Outer()),
        ('{"count":1000.0}', Outer(count=1000)),
        ('{"count":1e3}', Outer(count=1000)),
        ('{"count":null}', Outer()),
        ('{"count":null,"kept":null,"names":null,"labels":null,"kind":null}', Outer()),
        ('{"maybe":null}', Outer(maybe=None)),
        ('{"kept":2.0}', Outer(kept=2)),
        ('{"kept":{"needed":"x","atMost":5.0,"anyNumber":5}}', Outer(kept=Inner("x", 5, 5.0))),
        ('{"kept":{"needed":"x","atMost":null,"anyNumber":null}}', Outer(kept=Inner("x"))),
        ('{"names":{}}', Outer()),
        ('{"labels":[]}', Outer()),
        ('{"labels":{"x":1.0,"\\ud800":2}}', Outer(labels={"x": 1, "\ufffd": 2})),
        ('{"names":["\\ud83d","\\ud83d\\ude00\\udfff"]}', Outer(names=["\ufffd", "\U0001f600\ufffd"])),
        ('{"children":[[],{"children":{}},{"count":7.0}]}', Outer(children=[Outer(), Outer(children=[]), Outer(7)])),
        (' { "count" : 1.0 } ', Outer(count=1)),
        ('{"names":["\\ud83d\ue801","\\ue802\\\\ue803"]}', Outer(names=["\ufffd\ue801", "\ue802\\ue803"])),
    ],
)
def test_what_stands_for_a_value_is_read_as_that(text: str, value: Outer) -> None:
    assert Reader[Outer](Outer).read(text.encode()) == value


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "[]",
        "1.0",
        '"\\ud83d"',
        '[ "\\UD83D" ]'.replace("U", "u"),
        '{"\\uDFFF":"\\\\ud83d \\\\\\udabc \\ud83d\\uDE00 \\uDE00\\ud83d"}',
        '"\\ud800 \\ue83d \ue83d"',
        '"\\ud800 \\ue83d \\ue03d"',
        '"\\udFfF\\ud8fF\\uE8Ff \ue000"',
    ],
)
def test_what_stays_text_stays_as_it_was_sent(data: str) -> None:
    read = Reader[Outer](Outer).read(f'{{"count":1.0,"names":["\\ud800"],"data": {data} }}'.encode())
    assert bytes(read.data) == data.encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"count":1.5}', "Expected `int`, got `float` - at `$.count`"),
        ('{"count":"1"}', "Expected `int`, got `str` - at `$.count`"),
        ('{"count":[]}', "Expected `int`, got `array` - at `$.count`"),
        ('{"kept":{"atMost":1.0}}', "Object missing required field `needed` - at `$.kept`"),
        ('{"kept":{"needed":null,"atMost":1.0}}', "Expected `str`, got `null` - at `$.kept.needed`"),
        ('{"kept":{"needed":"","atMost":6.0}}', "Expected `int` <= 5 - at `$.kept.atMost`"),
        ('{"names":[null]}', "Expected `str`, got `null` - at `$.names[0]`"),
        ('{"names":{"x":1}}', "Expected `array`, got `object` - at `$.names`"),
        ('{"count":1.0,"x":null}', "Object contains unknown field `x`"),
        ('[{"count":1}]', "Expected `object`, got `array`"),
        ('{"kind":"\\ud800"}', "Invalid enum value '\ufffd' - at `$.kind`"),
        ("null", "Expected `object`, got `null`"),
    ],
)
def test_what_stands_for_nothing_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        Reader[Outer](Outer).read(text.encode())
    assert str(refused.value) == said


@pytest.mark.parametrize(
    "text", ['{"a":"\\ud800"', '["\\ud800",]', '"\\ud800" x', '{"\\ud800" 1}', '"\\ud80"', '"\\ud8zz"', "1.0.0"]
)
def test_what_is_no_json_is_none_with_half_a_pair_either(text: str) -> None:
    with pytest.raises(UNREADABLE):
        Reader[Any](Any).read(text.encode())


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(json_values, st.booleans())
def test_any_json_stays_as_it_was_sent_whatever_characters_are_in_it(value: Any, in_ascii: bool) -> None:
    try:
        text = json.dumps(value, ensure_ascii=in_ascii).encode()
    except UnicodeEncodeError:  # half a pair, which is written as an escape only
        text = json.dumps(value).encode()
    read = Reader[list[Raw]](list[Raw]).read(b'["\\udead",%b]' % text)
    assert [bytes(each) for each in read] == [b'"\\udead"', text]


def test_only_the_elements_that_need_it_are_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST", 100)
    plain, odd = '{"count":1,"data":[1.0, "\u00fc"]}', '{"names":["\\ud83d"],"data":"\\ud83d"}'
    read = Reader[list[Outer]](list[Outer]).read(f"[{','.join([plain] * 1000 + [odd] + [plain] * 1000)}]".encode())
    assert len(read) == 2001
    assert (read[1000].names, bytes(read[1000].data)) == (["\ufffd"], b'"\\ud83d"')
    assert (read[2000].count, bytes(read[2000].data)) == (1, '[1.0, "\u00fc"]'.encode())


@pytest.mark.parametrize("value", ['["\\ud83d"]', "{}", "null"])
def test_it_goes_as_deep_as_a_flow(value: str) -> None:
    text = '{"children":[' * 199 + f'{{"names":{value}}}' + "]}" * 199
    assert Reader[Outer](Outer).read(text.encode()).children


def test_what_is_deep_and_large_is_not_looked_through_level_by_level() -> None:
    text = '{"children":[' * 200 + f'{{"names":{{}},"data":"{"x" * 900_000}"}}' + "]}" * 200
    with pytest.raises(msgspec.ValidationError, match="send fewer at a time"):
        Reader[Outer](Outer).read(text.encode())


def test_a_second_look_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client could keep the shard from others with texts of nothing but values that need it."""
    monkeypatch.setattr(reading, "_MOST", 100)
    reader = Reader[list[int]](list[int])
    assert len(reader.read(b"[" + b"1,1.0," * 49 + b"2.0]")) == 99
    for text in (b"[" + b"1,1.0," * 50 + b"2.0]", b'["' + b"\\ud800" * 101 + b'"]'):
        with pytest.raises(msgspec.ValidationError, match=r"more than 100 values .* send fewer at a time"):
            Reader[list[Any]](list[int | str]).read(text)


@pytest.mark.parametrize(
    "text",
    ["\\\\" * 50_000 + "\\ud800", "x" * 100_000 + "\\ud8zz", "\\ud83d\\ude00" * 10_000 + "\\udc00", "\\ud8" * 50_000],
)
def test_its_time_grows_with_the_text_and_not_with_its_square(text: str) -> None:
    begin = time.process_time()
    with suppress(*UNREADABLE):
        Reader[list[str]](list[str]).read(f'["{text}"]'.encode())
    assert time.process_time() - begin < 1  # minutes, if it did
