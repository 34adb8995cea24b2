"""What a key may do: permissions, patterns of queues, the prefix; and rights that change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bullmq_proxy.gateway.access.grants import EVERYTHING, Grant, Permission, Rights
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

ONE = Grant("shop", frozenset({Permission.PRODUCE}), ("mails-*", "news"))


def is_for(pattern: str, name: str) -> bool:
    try:
        Grant("k", queues=(pattern,)).check_queue(name)
    except GatewayError as error:
        assert error.code is ErrorCode.FORBIDDEN
        return False
    return True


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "fits", "others"),
        [
            ("mails", ["mails"], ["mails-1", "mail", "Mails", "xmails", ""]),
            ("mails-*", ["mails-", "mails-1", "mails-a*b", "mails-\n"], ["mails", "xmails-1", "MAILS-1"]),
            ("*", ["", "a", "a\nb", "*"], []),
            ("*-eu", ["-eu", "mails-eu"], ["mails-eu1", "eu"]),
            ("a*b*c", ["abc", "a-b-b-c", "abcbc"], ["ab", "acb", "abcd", "bc"]),
            ("ab*ba", ["abba", "ab-ba"], ["aba"]),
            ("a**b", ["ab", "a-b"], ["a"]),
            ("m.[ab]?", ["m.[ab]?"], ["mxa", "m.a"]),
        ],
    )
    def test_a_star_stands_for_any_text_and_nothing_else_is_special(
        self, pattern: str, fits: list[str], others: list[str]
    ) -> None:
        assert [name for name in fits if not is_for(pattern, name)] == []
        assert [name for name in others if is_for(pattern, name)] == []

    @given(st.lists(st.text("ab*", max_size=4), min_size=1), st.text("ab", max_size=3))
    def test_a_name_fits_the_pattern_that_it_was_made_from(self, parts: list[str], filling: str) -> None:
        assert is_for("*".join(parts), filling.join(part.replace("*", filling) for part in parts))

    def test_an_evil_pattern_costs_no_time(self) -> None:
        assert not is_for("*a" * 200 + "b", "a" * 1000)


class TestDenial:
    def test_nothing_is_granted_by_default(self) -> None:
        nothing = Grant("k")
        with pytest.raises(GatewayError):
            nothing.check_queue("mails")
        for permission in Permission:
            with pytest.raises(GatewayError):
                nothing.check_permission(permission, "do this")

    def test_the_message_names_key_and_permission(self) -> None:
        with pytest.raises(GatewayError, match=r"^The key shop may not call pause: it needs the permission manage$"):
            ONE.check_permission(Permission.MANAGE, "call pause")

    @pytest.mark.parametrize("name", ["bull:mails-1", "bull:news"])
    def test_queues_of_its_patterns_can_be_reached(self, name: str) -> None:
        ONE.check_reach("bull", [name])

    @pytest.mark.parametrize("name", ["bull:orders", "other:mails-1", "mails-1", "bullx:mails-1", "xbull:news", ""])
    def test_no_other_can(self, name: str) -> None:
        with pytest.raises(GatewayError):
            ONE.check_reach("bull", ["bull:mails-1", name])

    def test_who_may_do_everything_may(self) -> None:
        EVERYTHING.check_queue("any")
        EVERYTHING.check_reach("bull", ["other:any"])
        EVERYTHING.check_permission(Permission.MANAGE, "call pause")


class TestRights:
    def test_calls_are_not_counted_unless_somebody_does(self) -> None:
        for _ in range(1000):
            Rights(EVERYTHING).check_rate()

    def test_a_call_too_many_is_refused(self) -> None:
        left = [True, True, False, True]
        rights = Rights(ONE, lambda count: left.pop(0))
        rights.check_rate()
        rights.check_rate()
        with pytest.raises(GatewayError, match="key shop") as refused:
            rights.check_rate()
        assert refused.value.code is ErrorCode.TOO_MANY_REQUESTS
        rights.check_rate()
