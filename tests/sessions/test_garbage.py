"""Connections, jobs and calls that have ended are freed at once: no cycle is left for the collector."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.app import App
from bullmq_proxy.gateway.broker.consuming.feed import Feed
from bullmq_proxy.gateway.broker.consuming.manual import ManualConsumers
from tests.sessions.peer import Gateway, Peer, Refused
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually

Act = Callable[[Gateway, Redis], Awaitable[None]]

PACKAGE = "bullmq_proxy."
BLOCKED = {"block": 60_000}


@pytest.fixture(params=[32, 0], ids=["seats", "asleep"])
async def proxy(valkey: ValkeyProcess, prefix: str, request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    """A gateway whose queues have links of their own, and one whose queues share one."""
    async with Gateway(valkey.url, prefix=prefix, queue_links=request.param) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def calls(proxy: Gateway, redis: Redis) -> None:
    queue = await proxy.queue()
    await queue.call("add", "work", {"a": 1}, {"attempts": 3})
    await queue.call("getJobs")
    await queue.refusal("add", "work", {}, {"delay": "soon"})
    await queue.refusal("unknown")
    await queue.socket.send("{")
    await queue.message()
    await queue.close()


async def a_large_bulk(proxy: Gateway, redis: Redis) -> None:
    queue = await proxy.queue()
    await queue.call("addBulk", [{"name": "work"}] * 3000)
    await queue.request("getJobs")
    queue.vanish()


async def a_flow(proxy: Gateway, redis: Redis) -> None:
    flows = await proxy.connect("/flows")
    children = [{"name": "child", "queueName": "q"}] * 3
    await flows.call("add", {"name": "parent", "queueName": "q", "children": children})
    await flows.close()


async def jobs(proxy: Gateway, redis: Redis) -> None:
    queue, worker = await proxy.queue(), await proxy.worker(concurrency=3)
    await queue.call("addBulk", [{"name": "work", "opts": {"attempts": 2}}] * 3)
    held = [await worker.job() for _ in range(3)]
    await held[0].answer(result=1)
    await held[1].answer(err={"message": "no"})
    again = await worker.job()
    await again.answer(result=2)
    await held[2].answer(type="delay", delay=60_000)
    for id in (held[0].id, again.id):
        await queue.until_state(id, "completed")
    await queue.until_state(held[2].id, "delayed")
    await worker.close()
    await queue.close()


async def a_worker_that_vanishes_with_a_job(proxy: Gateway, redis: Redis) -> None:
    queue, worker = await proxy.queue(), await proxy.worker()
    added = await queue.call("add", "work")
    await worker.job()
    worker.vanish()
    await queue.until_state(added["id"], "waiting")
    await queue.close()


async def a_worker_that_waits(proxy: Gateway, redis: Redis) -> None:
    worker = await proxy.worker()
    await worker.nothing_more()
    await worker.close()


async def events(proxy: Gateway, redis: Redis) -> None:
    queue, watcher = await proxy.queue(), await proxy.events()
    await queue.call("add", "work")
    await watcher.message()
    resumed = await proxy.events(lastEventId="0-0")
    await resumed.message()
    for peer in (watcher, resumed, queue):
        await peer.close()


async def jobs_by_hand(proxy: Gateway, redis: Redis) -> None:
    queue = await proxy.queue()
    await queue.call("addBulk", [{"name": "work"}] * 2)
    first = await queue.call("getNextJob", "token")
    await queue.call("moveJobToCompleted", first["id"], 1, "token", False)
    await queue.call("getNextJob", "token")
    await queue.refusal("moveJobToCompleted", first["id"], 1, "token", False)
    await queue.close()


async def a_caller_that_waits_for_a_job(proxy: Gateway, redis: Redis) -> None:
    queue = await proxy.queue()
    await queue.request("getNextJob", "token", BLOCKED)
    await queue.nothing_more()
    queue.vanish()


async def a_caller_that_waits_for_an_end(proxy: Gateway, redis: Redis) -> None:
    queue = await proxy.queue()
    added = await queue.call("add", "work")
    await queue.request("waitUntilJobFinished", added["id"])
    await queue.nothing_more()
    queue.vanish()


async def a_caller_that_waits_for_a_failure(proxy: Gateway, redis: Redis) -> None:
    queue, worker = await proxy.queue(), await proxy.worker()
    added = await queue.call("add", "work")
    id = await queue.request("waitUntilJobFinished", added["id"])
    await (await worker.job()).answer(err={"message": "no"})
    with pytest.raises(Refused):
        await queue.reply(id)
    await worker.close()
    await queue.close()


async def calls_that_redis_refuses(proxy: Gateway, redis: Redis) -> None:
    for key in ("completed", "wait", "meta", "id"):
        await redis.set(f"{proxy.prefix}:odd:{key}", "x")
    queue = await proxy.queue("odd")
    for fn in ("getJobs", "getMeta"):
        await queue.refusal(fn)
    await queue.refusal("add", "work")
    await queue.refusal("getNextJob", "token")
    await queue.refusal("waitUntilJobFinished", "1")
    await queue.refusal("moveJobToCompleted", "1", 1, "token", False)
    await queue.close()


async def refused_handshakes(proxy: Gateway, redis: Redis) -> None:
    for head in (
        b"GET /queue/q HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"?\r\n\r\n",
        b"",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head)
        writer.write_eof()
        await reader.read()
        writer.close()


async def requests(proxy: Gateway, redis: Redis) -> None:
    for last in (b"", b"GET /queue/q/nothing HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-1\r\n\r\n", b"?\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        head = b"POST /queue/q/add HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-1\r\nContent-Length: 8\r\n\r\n"
        writer.write((head + b'["work"]') * 3 + last)
        writer.write_eof()
        await reader.read()
        writer.close()


async def frames_that_break_the_rules(proxy: Gateway, redis: Redis) -> None:
    for frame in (b"\xff\xff\xff\xff", b"\x81\x81\0\0\0\0\xff", b"\x81\xff"):
        queue: Peer = await proxy.queue()
        queue.socket.transport.write(frame)
        queue.socket.transport.write_eof()
        await queue.socket.wait_closed()


async def lost_links(proxy: Gateway, redis: Redis) -> None:
    worker, watcher = await proxy.worker(), await proxy.events()
    await worker.nothing_more()
    mine = (await redis.client_info())["id"]
    for client in await redis.client_list():
        if client["id"] != str(mine):
            await redis.client_kill_filter(_id=client["id"])
    await worker.call("add", "work")
    await (await worker.job()).answer(result=1)
    while (await watcher.data())["event"] != "completed":
        pass
    await watcher.close()
    await worker.close()


def live() -> Counter[str]:
    """How many objects of ours there are of each type; with the collector off, garbage counts."""
    return Counter(type(each).__qualname__ for each in gc.get_objects() if type(each).__module__.startswith(PACKAGE))


def app_of(proxy: Gateway) -> App:
    app = proxy._proxy._app
    assert app is not None
    return app


async def all_quiet(proxy: Gateway) -> None:
    """Wait until all is connected and no queue is in use; what lingers for those who may come again is ended."""
    broker = app_of(proxy).broker

    def quiet() -> bool:
        for services in list(broker._services.values()):
            for service in list(services._services.values()):
                if isinstance(service, ManualConsumers):
                    service._on_idle(service)
                elif isinstance(service, Feed):
                    service._end_if_empty()
        links_are_up = broker.link.is_up and (broker._tracker.is_up or not broker._tracker._started)
        return links_are_up and not broker._services and not app_of(proxy).listener.open

    await eventually(quiet, "nothing is in use")


@pytest.mark.parametrize(
    "act",
    [
        calls,
        a_large_bulk,
        a_flow,
        jobs,
        a_worker_that_vanishes_with_a_job,
        a_worker_that_waits,
        events,
        jobs_by_hand,
        a_caller_that_waits_for_a_job,
        a_caller_that_waits_for_an_end,
        a_caller_that_waits_for_a_failure,
        calls_that_redis_refuses,
        refused_handshakes,
        requests,
        frames_that_break_the_rules,
        lost_links,
    ],
    ids=lambda act: act.__name__,
)
async def test_nothing_is_left_for_the_collector(proxy: Gateway, redis: Redis, act: Act) -> None:
    await act(proxy, redis)  # fills the caches
    await all_quiet(proxy)
    await redis.flushall()
    gc.collect()
    before = live()
    await act(proxy, redis)
    await all_quiet(proxy)
    await eventually(lambda: not live() - before, f"freed: {live() - before}")
