"""Redis over TLS that demands a certificate of its clients."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.errors import RedisRefused
from tests.support.certificates import OPENSSL, demanding, make_certificate
from tests.support.link import started
from tests.support.valkey import ValkeyProcess

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is missing")

_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the server, of a client that it trusts, of one that it does not, and one whose key has a password."""
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client", "stranger"):
        make_certificate(directory, name)
    make_certificate(directory, "locked", "-passout", "pass:hunter2")
    return directory


@pytest.mark.parametrize("newest", _VERSIONS)
async def test_a_certificate_lets_the_gateway_in_and_without_one_it_is_told_the_parameter(
    valkey: ValkeyProcess, prefix: str, certificates: Path, newest: ssl.TLSVersion
) -> None:
    server, client = certificates / "server.pem", certificates / "client.pem"
    path = valkey.url.removeprefix("unix://")
    with demanding(path, server, client, newest) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_server_name=server&ssl_ca_certs={server}"
        own = f"&ssl_certfile={client}&ssl_keyfile={client.with_suffix('.key')}"
        async with started(url + own, prefix) as broker:
            assert await broker.link.nodes[0].call("PING") == "PONG"
        with pytest.raises(RedisRefused) as refused:
            async with started(url, prefix):
                pass
        assert refused.value.message.startswith(f"rediss://127.0.0.1:{port}/0 refuses the TLS connection (")
        assert refused.value.message.endswith("name it with ?ssl_certfile=FILE&ssl_keyfile=FILE")
        with pytest.raises(RedisRefused, match="it may not trust the certificate of ssl_certfile"):
            stranger = certificates / "stranger.pem"
            async with started(f"{url}&ssl_certfile={stranger}&ssl_keyfile={stranger.with_suffix('.key')}", prefix):
                pass
        with pytest.raises(RedisRefused, match=r"is not trusted .*: name its CA with \?ssl_ca_certs=FILE"):
            async with started(f"rediss://127.0.0.1:{port}", prefix):
                pass


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("ssl_keyfile={0}/client.key", "ssl_keyfile needs ssl_certfile"),
        ("ssl_certfile={0}/client.pem", "ssl_certfile, ssl_keyfile or ssl_password cannot be used: "),
        ("ssl_certfile={0}/client.pem&ssl_keyfile={0}/stranger.key", "ssl_keyfile or ssl_password cannot be used: "),
        ("ssl_certfile={0}/none.pem", "ssl_password cannot be used: No such file or directory"),
        ("ssl_certfile={0}/locked.pem&ssl_keyfile={0}/locked.key", "ssl_password cannot be used: "),
        ("ssl_ca_certs={0}/none.pem", "ssl_ca_certs, ssl_ca_path or ssl_ca_data cannot be used: No such file"),
        ("ssl_ca_certs={0}/client.key", "ssl_ca_certs, ssl_ca_path or ssl_ca_data cannot be used: "),
    ],
)
def test_files_that_cannot_be_used_are_told_by_their_parameters(certificates: Path, query: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Address.from_url("rediss://h?" + query.format(certificates))


def test_a_key_may_have_a_password(certificates: Path) -> None:
    path = certificates / "locked.pem"
    query = f"ssl_certfile={path}&ssl_keyfile={path.with_suffix('.key')}&ssl_password=hunter2"
    assert Address.from_url(f"rediss://h?{query}").certfile == str(path)
