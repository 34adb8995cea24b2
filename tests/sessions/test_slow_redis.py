"""A Redis that does not answer slows its clients down; it does not fill the memory of the shard."""

from __future__ import annotations

import asyncio
import json

from tests.net.support import frame
from tests.sessions.peer import Gateway
from tests.support.valkey import ValkeyProcess


async def test_answers_before_a_frozen_redis_hold_only_so_much(server: ValkeyProcess, frail: Gateway) -> None:
    """One worker that floods `progress` of 50 bytes: its socket is not read while Redis does not answer."""
    queue = await frail.queue()
    await queue.call("add", "a")
    worker = await frail.worker()
    job = await worker.job()
    server.freeze()
    thousand = frame(json.dumps({"id": job.number, "data": {"type": "progress", "progress": 50}})) * 1000
    for _ in range(100):
        worker.socket.transport.write(thousand)
        await asyncio.sleep(0)
    assert frail._proxy._app is not None
    budget = frail._proxy._app._budget
    assert 0 < budget.size <= 5 * 2**20
    server.thaw()
