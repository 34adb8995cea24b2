"""Gateways in this process, on the event loop that shards run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from bullmq_proxy.gateway import Proxy, start_proxy
from tests.net.support import KEY, RawClient
from tests.support.valkey import ValkeyProcess

MakeGateway = Callable[..., Awaitable[Proxy]]
Open = Callable[..., Awaitable[RawClient]]

_OF_TRANSPORTS = {
    "test_budgets",
    "test_first_push",
    "test_flow",
    "test_frames",
    "test_http",
    "test_lifetime",
    "test_tls",
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Shards run on uvloop; whoever embeds the gateway may have asyncio's own loop, whose transports act otherwise."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    return {**loops, "asyncio": asyncio.new_event_loop} if item.path.stem in _OF_TRANSPORTS else loops


@pytest_asyncio.fixture
async def make_gateway(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[MakeGateway]:
    """Start gateways with the settings that a test needs; they end with the test."""
    async with AsyncExitStack() as started:

        async def make(url: str = valkey.url, keys: Sequence[str] = (KEY,), **settings: Any) -> Proxy:
            whole = {"prefix": prefix, "drain_timeout": 0.0, "port": 0, **settings}
            return await started.enter_async_context(start_proxy(url, keys, **whole))

        yield make


@pytest_asyncio.fixture
async def gateway(make_gateway: MakeGateway) -> Proxy:
    """A gateway with default settings and the key `key-1`."""
    return await make_gateway()


@pytest_asyncio.fixture
async def open_socket(gateway: Proxy) -> AsyncIterator[Open]:
    """Open connections to `gateway` that are closed with the test."""
    async with AsyncExitStack() as opened:

        async def open(target: str = "/queue/q", *headers: str) -> RawClient:
            return await opened.enter_async_context(await RawClient.open(gateway.port, target, *headers))

        yield open
