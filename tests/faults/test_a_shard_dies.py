"""kill -9 of one of two shards under load."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from tests.faults.clients import ask, check_no_job_is_lost, dial
from tests.support.service import Service
from tests.support.waiting import eventually, stretched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]


async def test_no_job_is_lost_and_clients_that_reconnect_go_on(service: MakeService) -> None:
    running = service("--procs", "2").start()
    await check_no_job_is_lost(running, lambda: os.kill(running.shards()[0], signal.SIGKILL))


async def test_the_slot_is_back_within_two_seconds_and_the_other_shard_keeps_serving(service: MakeService) -> None:
    running = service("--procs", "2").start()
    victim, survivor = running.shards()
    sockets = [await dial(running.address("/queue/calm")) for _ in range(12)]

    os.kill(victim, signal.SIGKILL)
    killed_at = time.monotonic()

    await eventually(lambda: len(running.shards()) == 2 and victim not in running.shards(), "a new process")
    await eventually(lambda: running.errors.count("is ready") == 3, "the new shard is ready")
    assert time.monotonic() - killed_at < stretched(2)
    assert survivor in running.shards()
    alive = [socket for socket in sockets if socket.close_code is None]
    assert alive, "all of 12 connections were on one shard"
    for socket in alive:
        assert await ask(socket, "count") == 0
    for _ in range(12):  # so that both slots are met
        async with await dial(running.address("/queue/calm")) as fresh:
            assert await ask(fresh, "count") == 0


async def test_its_jobs_are_given_back_at_once_rather_than_when_their_locks_expire(service: MakeService) -> None:
    running = service("--procs", "1").start()
    async with await dial(running.address("/queue/held")) as socket:
        await ask(socket, "add", "job", {"n": 1})
    holder = await dial(running.address("/queue/held/process/1"))
    assert b'"process"' in await holder.recv(decode=False)

    os.kill(running.shards()[0], signal.SIGKILL)

    async with asyncio.timeout(5):  # the lock itself would live for 30 s
        async with await dial(running.address("/queue/held/process/1")) as other:
            assert b'"payload":{"n": 1}' in await other.recv(decode=False)
