"""A shard's memory: what a spike took is given back to the system once the shard is quiet."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress

import pytest

from bullmq_proxy.gateway import memory
from bullmq_proxy.gateway.memory import Spikes
from tests.support.waiting import eventually

MIB = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="another malloc")


@pytest.fixture(autouse=True)
def nothing_spare() -> None:
    """Give back what tests before have left to malloc: a spike would use it again and not grow."""
    gc.collect()
    memory._glibc().malloc_trim(0)


@pytest.fixture
def least() -> list[bytes]:
    """What is still in use after the spike: here and there some of it, so that malloc keeps all that lies between."""
    return []


async def spike(least: list[bytes]) -> None:
    blocks = [bytes(50_000) for _ in range(4000)]
    least += blocks[::100]


async def watched(spikes: Spikes) -> asyncio.Task[None]:
    task = asyncio.create_task(spikes.watch())
    await asyncio.sleep(0)
    return task


async def test_what_a_spike_took_is_given_back(least: list[bytes]) -> None:
    task = await watched(Spikes(period=0.01))
    before = memory._resident()
    await spike(least)
    held = memory._resident() - before
    assert held > 100 * MIB, "malloc keeps it"
    await eventually(lambda: memory._resident() - before < 40 * MIB, "it is given back")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_what_is_in_use_is_tried_to_be_given_back_once(least: list[bytes]) -> None:
    tries: list[int] = []

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            tries.append(info["generation"])

    task = await watched(Spikes(period=0.01))
    least += [bytes(50_000) for _ in range(1000)]
    gc.callbacks.append(collected)
    try:
        await eventually(lambda: tries, "it is tried")
        looks_later = asyncio.get_running_loop().time() + 0.3
        await eventually(lambda: asyncio.get_running_loop().time() > looks_later, "thirty looks")
    finally:
        gc.callbacks.remove(collected)
    assert tries.count(1) == 1
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_nothing_is_given_back_while_there_is_work(least: list[bytes]) -> None:
    spikes = Spikes(period=0.01)
    spikes._least = spikes._before = memory._resident()
    await spike(least)
    for _ in range(20):
        end = asyncio.get_running_loop().time() + 0.01
        while asyncio.get_running_loop().time() < end:
            pass
        assert not spikes._is_due()
