"""A gateway for each test, on the shared Valkey, with keys of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.sessions.peer import Gateway
from tests.support.background import nothing_fails_in_the_background
from tests.support.valkey import ValkeyProcess


@pytest.fixture(autouse=True)
def background() -> Iterator[list[str]]:
    """Fails the test for what failed unnoticed; a test that wants a failure clears the list."""
    with nothing_fails_in_the_background() as failures:
        yield failures


@pytest.fixture
def valkey_url(valkey: ValkeyProcess) -> str:
    return valkey.url


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Gateway]:
    async with Gateway(valkey.url, prefix=prefix) as gateway:
        yield gateway


@pytest.fixture
async def redis(valkey: ValkeyProcess) -> AsyncIterator[Redis]:
    """To look behind the gateway's back."""
    async with Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A server of this test's own, to be killed and frozen; what it has replied to survives."""
    with ValkeyProcess(tmp_path, extra_args=["--appendfsync", "always"]) as process:
        yield process


@pytest.fixture
async def frail(server: ValkeyProcess) -> AsyncIterator[Gateway]:
    async with Gateway(server.url, redis_timeout=0.5, redis_backlog_timeout=20.0) as gateway:
        yield gateway
