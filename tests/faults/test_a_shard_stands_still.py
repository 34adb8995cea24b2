"""A shard that lives and does nothing: one of two is stopped, or its event loop hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable

import pytest
from websockets.asyncio.client import ClientConnection

from tests.faults.clients import ask, check_no_job_is_lost, dial
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]
TIMEOUT = 3.0
# Two looks, the start of the next shard, and a busy machine.
BACK = TIMEOUT + 2 + 2 + 2


async def test_no_job_is_lost_and_its_clients_go_on_elsewhere(service: MakeService) -> None:
    running = service("--procs", "2", "--shard-timeout", f"{TIMEOUT:g}s").start()
    await check_no_job_is_lost(running, lambda: os.kill(running.shards()[0], signal.SIGSTOP))
    assert "killed by SIGABRT" in running.errors


async def test_the_slot_is_back_soon_and_the_clients_of_the_other_shard_notice_nothing(service: MakeService) -> None:
    running = service("--procs", "2", "--shard-timeout", f"{TIMEOUT:g}s").start()
    victim, survivor = running.shards()
    sockets = [await dial(running.address("/queue/calm")) for _ in range(12)]

    os.kill(victim, signal.SIGSTOP)
    stopped_at = time.monotonic()

    answers = await asyncio.gather(*(_count(socket) for socket in sockets))
    assert any(answers), "all of 12 connections were on one shard"
    await eventually(lambda: running.errors.count("is ready") == 3, "the new shard is ready", BACK)
    assert time.monotonic() - stopped_at > TIMEOUT - 1  # its last sign of life is up to 1 s older
    assert survivor in running.shards()
    assert victim not in running.shards()
    for socket, answered in zip(sockets, answers, strict=True):
        if answered:
            assert await ask(socket, "count") == 0
        else:
            await socket.wait_closed()
    for _ in range(12):  # so that both slots are met
        async with await dial(running.address("/queue/calm")) as fresh:
            assert await ask(fresh, "count") == 0


async def _count(socket: ClientConnection) -> bool:
    """Does it answer?"""
    try:
        async with asyncio.timeout(1):
            return bool(await ask(socket, "count") == 0)
    except TimeoutError:
        return False


async def test_its_jobs_are_given_back_at_once_though_their_locks_have_run_out(service: MakeService) -> None:
    running = service("--procs", "1", "--shard-timeout", f"{TIMEOUT:g}s").start()
    async with await dial(running.address("/queue/held")) as socket:
        await ask(socket, "add", "job", {"n": 1})
    holder = await dial(running.address("/queue/held/process/1", lockDuration="1000"))
    assert b'"process"' in await holder.recv(decode=False)

    os.kill(running.shards()[0], signal.SIGSTOP)

    async with asyncio.timeout(BACK + 5):  # the check for stalled jobs would take a minute
        async with await dial(running.address("/queue/held/process/1")) as other:
            assert b'"payload":{"n": 1}' in await other.recv(decode=False)
