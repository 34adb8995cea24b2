"""Nothing may fail in the background of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.broker import Broker
from tests.support.background import nothing_fails_in_the_background
from tests.support.link import started
from tests.support.valkey import ValkeyProcess


@pytest.fixture(autouse=True)
def background() -> Iterator[list[str]]:
    """Fails the test for what failed unnoticed; a test that wants a failure clears the list."""
    with nothing_fails_in_the_background() as failures:
        yield failures


@pytest.fixture
async def broker(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Broker]:
    """A connected broker of the test's own prefix."""
    async with started(valkey.url, prefix, deadline=2.0) as broker:
        yield broker


@pytest.fixture
async def redis(valkey: ValkeyProcess) -> AsyncIterator[Redis]:
    """To look behind the broker's back."""
    async with Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client
