"""Where a frame begins and ends: headers of every length, whole and cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from bullmq_proxy.gateway.net.frames import extent, is_masked, may_be_valid, text_header

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
        (b"\x81\xff\x00", True),
        (b"\x82", True),
        (b"\x01", True),
        (b"\x00\x80", True),
        (b"\x89\xfd", True),
        (b"\x81\x05", False),  # not masked
        (b"\xc1", False),  # an extension's bit
        (b"\x83", False),  # no opcode
        (b"\x8b", False),
        (b"\x09", False),  # a fragment of a control frame
        (b"\x89\xfe", False),  # a control frame of more than 125 bytes
    ],
)
def test_only_what_may_be_a_valid_frame_waits_for_its_rest(header: bytes, kept: bool) -> None:
    assert may_be_valid(header) is kept
