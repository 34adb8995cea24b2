"""What is pure: the meaning of answers, the breaker, the guard, and the headers."""

from __future__ import annotations

import json

import pytest

from bullmq_proxy.gateway.rules.trace_context import carried
from bullmq_proxy.gateway.webhooks import signing
from bullmq_proxy.gateway.webhooks.answers import Accepted, Answer, Busy, Completed, Down, Refused, Verdict, judge
from bullmq_proxy.gateway.webhooks.breaker import (
    CLOSED,
    FIRST_PAUSE,
    HALF_OPEN,
    LONGEST_PAUSE,
    OPEN,
    THRESHOLD,
    Breaker,
)
from bullmq_proxy.gateway.webhooks.guard import ForbiddenAddressError, Guard
from bullmq_proxy.gateway.wire.answers import Failed

NOW = 1_700_000_000.0


def judged(status: int, body: bytes = b"", kind: str = "", retry_after: str = "") -> Verdict:
    return judge(Answer(status, kind, retry_after, body), NOW)


@pytest.mark.parametrize(
    ("verdict", "result"),
    [
        (judged(200, b' {"a":1}\n', "application/json; charset=utf-8"), b'{"a":1}'),
        (judged(201, b"7", "application/problem+json"), b"7"),
        (judged(200, b"", "application/json"), b"null"),
        (judged(200, b"", "text/plain"), b'""'),
        (judged(200, b"a\xff", ""), '"a�"'.encode()),
        (judged(204, b"", "text/plain"), b"null"),
        (judged(205), b"null"),
    ],
)
def test_success(verdict: Verdict, result: bytes) -> None:
    assert isinstance(verdict, Completed)
    assert bytes(verdict.result) == result


@pytest.mark.parametrize(
    ("verdict", "reason", "is_final", "kind"),
    [
        (judged(400, b" no \n"), "no", False, Refused),
        (judged(404), "404 Not Found", False, Refused),
        (judged(410), "410 Gone", True, Refused),
        (judged(422, b"never"), "never", True, Refused),
        (judged(429), "429 Too Many Requests", False, Refused),
        (judged(429, retry_after="soon"), "429 Too Many Requests", False, Refused),
        (judged(301), "301 Moved Permanently", False, Refused),
        (judged(500, b"\xff"), "�", False, Refused),
        (judged(599), "599", False, Refused),
        (judged(502), "502 Bad Gateway", False, Down),
        (judged(503), "503 Service Unavailable", False, Down),
        (judged(504), "504 Gateway Timeout", False, Down),
        (
            judged(200, b"{", "application/json"),
            "The endpoint's answer says that it is JSON, and is none",
            False,
            Refused,
        ),
        (
            judged(200, b'"\xff"', "application/json"),
            "The endpoint's answer says that it is JSON, and is none",
            False,
            Refused,
        ),
    ],
)
def test_failure(verdict: Verdict, reason: str, is_final: bool, kind: type[Refused | Down]) -> None:
    assert isinstance(verdict, kind)
    assert verdict.failure == Failed(reason, unrecoverable=is_final)


def test_what_is_logged_of_an_endpoint_that_is_down_is_not_its_text() -> None:
    """It may be a page for developers that shows the headers of the request."""
    verdict = judged(502, b"Authorization: Bearer hunter2")
    assert isinstance(verdict, Down)
    assert verdict.cause == "502 Bad Gateway"


def test_acceptance() -> None:
    assert judged(202, b"whatever") == Accepted()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [
        ("3", 3000),
        ("0", 100),
        ("999999999999", 3_600_000),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10_000),
        ("Tue, 14 Nov 2000 22:13:30 GMT", 100),
    ],
)
def test_busy(status: int, retry_after: str, delay: int) -> None:
    assert judged(status, retry_after=retry_after) == Busy(delay)


class TestTheBreaker:
    def test_it_opens_after_failures_in_a_row_alone(self) -> None:
        breaker = Breaker()
        for _ in range(3):
            assert not any(breaker.failed(0.0) for _ in range(THRESHOLD - 1))
            assert not breaker.answered()
        assert [breaker.failed(0.0) for _ in range(THRESHOLD)] == [False] * (THRESHOLD - 1) + [True]
        assert breaker.state is OPEN
        assert not breaker.failed(0.0)

    def test_one_try_closes_it_or_opens_it_for_twice_as_long(self) -> None:
        breaker, now, pauses = Breaker(), 0.0, []
        for _ in range(THRESHOLD):
            breaker.failed(now)
        for _ in range(8):
            assert not breaker.is_due(now + breaker.pause - 0.01)
            now += breaker.pause
            assert breaker.is_due(now)
            assert breaker.state is HALF_OPEN
            pauses.append(breaker.pause)
            assert breaker.failed(now)
        assert pauses == [FIRST_PAUSE * 2**n for n in range(6)] + [LONGEST_PAUSE] * 2
        assert breaker.is_due(now + breaker.pause)
        assert breaker.answered()
        assert (breaker.state, breaker.pause) == (CLOSED, FIRST_PAUSE)


class TestTheGuard:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "127.8.9.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "192.88.99.1",
            "::ffff:192.0.0.192",
            "3fff::1",
            "64:ff9b:1::a00:1",
            "::ffff:0:a00:1",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:0:102:304::80ff:fffe",
            "fe80::1%eth0",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "fec0::1",
        ],
    )
    def test_no_request_goes_there(self, address: str) -> None:
        with pytest.raises(ForbiddenAddressError, match="webhook_allow"):
            Guard(()).check("example.com", address)

    @pytest.mark.parametrize("address", ["93.184.216.34", "::ffff:8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
    def test_the_public_network_is_open(self, address: str) -> None:
        Guard(()).check("example.com", address)

    @pytest.mark.parametrize(
        ("allowed", "host", "address"),
        [
            ("127.0.0.1", "a", "127.0.0.1"),
            ("127.0.0.1", "a", "::ffff:127.0.0.1"),
            ("10.0.0.0/8", "a", "10.9.9.9"),
            ("fd00::/8", "a", "fd00::1"),
            ("Inside.example.", "inside.example", "10.0.0.1"),
        ],
    )
    def test_what_is_named_is_allowed_and_nothing_beside_it(self, allowed: str, host: str, address: str) -> None:
        guard = Guard((allowed,))
        guard.check(host, address)
        with pytest.raises(ForbiddenAddressError):
            guard.check("other", "192.168.0.1")


class TestHeaders:
    def test_a_message_id_is_that_of_one_job(self) -> None:
        ids = {signing.message_id(*which) for which in (("q", "1", 1), ("q", "1", 2), ("q", "2", 1), ("p", "1", 1))}
        assert len(ids) == 4
        assert signing.message_id("q", "\ud800", 1).startswith("msg_")

    @pytest.mark.parametrize(
        "metadata",
        ["no json", "[]", {"traceparent": 1}, json.dumps({"traceparent": "00-\r\nX: y"}), json.dumps({"x": 1})],
    )
    def test_what_is_no_trace_is_left_out(self, metadata: object) -> None:
        assert carried(json.dumps({"tm": metadata}, separators=(",", ":")).encode()).headers == {}
