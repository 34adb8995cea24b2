"""Waiting for what another process does: a condition in, its first true value out, or a failed test."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

TIMEOUT = 15.0
_TICK = 0.02


def wait_for(condition: Callable[[], T | None], what: str, timeout: float = TIMEOUT) -> T:
    """Ask until the condition is true and return its value; fail the test when the time is over.

    For conditions without an event to wait for, such as another process's death or a line in its log. The time is
    longer on a busy machine.
    """
    deadline = time.monotonic() + (timeout := stretched(timeout))
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(_TICK)
    return value


async def eventually(condition: Callable[[], T | None], what: str, timeout: float = TIMEOUT) -> T:
    """`wait_for` for tests in an event loop."""
    deadline = time.monotonic() + (timeout := stretched(timeout))
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(_TICK)
    return value


def stretched(seconds: float) -> float:
    """Return the bound for a duration: `seconds`, and longer where more processes want to run than there are cores."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
