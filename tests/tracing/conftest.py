"""Gateways that send their spans to a collector in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.sessions.peer import Gateway
from tests.support.background import nothing_fails_in_the_background
from tests.support.collector import Collector
from tests.support.valkey import ValkeyProcess


@pytest.fixture(autouse=True)
def background() -> Iterator[list[str]]:
    """Fails the test for what failed unnoticed."""
    with nothing_fails_in_the_background() as failures:
        yield failures


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        yield collector


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str, collector: Collector) -> AsyncIterator[Gateway]:
    async with Gateway(valkey.url, prefix=prefix, tracing=True, webhook_allow="127.0.0.0/8") as gateway:
        yield gateway
