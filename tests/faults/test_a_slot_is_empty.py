"""A slot whose shard does not come back: the others serve its socket meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from tests.faults.clients import ask, dial
from tests.support.service import Service
from tests.support.waiting import eventually, stretched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]


async def test_its_new_connections_are_served_by_the_others_until_it_is_filled(service: MakeService) -> None:
    running = service("--procs", "2").start()
    victim, survivor = running.shards()
    os.kill(victim, signal.SIGKILL)
    [heir] = await eventually(lambda: set(running.shards()) - {victim, survivor}, "a new process")
    os.kill(heir, signal.SIGSTOP)  # while it starts
    try:
        began = time.monotonic()
        sockets = await asyncio.gather(*(dial(running.address("/queue/q")) for _ in range(30)))
        assert time.monotonic() - began < stretched(3)
        assert await asyncio.gather(*(ask(socket, "count") for socket in sockets)) == [0] * 30
        assert "nobody serves slot" in running.errors
    finally:
        os.kill(heir, signal.SIGCONT)
    await eventually(lambda: running.errors.count("is ready") == 3, "the new shard is ready")
    await asyncio.gather(*(dial(running.address("/queue/q")) for _ in range(30)))
    assert await asyncio.gather(*(ask(socket, "count") for socket in sockets)) == [0] * 30, "the open ones stay"


async def test_one_whose_shard_somebody_tells_to_leave_is_served_by_the_others_while_it_drains(
    service: MakeService,
) -> None:
    running = service("--procs", "2").start()
    workers = [await dial(running.address("/queue/q/process/1")) for _ in range(24)]  # some of them on each shard
    caller = await dial(running.address("/queue/q"))
    await ask(caller, "addBulk", [{"name": "job", "data": {}}] * 24)
    jobs = [json.loads(await worker.recv()) for worker in workers]
    leaving, staying = running.shards()
    said = running.errors.count("nobody serves slot")  # at a start of which one part took longer
    os.kill(leaving, signal.SIGTERM)
    await eventually(lambda: running.errors.count("nobody serves slot") > said, "its socket is shared")
    sockets = await asyncio.gather(*(dial(running.address("/queue/q")) for _ in range(30)))
    assert await asyncio.gather(*(ask(socket, "getActiveCount") for socket in sockets)) == [24] * 30
    assert {leaving, staying} == set(running.shards()), "it waits for its workers"
    for worker, job in zip(workers, jobs, strict=True):
        await worker.send(json.dumps({"id": job["id"], "data": {"result": 1}}))
    await eventually(lambda: running.errors.count("is ready") == 3, "the new shard is ready")
    assert await ask(sockets[0], "getCompletedCount") == 24
