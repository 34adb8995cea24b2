"""Where a frame begins and ends: headers of every length, whole and cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from bullmq_proxy.gateway.net.frames import extent, is_masked, may_be_text, text_header

LENGTHS = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, 70_000])


def made(length: int, *, mask: bool, opcode: Opcode = Opcode.TEXT) -> bytes:
    return Frame(opcode, b"x" * length).serialize(mask=mask)


@given(length=LENGTHS, mask=st.booleans(), before=st.integers(0, 3))
def test_the_extent_is_that_of_the_library(length: int, mask: bool, before: int) -> None:
    frame = made(length, mask=mask)
    data = b"y" * before + frame + b"z"
    assert extent(data, before) == (before + len(frame) - length, before + len(frame))
    assert is_masked(data, before) is mask


@given(length=LENGTHS, mask=st.booleans())
def test_a_header_that_is_cut_off_has_no_extent_yet(length: int, mask: bool) -> None:
    frame = made(length, mask=mask)
    header = len(frame) - length
    assert [extent(frame[:end], 0) for end in range(header)] == [None] * header
    assert extent(frame[:header], 0) == (header, header + length)


@given(length=LENGTHS)
def test_our_own_header_is_that_of_the_library(length: int) -> None:
    assert text_header(length) + b"x" * length == made(length, mask=False)


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (b"\x81", True),
        (b"\x81\x80", True),
        (b"\x81\xfe\x01", True),
        (b"\x81\xff", False),  # so long that it may be over the limit
        (b"\x81\x05", False),  # not masked
        (b"\x82", False),
        (b"\x01", False),
        (b"\xc1", False),  # an extension's bit
        (b"\x89", False),
    ],
)
def test_only_what_may_be_a_text_message_waits_for_its_rest(header: bytes, kept: bool) -> None:
    assert may_be_text(header) is kept
