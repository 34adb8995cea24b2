"""Fixtures of the fault tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.faults.clients import OPENED, RUNNING


@pytest_asyncio.fixture(autouse=True)
async def hang_up() -> AsyncIterator[None]:
    """End what the test has started: the clients first, or they would connect again."""
    yield
    for task in RUNNING:
        task.cancel()
    await asyncio.gather(*RUNNING, return_exceptions=True)
    RUNNING.clear()
    for connection in OPENED:
        connection.transport.abort()
        await connection.wait_closed()
    OPENED.clear()
