"""Slots of keys, as the cluster specification has them."""

from __future__ import annotations

import pytest

from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.values.slots import check_tag, hash_tag, slot_of


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("123456789", 0x31C3),
        ("foo", 12182),
        ("{user1000}.following", 3443),
        ("{user1000}.followers", 3443),
    ],
)
def test_a_key_has_the_slot_of_its_tag(key: str, slot: int) -> None:
    assert slot_of(key) == slot


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        ("bull:{mails}:1", "mails"),
        ("{bull}:{a}:1", "bull"),
        ("a{}b{c}", ""),
        ("a{{b}c", "{b"),
        ("{a", ""),
        ("a}b{", ""),
    ],
)
def test_a_tag_is_what_is_in_the_first_braces(key: str, tag: str) -> None:
    assert hash_tag(key) == tag


def test_a_queue_without_a_tag_is_refused_with_both_remedies() -> None:
    with pytest.raises(GatewayError, match=r"prefix in braces, such as \{bull\}.*\{mails\}"):
        check_tag("bull", "mails")
    check_tag("{bull}", "mails")
    check_tag("bull", "{mails}")
