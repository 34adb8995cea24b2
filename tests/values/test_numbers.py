"""Texts as JavaScript reads numbers in them: `parseInt` and `Number`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.values.numbers import number_text, parse_int, to_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None),
        (b"", None),
        (b"NaN", None),
        (b"x1", None),
        (b"7", 7),
        (b"-7", -7),
        (b"+7", 7),
        (b" \t7", 7),
        (b"1.9", 1),
        (b"12abc", 12),
        (b"1e3", 1),
        (b"0x1F", 31),
        (b"-0X10z", -16),
        (b"0x", None),
        (b"\xff", None),
        ("٣".encode(), None),
        (b"9" * 308, int("9" * 308)),
        (b"9" * 309, None),
        (b"9" * 5000, None),
        (b"0x" + b"f" * 5000, None),
    ],
)
def test_leading_digits_are_read(text: bytes | None, value: int | None) -> None:
    assert parse_int(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0),
        (" \n", 0),
        ("7", 7),
        (" -7 ", -7),
        ("007", 7),
        ("1.5", 1.5),
        ("1.", 1),
        (".5", 0.5),
        ("1e3", 1000),
        ("1e400", None),
        ("Infinity", None),
        ("0x1F", 31),
        ("0b11", 3),
        ("0o17", 15),
        ("-0x1F", None),
        ("0x" + "f" * 5000, None),
        ("9" * 5000, None),
        ("1_000", None),
        ("12abc", None),
        ("٣", None),
        ("nan", None),
        (".", None),
    ],
)
def test_a_whole_text_is_read(text: str, value: float | None) -> None:
    assert to_number(text) == value


@given(st.text(max_size=30) | st.from_regex(r"[+-]?[0-9.eExX]{1,20}"))
def test_every_number_can_go_out(text: str) -> None:
    encode([to_number(text), parse_int(text.encode(errors="replace"))])


def test_whole_numbers_are_written_without_a_fraction() -> None:
    assert encode([to_number("1e3"), to_number("2.0"), to_number("1e21")]) == b"[1000,2,1e21]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (5.0, "5"),
        (-1.5, "-1.5"),
        (100.0, "100"),
        (1.2345678901234568e20, "123456789012345680000"),
        (1e21, "1e+21"),
        (-1.5e300, "-1.5e+300"),
        (0.000001, "0.000001"),
        (1.25e-7, "1.25e-7"),
        (5e-324, "5e-324"),
    ],
)
def test_a_number_is_written_as_javascript_writes_it(value: float, text: str) -> None:
    assert number_text(value) == text
