"""Fixtures of the fault tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.clients import OPENED, RUNNING
from tests.support.valkey import ValkeyProcess


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """Start a Redis that syncs its append-only file at every write, and that the test may kill."""
    with ValkeyProcess(tmp_path / "valkey", extra_args=("--appendfsync", "always")) as server:
        yield server


@pytest_asyncio.fixture(autouse=True)
async def hang_up(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """End the clients that the test has started, before its services, which would wait for their answers.

    A Redis of the test is there before its services: then it outlives them, and they do not wait for it.
    """
    if "redis_server" in request.fixturenames:
        request.getfixturevalue("redis_server")
    request.getfixturevalue("service")
    yield
    for task in RUNNING:
        task.cancel()
    await asyncio.gather(*RUNNING, return_exceptions=True)
    RUNNING.clear()
    for connection in OPENED:
        connection.transport.abort()
        await connection.wait_closed()
    OPENED.clear()
