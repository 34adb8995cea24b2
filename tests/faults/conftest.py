"""Fixtures of the fault tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest_asyncio

from tests.faults.clients import OPENED, RUNNING
from tests.support.service import Service


@pytest_asyncio.fixture(autouse=True)
async def hang_up(service: Callable[..., Service]) -> AsyncIterator[None]:
    """End the clients that the test has started, before its services, which would wait for their answers."""
    yield
    for task in RUNNING:
        task.cancel()
    await asyncio.gather(*RUNNING, return_exceptions=True)
    RUNNING.clear()
    for connection in OPENED:
        connection.transport.abort()
        await connection.wait_closed()
    OPENED.clear()
