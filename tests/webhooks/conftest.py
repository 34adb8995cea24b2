"""A gateway that may send to this machine, an endpoint, and a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop
from redis.asyncio import Redis

from bullmq_proxy.gateway import Proxy, start_proxy
from tests.support.background import nothing_fails_in_the_background
from tests.support.valkey import ValkeyProcess
from tests.webhooks.endpoint import Client, Endpoint, client_of, serving

KEY = "key-1"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Shards run on uvloop; whoever embeds the gateway may have asyncio's own loop, whose transports act otherwise."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return {**loops, "uvloop": uvloop.new_event_loop} if item.path.stem == "test_sender" else loops


@pytest.fixture(autouse=True)
def background() -> Iterator[list[str]]:
    """Fails the test for what failed unnoticed; a test that wants a failure clears the list."""
    with nothing_fails_in_the_background() as failures:
        yield failures


@pytest.fixture
async def gateway(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Proxy]:
    settings = {"prefix": prefix, "webhook_allow": "127.0.0.0/8", "drain_timeout": 0.0}
    async with start_proxy(valkey.url, KEY, port=0, **settings) as proxy:
        yield proxy


@pytest.fixture
async def client(gateway: Proxy) -> AsyncIterator[Client]:
    async with client_of(gateway.port, KEY) as client:
        yield client


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with serving() as endpoint:
        yield endpoint


@pytest.fixture
async def redis(valkey: ValkeyProcess) -> AsyncIterator[Redis]:
    """To look behind the gateway's back."""
    async with Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client
