"""One shard runs a registration: whatever dies or drains, another one goes on, and no job is lost."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiohttp import web
from redis.asyncio import Redis

from bullmq_proxy.gateway import Proxy, start_proxy
from bullmq_proxy.gateway.webhooks.clock import clock
from bullmq_proxy.gateway.webhooks.runner import Runner
from tests.sessions.peer import until
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually, stretched
from tests.webhooks.conftest import KEY
from tests.webhooks.endpoint import Client, Delivery, Endpoint, client_of

TAKEOVER = 10.0
"""Seconds that may pass until another shard goes on."""

MakeService = Callable[..., Service]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


@asynccontextmanager
async def two_shards(service: MakeService, valkey: ValkeyProcess, prefix: str) -> AsyncIterator[tuple[Service, Client]]:
    """A service of two shards, and a client that asks whichever of them it meets."""
    where = ("--redis-url", valkey.url, "--prefix", prefix)
    running = service("--procs", "2", "--auth-key", KEY, "--webhook-allow", "127.0.0.1", *where).start()
    async with client_of(running.port, KEY) as client:
        yield running, client


async def owner_of(name: str, redis: Redis, prefix: str) -> str:
    """The address of the shard that runs a registration."""

    owner = await until(partial(redis.get, f"{prefix}:{{gateways}}:worker:{name}:{name}"), f"somebody runs {name}")
    return str(owner)


def kill(running: Service, owner: str) -> None:
    """Kill a shard by its address."""
    slot = owner.split(":")[1]
    [pid] = re.findall(rf"shard {slot} is ready, pid (\d+)", running.errors)
    os.kill(int(pid), signal.SIGKILL)


@on_linux
async def test_nothing_is_lost_and_nothing_accepted_is_sent_again_when_the_owner_is_killed(
    service: MakeService, valkey: ValkeyProcess, prefix: str, endpoint: Endpoint, redis: Redis
) -> None:
    gate = asyncio.Event()

    async def respond(delivery: Delivery) -> web.StreamResponse:
        data = delivery.job["data"]
        if data == "accepted":
            return web.Response(status=202)
        if data >= 10:
            await gate.wait()
        return web.json_response(data)

    endpoint.respond = respond
    async with two_shards(service, valkey, prefix) as (running, client):
        await client.put("mails", endpoint.url, concurrency=5)
        await client.put("later", endpoint.url)
        accepted = await client.add("later", "accepted")
        token = (await endpoint.came()).token
        await until(partial(redis.exists, f"{prefix}:later:{accepted}:accepted"), "the answer is read")
        await asyncio.gather(*(client.add("mails", n) for n in range(40)))
        await eventually(lambda: endpoint.now == 5 or None, "all places are taken")
        owner = await owner_of("mails", redis, prefix)
        assert owner == await owner_of("later", redis, prefix)
        kill(running, owner)
        killed_at, before = time.monotonic(), len(endpoint.deliveries)
        gate.set()
    # The connections of the client may have ended with the shard.
    async with client_of(running.port, KEY) as client:
        await endpoint.came(before + 1, TAKEOVER)
        assert time.monotonic() - killed_at < stretched(TAKEOVER)

        async def all_are_done() -> bool:
            counts: dict[str, int] = await client.call("mails", "getJobCounts")
            return counts["completed"] == 40

        await until(all_are_done, "all jobs are completed")
        jobs = await client.call("mails", "getJobs", ["completed"], 0, -1)
        assert sorted(job["returnvalue"] for job in jobs) == list(range(40))
        assert {job["attemptsMade"] for job in jobs} == {1}
        assert await owner_of("mails", redis, prefix) != owner

        await client.call("later", "moveJobToCompleted", accepted, 7, token)
        job = await client.state("later", accepted, "completed")
        assert (job["returnvalue"], job["stalledCounter"]) == (7, 0)
        assert [each.job["data"] for each in endpoint.deliveries].count("accepted") == 1


@on_linux
async def test_an_owner_that_stood_still_neither_sends_nor_settles_what_another_one_has_taken_over(
    service: MakeService, valkey: ValkeyProcess, prefix: str, endpoint: Endpoint, redis: Redis
) -> None:
    gates = {"old answer": asyncio.Event(), "answers": asyncio.Event()}

    async def respond(delivery: Delivery) -> web.StreamResponse:
        is_first = len(endpoint.deliveries) == 1
        await gates["old answer" if is_first else "answers"].wait()
        return web.json_response("old" if is_first else "new")

    endpoint.respond = respond
    where = ("--redis-url", valkey.url, "--prefix", prefix, "--webhook-allow", "127.0.0.1", "--auth-key", KEY)
    both = [service("--procs", "1", "--gateway-timeout", "2s", "--shard-timeout", "0", *where) for _ in range(2)]
    stopped = both[0].start()
    async with client_of(stopped.port, KEY) as client:
        await client.put("busy", endpoint.url)
        await client.put("idle", endpoint.url)
        owner = await owner_of("busy", redis, prefix)
        assert owner == await owner_of("idle", redis, prefix)
        ids = [("busy", await client.add("busy"))]
        await endpoint.came()
    async with client_of(both[1].start().port, KEY) as client:
        [victim] = stopped.shards()
        os.kill(victim, signal.SIGSTOP)
        stopped_at = time.monotonic()
        gates["old answer"].set()  # it finds this when it goes on
        for queue in ("busy", "idle", "idle"):  # and that there was a job in the queue that it waited for
            ids.append((queue, await client.add(queue)))
        await endpoint.came(3, TAKEOVER)
        assert time.monotonic() - stopped_at < stretched(5.0)

        os.kill(victim, signal.SIGCONT)
        await eventually(lambda: stopped.errors.count("another shard runs it now") == 2, "it knows")
        assert len(endpoint.deliveries) == 3  # one of each queue is under way
        gates["answers"].set()
        for queue, id in ids:
            assert (await client.state(queue, id, "completed"))["returnvalue"] == "new"
        assert [each.token.startswith(f"{owner}:") for each in endpoint.deliveries] == [True] + [False] * 4


async def test_a_job_is_sent_by_nobody_who_does_not_know_that_the_registration_is_his(
    gateway: Proxy, client: Client, endpoint: Endpoint
) -> None:
    await client.put("mails", endpoint.url)
    app = gateway._app
    assert app is not None
    [(_, worker)] = await eventually(lambda: list(app.broker.roster.of("mails")), "it runs")
    assert isinstance(worker, Runner)
    worker.owned_until = clock() - 0.001  # as when the process stood still after the job was fetched
    id = await client.add("mails")
    await eventually(lambda: worker._in_doubt or None, "it is asked for")
    job = await client.state("mails", id, "waiting")
    assert (job["attemptsStarted"], endpoint.deliveries) == (1, [])
    assert (await client.state("mails", id, "completed"))["attemptsMade"] == 1  # with the next look


@asynccontextmanager
async def two_gateways(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[list[Proxy]]:
    """Two gateways on one Redis; a test may stop one."""
    settings = {"prefix": prefix, "webhook_allow": "127.0.0.1", "drain_timeout": 5.0}
    proxies = [await start_proxy(valkey.url, KEY, port=0, **settings).start() for _ in range(2)]
    try:
        yield proxies
    finally:
        for proxy in proxies:
            await proxy.stop()


async def test_a_registration_moves_when_its_owner_drains_once_its_requests_have_ended(
    valkey: ValkeyProcess, prefix: str, endpoint: Endpoint, redis: Redis
) -> None:
    gate = asyncio.Event()

    async def respond(delivery: Delivery) -> web.StreamResponse:
        if delivery.job["data"] == "slow":
            await gate.wait()
        return web.Response(status=204)

    endpoint.respond = respond
    async with two_gateways(valkey, prefix) as [first, second], client_of(second.port, KEY) as client:
        async with client_of(first.port, KEY) as asking:
            await asking.put("mails", endpoint.url)
        owner = await owner_of("mails", redis, prefix)
        slow = await client.add("mails", "slow")
        await endpoint.came()
        next_one = await client.add("mails", "next")
        stopping = asyncio.create_task(first.stop())
        await asyncio.wait((stopping,), timeout=0.2)
        assert not stopping.done()
        assert await redis.get(f"{prefix}:{{gateways}}:worker:mails:mails") == owner  # the concurrency is that of all
        gate.set()
        began = time.monotonic()
        await stopping
        job = await client.state("mails", slow, "completed")
        await client.state("mails", next_one, "completed")
        assert time.monotonic() - began < stretched(3.0)
        assert (job["attemptsMade"], job["stalledCounter"], endpoint.most) == (1, 0, 1)


async def test_an_accepted_job_does_not_hold_a_drain_up_and_stays_the_endpoints(
    valkey: ValkeyProcess, prefix: str, endpoint: Endpoint, redis: Redis
) -> None:
    endpoint.answer(202)
    async with two_gateways(valkey, prefix) as [first, second], client_of(second.port, KEY) as client:
        async with client_of(first.port, KEY) as asking:
            await asking.put("mails", endpoint.url)
        id = await client.add("mails")
        token = (await endpoint.came()).token

        await until(partial(redis.exists, f"{prefix}:mails:{id}:accepted"), "the answer is read")
        async with asyncio.timeout(2):
            await first.stop()
        await client.call("mails", "moveJobToCompleted", id, 7, token)
        job = await client.state("mails", id, "completed")
        assert (job["returnvalue"], len(endpoint.deliveries)) == (7, 1)


async def test_registrations_are_known_to_all_and_each_is_run_by_one(
    valkey: ValkeyProcess, prefix: str, endpoint: Endpoint, redis: Redis
) -> None:
    names = [f"queue-{number}" for number in range(4)]

    async def respond(delivery: Delivery) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return web.Response(status=204)

    endpoint.respond = respond
    async with (
        two_gateways(valkey, prefix) as [first, second],
        client_of(first.port, KEY) as client,
        client_of(second.port, KEY) as other,
    ):
        for name in names:
            await client.put(name, endpoint.url, concurrency=1)
        assert (await other.ask("GET", "/workers")).json == dict.fromkeys(names, endpoint.url)
        ids = [(name, await client.add(name)) for name in names for _ in range(10)]
        for name, id in ids:
            await other.state(name, id, "completed")
        assert endpoint.most <= len(names)
        assert len(endpoint.deliveries) == len(ids)
