"""A gateway on the shared Valkey, and a relay before it that can cut the clients off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.sessions.peer import Gateway
from tests.support.background import nothing_fails_in_the_background
from tests.support.relay import Port, Relay
from tests.support.valkey import ValkeyProcess

KEY = "key-1"


@pytest.fixture(autouse=True)
def background() -> Iterator[list[str]]:
    """Fail the test for what failed unnoticed: no task and no exception of a client's may be lost."""
    with nothing_fails_in_the_background() as failures:
        yield failures


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Gateway]:
    async with Gateway(valkey.url, prefix=prefix) as gateway:
        yield gateway


@pytest.fixture
async def cable(proxy: Gateway) -> AsyncIterator[Relay]:
    """Stand between the clients and the gateway."""
    async with Relay(Port(proxy.port)) as relay:
        yield relay


@pytest.fixture
def url(cable: Relay) -> str:
    """The gateway's address, through the relay."""
    return f"ws://127.0.0.1:{cable.port}"
