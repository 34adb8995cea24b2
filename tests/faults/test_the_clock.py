"""The clock of a gateway's machine is set by an hour, forth and back, while the gateway works."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.faults.clients import ask, dial
from tests.sessions.peer import until
from tests.support.clock import Clock
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess

_HOUR = 3600


async def test_leases_stay_and_jobs_are_handed_out_retried_and_delayed_as_before(
    service: Callable[..., Service], valkey: ValkeyProcess, tmp_path: Path, prefix: str
) -> None:
    if (clock := Clock.found(tmp_path / "clock")) is None:
        pytest.skip("the clock cannot be set: libfaketime is not installed")
    flags = ("--no-auth", "--procs", "1", "--redis-url", valkey.url, "--prefix", prefix)
    running = service(*flags, env=clock.environment).start()
    async with asyncio.timeout(20), Redis.from_url(valkey.url) as redis:
        queue = await dial(running.address("/queue/q"))
        held = await ask(queue, "add", "held")
        holder = await dial(running.address("/queue/q/process/1", confirm="1", lockDuration="1000"))
        lease = json.loads(await holder.recv())
        worker = await dial(running.address("/queue/q/process/1", confirm="1"))
        for seconds in (_HOUR, -_HOUR, 0):
            clock.set(seconds)
            stamp = (await ask(queue, "add", "stamped", {}, {"delay": 10**9}))["timestamp"]
            assert abs(stamp / 1000 - time.time() - seconds) < _HOUR / 2
            retried = {"attempts": 2, "delay": 50, "backoff": {"type": "fixed", "delay": 50}}
            added = await ask(queue, "add", "retried", {}, retried)
            for answer in ({"err": "once more"}, {"result": 1}):
                message = json.loads(await worker.recv())
                assert message["data"]["job"]["id"] == added["id"]
                await worker.send(json.dumps({"id": message["id"], "data": answer}))
                assert json.loads(await worker.recv())["data"]["type"] == "finished"
            await _is_renewed(f"{prefix}:q:{held['id']}:lock", redis)
        await holder.send(json.dumps({"id": lease["id"], "data": {"result": 1}}))
        assert json.loads(await holder.recv())["data"]["state"] == "completed"
        assert (await ask(queue, "getJob", held["id"]))["stalledCounter"] == 0


async def _is_renewed(lock: str, redis: Redis) -> None:
    """Wait until a lock lasts for longer than at the last look."""
    left = await redis.pttl(lock)

    async def look() -> bool:
        nonlocal left
        before, left = left, await redis.pttl(lock)
        assert left > 0
        return bool(left > before)

    await until(look, "the lock is renewed")
