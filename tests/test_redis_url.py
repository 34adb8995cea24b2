"""The URL of Redis: every kind of server, and no secret in a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from bullmq_proxy.gateway.broker.redis.address import Address, Target
from bullmq_proxy.gateway.broker.redis.errors import RedisRefused
from bullmq_proxy.gateway.redis_url import Kind, RedisUrl, parse


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/2", RedisUrl(hosts=(("h", 1),), db=2)),
        ("valkeys://us%40er:p%2Fw@[::1]", RedisUrl(tls=True, hosts=(("::1", 6379),), username="us@er", password="p/w")),
        ("unix:///run/r.sock?db=3", RedisUrl(path="/run/r.sock", db=3)),
        (
            "redis+sentinel://u:p@h1:1,h2,[::1]:3/mymaster/4?sentinel_password=s",
            RedisUrl(
                kind=Kind.SENTINEL,
                hosts=(("h1", 1), ("h2", 26379), ("::1", 3)),
                name="mymaster",
                db=4,
                username="u",
                password="p",
                parameters={"sentinel_password": "s"},
            ),
        ),
        (
            "rediss+cluster://h1,h2:7000?ssl_ca_certs=/ca.pem&ssl_server_name=r.example",
            RedisUrl(
                kind=Kind.CLUSTER,
                tls=True,
                hosts=(("h1", 6379), ("h2", 7000)),
                parameters={"ssl_ca_certs": "/ca.pem", "ssl_server_name": "r.example"},
            ),
        ),
        ("valkey+cluster://:p@h", RedisUrl(kind=Kind.CLUSTER, hosts=(("h", 6379),), password="p")),
    ],
)
def test_a_url_says_what_kind_of_server_it_is(url: str, expected: RedisUrl) -> None:
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("rediss://h?ssl_ca_cert=x", "'ssl_ca_cert' is not known; did you mean ssl_ca_certs?"),
        ("redis://h?max_connections=5", "only parameters of db, username, password: 'max_connections'"),
        ("redis://h?ssl_ca_certs=x", "a scheme with TLS, such as rediss://"),
        ("redis+cluster://h?db=1", "'db' is not known"),
        ("redis+cluster://h/1", "a cluster has only one"),
        ("redis+sentinel://h1,h2", "the name of the master"),
        ("redis+sentinel://h/name/x", "the number of a database"),
        ("redis+sentinel:///name", "a host"),
        ("redis://h1,h2", "a URL such as"),
        ("redis+cluster://hidden:x@h:port", "a URL such as"),
        ("redis://" + "h" * 5000, "a URL such as"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_remedy(url: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse(url)
    assert why in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_sentinels_have_a_login_of_their_own() -> None:
    target = Target.from_url("redis+sentinel://u:hidden@h1,h2/m?sentinel_username=s&sentinel_password=hidden2")
    assert target.master == Address(username="u", password="hidden")
    assert target.seeds[1] == Address(host="h2", port=26379, username="s", password="hidden2")
    assert target.shown == "redis+sentinel://h1:26379,h2:26379/m/0"
    assert "hidden" not in repr(target)


def test_a_password_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    address = Target.from_url("redis://h", str(file)).seeds[0]
    with pytest.raises(RedisRefused, match="cannot be read"):
        address.read_password()
    for password in ("first", "second"):
        file.write_text(f"{password}\n")
        assert address.read_password() == password
    assert Target.from_url("redis://:own@h", str(file)).seeds[0].read_password() == "own"
