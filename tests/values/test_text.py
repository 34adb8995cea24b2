"""Texts with halves of surrogate pairs, as Node writes them into Redis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bullmq_proxy.gateway.values.json_text import encode, encode_as_node
from bullmq_proxy.gateway.values.text import (
    as_argument_of_node,
    as_packed_by_node,
    bytes_of,
    code_units,
    in_half_pairs,
    printable,
)


def paired(text: str) -> str:
    """The text as JSON gives it: no two halves stand where they are a pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


javascript = st.text(st.characters(codec=None)).map(paired)


@given(javascript)
def test_a_text_of_javascript_comes_back_from_inside(text: str) -> None:
    assert code_units(in_half_pairs(text)) == text


@given(javascript)
def test_it_can_always_be_written_and_shown(text: str) -> None:
    inside = in_half_pairs(text)
    for written in (bytes_of(as_packed_by_node(inside)), as_argument_of_node(inside).encode()):
        assert bool(written) == bool(text)
    for shown in (printable(inside).encode(), encode([inside]), encode_as_node([inside])):
        shown.decode()


@pytest.mark.parametrize(
    ("text", "packed", "argument"),
    [
        ("a", b"a", b"a"),
        ("\ud83d", b"\xed\xa0\xbd", b"\xef\xbf\xbd"),
        ("\U0001f600", b"\xf0\x9f\x98\x80", b"\xf0\x9f\x98\x80"),
        ("a" * 62 + "\udc80", b"a" * 62 + b"\xed\xb2\x80", b"a" * 62 + b"\xef\xbf\xbd"),
        ("a" * 63 + "\udc80", b"a" * 63 + b"\xef\xbf\xbd", b"a" * 63 + b"\xef\xbf\xbd"),
        ("\U0001f600" * 31 + "\udfff", b"\xf0\x9f\x98\x80" * 31 + b"\xed\xbf\xbf", None),
        ("\U0001f600" * 32 + "\udfff", b"\xf0\x9f\x98\x80" * 32 + b"\xef\xbf\xbd", None),
        ("\u00fc" * 100, b"\xc3\xbc" * 100, b"\xc3\xbc" * 100),
    ],
)
def test_msgpackr_leaves_halves_in_short_texts(text: str, packed: bytes, argument: bytes | None) -> None:
    assert bytes_of(as_packed_by_node(in_half_pairs(text))) == packed
    if argument is not None:
        assert as_argument_of_node(in_half_pairs(text)).encode() == argument
