"""All processes of a gateway are killed or suspended at once, as with their machine; another one shares its Redis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.faults.clients import ask, dial
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually, stretched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]
TIMEOUT = 2.0


def gateway(service: MakeService, redis_server: ValkeyProcess) -> Service:
    flags = ("--no-auth", "--procs", "1", "--redis-url", redis_server.url, "--gateway-timeout", f"{TIMEOUT:g}s")
    return service(*flags).start()


async def held(running: Service) -> tuple[ClientConnection, dict[str, Any]]:
    """Return a worker of a gateway, and the push of the one job that it holds."""
    async with await dial(running.address("/queue/held")) as socket:
        await ask(socket, "add", "job", {"n": 1})
    holder = await dial(running.address("/queue/held/process/1"))
    return holder, json.loads(await holder.recv())


async def test_its_jobs_are_given_back_by_the_other_one(service: MakeService, redis_server: ValkeyProcess) -> None:
    dying, other = gateway(service, redis_server), gateway(service, redis_server)
    _, job = await held(dying)
    heir = await dial(other.address("/queue/held/process/1"))

    for pid in (dying.pid, *dying.shards()):
        os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()

    assert json.loads(await heir.recv())["data"]["job"]["id"] == job["data"]["job"]["id"]
    assert time.monotonic() - killed_at < stretched(TIMEOUT + 3)


async def test_one_that_was_only_suspended_tells_its_clients_and_stores_none_of_their_answers(
    service: MakeService, redis_server: ValkeyProcess
) -> None:
    sleeping, other = gateway(service, redis_server), gateway(service, redis_server)
    holder, job = await held(sleeping)
    heir = await dial(other.address("/queue/held/process/1", confirm="1"))
    pids = (sleeping.pid, *sleeping.shards())
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    taken = json.loads(await heir.recv())
    await holder.send(json.dumps({"id": job["id"], "data": {"result": "too late"}}))

    for pid in pids:
        os.kill(pid, signal.SIGCONT)

    told = json.loads(await holder.recv())
    assert (told["id"], told["data"]["type"] in ("lost", "cancel")) == (job["id"], True)
    await heir.send(json.dumps({"id": taken["id"], "data": {"result": "in time"}}))
    assert json.loads(await heir.recv())["data"]["type"] == "finished"
    async with await dial(other.address("/queue/held")) as socket:
        assert (await ask(socket, "getJob", job["data"]["job"]["id"]))["returnvalue"] == "in time"


async def test_a_job_whose_worker_and_shard_went_while_redis_was_away_is_found_when_it_is_back(
    service: MakeService, redis_server: ValkeyProcess
) -> None:
    running = gateway(service, redis_server)
    holder, job = await held(running)
    redis_server.kill()
    await eventually(lambda: "the connection was lost" in running.errors, "the gateway notices")
    holder.transport.abort()
    [shard] = running.shards()
    os.kill(shard, signal.SIGKILL)
    await eventually(lambda: running.errors.count("is ready") == 2, "the next shard is ready")
    redis_server.start()
    async with asyncio.timeout(10):
        heir = await dial(running.address("/queue/held/process/1"))
        assert json.loads(await heir.recv())["data"]["job"]["id"] == job["data"]["job"]["id"]
