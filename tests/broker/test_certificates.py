"""Redis over TLS that demands a certificate of its clients: a server, sentinels with their master, a cluster."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.errors import RedisRefused
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.values.slots import slot_of
from tests.support.certificates import OPENSSL, demanding, make_certificate
from tests.support.cluster import Cluster
from tests.support.link import started
from tests.support.relay import Relay, RelayThread
from tests.support.sentinel import NAME, Sentinels
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


@pytest.fixture(scope="module")
def relays(certificates: Path) -> Iterator[RelayThread]:
    """Those end TLS in front of servers; whoever begins without it, as servers among themselves, is let through."""
    with RelayThread(demanding(certificates / "server.pem", certificates / "client.pem")) as relays:
        yield relays


def query(certificates: Path, *, trusted: str = "server", own: str = "client", name: str = "server") -> str:
    """Return what a URL says of TLS."""
    certificate = certificates / f"{own}.pem"
    login = f"&ssl_certfile={certificate}&ssl_keyfile={certificate.with_suffix('.key')}" if own else ""
    return f"?ssl_server_name={name}&ssl_ca_certs={certificates / trusted}.pem{login}"


_REFUSALS = [
    ({"trusted": "stranger"}, r"is not trusted \(self-signed certificate\): name its CA with \?ssl_ca_certs=FILE"),
    ({"own": ""}, r"refuses the TLS .*name it with \?ssl_certfile=FILE&ssl_keyfile=FILE"),
    ({"own": "stranger"}, "refuses the TLS .*it may not trust the certificate of ssl_certfile"),
    ({"name": "other"}, r"is not valid for 'other'\): say its name with \?ssl_server_name=NAME"),
]


async def is_refused(url: str, problem: str) -> None:
    with pytest.raises(GatewayError, match=problem):
        async with started(url, "{x}", timeout=1.5):
            pass


@pytest.mark.parametrize("newest", _VERSIONS)
async def test_a_certificate_lets_the_gateway_in_and_any_other_is_refused_with_the_remedy(
    valkey: ValkeyProcess, prefix: str, certificates: Path, newest: ssl.TLSVersion
) -> None:
    tls = demanding(certificates / "server.pem", certificates / "client.pem", newest)
    async with Relay(valkey, tls) as relay:
        url = f"rediss://127.0.0.1:{relay.port}"
        async with started(url + query(certificates), prefix) as broker:
            assert await broker.link.nodes[0].call("PING") == "PONG"
        for how, problem in _REFUSALS:
            with pytest.raises(RedisRefused, match=problem):
                async with started(url + query(certificates, **how), prefix):
                    pass
        with pytest.raises(RedisRefused, match=r"is not trusted .*: name its CA with \?ssl_ca_certs=FILE"):
            async with started(url, prefix):
                pass


async def test_sentinels_and_their_master_are_asked_for_their_certificates_and_get_the_gateways(
    tmp_path: Path, prefix: str, certificates: Path, relays: RelayThread
) -> None:
    tls = demanding(certificates / "stranger.pem", certificates / "client.pem")
    with Sentinels(tmp_path, replicas=0, sentinels=1, relays=relays) as sentinels:
        [sentinel], [master] = sentinels.sentinels, sentinels.servers
        url = f"rediss+sentinel://127.0.0.1:{relays.before(sentinel).port}"
        async with started(f"{url}/{NAME}{query(certificates)}", prefix) as broker:
            assert broker.link.nodes[0].leads_to.port == master.shown_port
            assert broker.link.nodes[0].leads_to.shown.startswith("rediss://")
        await asyncio.gather(
            *(is_refused(f"{url}/{NAME}{query(certificates, **how)}", problem) for how, problem in _REFUSALS)
        )
        async with Relay(master, tls) as false:
            with Redis(port=sentinel.port) as redis:
                redis.sentinel_monitor("false", "127.0.0.1", false.port, 1)
            await is_refused(
                f"{url}/false{query(certificates)}", f"of rediss://127.0.0.1:{false.port}/0 is not trusted"
            )
            # Else it connects again while the relay ends: what asyncio accepts right before that is never closed.
            with Redis(port=sentinel.port) as redis:
                redis.sentinel_remove("false")


async def test_each_node_of_a_cluster_is_asked_for_its_certificate_wherever_a_slot_moves(
    tmp_path: Path, certificates: Path, relays: RelayThread
) -> None:
    with Cluster(tmp_path, masters=2, relays=relays) as cluster:
        url = f"rediss+cluster://127.0.0.1:{cluster.nodes[0].port}"  # it announces the other one
        for how, problem in _REFUSALS:
            await is_refused(url + query(certificates, **how), problem)
        async with started(url + query(certificates), "{x}") as broker:
            link = broker.queue("q").link
            await link.call("SET", "{x}:key", "moves")
            slot = slot_of("{x}:")
            [to] = [node for node in cluster.nodes if node is not cluster.owner(slot)]
            cluster.move(range(slot, slot + 1), to)
            assert await link.call("GET", "{x}:key") == "moves"
            assert [node.leads_to.shown for node in link.executors()] == [f"rediss://127.0.0.1:{to.port}/0"]


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
