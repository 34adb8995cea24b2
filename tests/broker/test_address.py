"""Addresses of Redis: every spelling, and no password where it can be seen."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis, SSLConnection, UnixDomainSocketConnection

from bullmq_proxy.gateway.broker.redis.address import Address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", Address()),
        ("redis://example.org", Address(host="example.org")),
        ("redis://example.org:6380/4", Address(host="example.org", port=6380, db=4)),
        ("redis://example.org?db=4", Address(host="example.org", db=4)),
        ("redis://:pw@h", Address(host="h", password="pw")),
        ("redis://us%40er:p%40ss%3Aw%2Ford@h", Address(host="h", username="us@er", password="p@ss:w/ord")),
        ("redis://[::1]:7000", Address(host="::1", port=7000)),
        ("valkey://h:1/2", Address(host="h", port=1, db=2)),
        ("unix:///run/redis.sock", Address(path="/run/redis.sock")),
        (
            "unix://user:p%20w@/run/redis.sock?db=3",
            Address(path="/run/redis.sock", db=3, username="user", password="p w"),
        ),
        ("valkey+unix:///run/v.sock", Address(path="/run/v.sock")),
        ("redis+unix:///run/v.sock", Address(path="/run/v.sock")),
    ],
)
def test_a_url_says_where_and_how(url: str, expected: Address) -> None:
    assert Address.from_url(url) == expected


@pytest.mark.parametrize("url", ["rediss://h:6380", "valkeys://h:6380"])
def test_an_s_means_tls_with_a_checked_certificate(url: str) -> None:
    address = Address.from_url(url)
    assert address.tls is not None
    assert address.tls.check_hostname
    assert address.shown == "rediss://h:6380/0"


@pytest.mark.parametrize(
    ("query", "check_hostname", "verifies"),
    [
        ("ssl_cert_reqs=none", False, False),
        ("ssl_check_hostname=False", False, True),
        ("ssl_cert_reqs=required", True, True),
    ],
)
def test_the_checks_of_tls_can_be_relaxed(query: str, check_hostname: bool, verifies: bool) -> None:
    tls = Address.from_url(f"rediss://h?{query}").tls
    assert tls is not None
    assert (tls.check_hostname, bool(tls.verify_mode)) == (check_hostname, verifies)


@pytest.mark.parametrize("url", ["http://h", "h:6379", "", "redis", "redis://h/notanumber?db=x"])
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Address.from_url(url)


@pytest.mark.parametrize(
    "url", ["redis://:hun/ter2@h", "redis://u:hun#ter2@h", "redis://u:hun?ter2@h", "redis://hun:x"]
)
def test_a_refusal_repeats_no_part_of_a_password(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        Address.from_url(url)
    assert "hun" not in f"{refused.value} {refused.value.__cause__}"
    assert "percent-encoded" in str(refused.value)


def test_no_password_is_ever_shown() -> None:
    for url in ("redis://user:hidden@h/1", "rediss://:hidden@h", "unix://:hidden@/run/s"):
        address = Address.from_url(url)
        assert address.password == "hidden"
        assert "hidden" not in repr(address) + str(address) + address.shown
    assert Address.from_url("redis://user:hidden@h/1").shown == "redis://h:6379/1"
    assert Address.from_url("unix://:hidden@/run/s").shown == "unix:/run/s"


async def test_an_existing_clients_server_and_login_are_used() -> None:
    async with Redis(host="h", port=7, db=2, username="u", password="p") as client:
        assert Address.from_client(client) == Address(host="h", port=7, db=2, username="u", password="p")
    async with Redis.from_url("rediss://u:p@h:7/2") as client:
        address = Address.from_client(client)
        assert (address.host, address.port, address.db, address.tls is not None) == ("h", 7, 2, True)
    async with Redis(unix_socket_path="/run/s", db=1) as client:
        assert Address.from_client(client) == Address(path="/run/s", db=1)


def test_redis_py_still_names_its_kinds_of_connection_as_we_expect() -> None:
    assert "SSL" in SSLConnection.__name__
    assert "SSL" not in UnixDomainSocketConnection.__name__
