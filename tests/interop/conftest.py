"""What the interop tests share: Node with its packages, one peer process, one gateway of two shards."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.interop.client import Gateway
from tests.interop.peer import HERE, Peer
from tests.support.node import INSTALL_TIMEOUT, LEAST_NODE, find_node, installed
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess

KEY = "interop-key"
PREFIX = "bull"  # Node's default, and ours


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without Node leave out all tests of this directory; one of them stays to say so, in one line."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    for item in ours:
        item.add_marker(pytest.mark.timeout(INSTALL_TIMEOUT))
    if not ours or find_node() is not None:
        return
    reason = f"no Node {LEAST_NODE} or newer with npm: all {len(ours)} tests with Node's BullMQ are left out"
    ours[0].add_marker(pytest.mark.skip(reason))
    items[:] = [item for item in items if item not in ours[1:]]
    config.hook.pytest_deselected(items=ours[1:])


@pytest.fixture(scope="session")
def node() -> str:
    """The program."""
    program = find_node()
    assert program is not None, "the tests are left out without it"
    return program


@pytest.fixture(scope="session")
def modules(node: str) -> Path:
    """The installed `node_modules`.

    `overrides` in package.json holds an optional native package at a version that has builds for all platforms: so the
    lock file is complete on each of them.
    """
    return installed(HERE)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """One server for Node and the gateway, which outlive each test: others take scripts away and count commands."""
    with ValkeyProcess(tmp_path_factory.mktemp("interop-valkey"), extra_args=["--appendonly", "no"]) as server:
        yield server


@pytest.fixture(scope="session")
def peer(node: str, modules: Path, valkey: ValkeyProcess) -> Iterator[Peer]:
    """Node's BullMQ."""
    peer = Peer(node, modules, {"path": urlsplit(valkey.url).path, "maxRetriesPerRequest": None}, PREFIX)
    yield peer
    peer.close()


@pytest.fixture(scope="session")
def gateway(valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The real service: the command in a process of its own, two forked shards."""
    arguments = ("--procs", "2", "--redis-url", valkey.url, "--prefix", PREFIX)
    with Service(tmp_path_factory.mktemp("interop"), *arguments, env={"AUTH_KEYS": KEY}) as service:
        yield Gateway(service, KEY)


@pytest.fixture
def queue(peer: Peer) -> Iterator[str]:
    """The name of a new queue."""
    name = f"mails-{uuid.uuid4().hex[:12]}"
    yield name
    peer.ask("forget", queue=name)


@pytest.fixture(scope="session")
def store(valkey: ValkeyProcess) -> Iterator[redis.Redis]:
    """A look into Redis itself."""
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client
