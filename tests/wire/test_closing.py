"""Close codes and reasons."""

from __future__ import annotations

import enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bullmq_proxy.gateway.wire.closing import REASON_LIMIT, CloseCode, cut_reason


@pytest.mark.parametrize("reason", ["", "no pong", "é" * 61, "x" * 123])
def test_a_reason_that_fits_is_left_alone(reason: str) -> None:
    assert cut_reason(reason) == reason


@pytest.mark.parametrize(
    ("reason", "cut"),
    [
        ("x" * 124, "x" * 123),
        ("é" * 62, "é" * 61),
        ("x" * 121 + "€", "x" * 121),
        ("x" * 120 + "\U0001f600!", "x" * 120),
    ],
)
def test_a_long_reason_is_cut_before_the_character_that_does_not_fit(reason: str, cut: str) -> None:
    assert cut_reason(reason) == cut


@given(st.text())
def test_every_reason_fits_into_a_close_frame_and_is_where_the_whole_one_begins(reason: str) -> None:
    cut = cut_reason(reason)
    assert len(cut.encode()) <= REASON_LIMIT
    assert reason.startswith(cut)
    assert cut == reason or len(cut.encode()) > REASON_LIMIT - 4


def test_the_codes_are_those_that_rfc_6455_and_the_protocol_name() -> None:
    assert {code.name: code.value for code in CloseCode} == {
        "NORMAL": 1000,
        "GOING_AWAY": 1001,
        "UNSUPPORTED_DATA": 1003,
        "INVALID_DATA": 1007,
        "POLICY": 1008,
        "TOO_BIG": 1009,
        "INTERNAL": 1011,
        "RESTART": 1012,
        "OVERLOADED": 1013,
        "INVALID_AUTHENTICATION": 4000,
        "SENT_AWAY": 4001,
        "SLOW_CONSUMER": 4002,
        "NO_PONG": 4003,
        "TOKEN_EXPIRED": 4004,
    }


def test_every_code_has_a_meaning() -> None:
    assert all(code.meaning for code in CloseCode)


def test_what_a_client_sends_before_it_hears_of_the_end_counts_unless_it_did_something_wrong() -> None:
    late = {code.name for code in CloseCode if code.takes_late_messages}
    assert late == {"GOING_AWAY", "RESTART", "SENT_AWAY", "SLOW_CONSUMER", "NO_PONG"}


def test_a_code_with_a_column_missing_cannot_be_defined() -> None:
    for row in (4999, (4999, "meaning")):
        with pytest.raises(TypeError, match="missing"):
            enum.IntEnum("Incomplete", {"__new__": CloseCode.__new_member__, "NEW": row})
