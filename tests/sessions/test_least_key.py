"""All that a key of one permission can call, with the jobs of others as arguments: these stay as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.table import Function
from tests.sessions.peer import Gateway, Peer, Refused
from tests.support.examples import example
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

HOLDER = "holder"
DAY = 86_400_000
VICTIMS = ("held", "done", "broken", "later", "parent", "child")
PARTS = ("", ":logs", ":dependencies", ":processed", ":failed", ":unsuccessful", ":lock")
OTHER_KEYS = ("meta", "repeat", "repeat:nightly", "de:once", "limiter", "metrics:completed", "metrics:completed:data")
LEAST = [permission for permission in Permission if permission is not Permission.MANAGE]


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    keys = [entry(permission, permission, queues=["q"]) for permission in Permission]
    path = write_keys(tmp_path / "keys.toml", *keys, entry(HOLDER, "consume", "tune", queues=["q"]))
    async with Gateway(valkey.url, prefix=prefix, keys_file=path) as gateway:
        yield gateway


@pytest.fixture
async def redis(valkey: ValkeyProcess) -> AsyncIterator[Redis]:
    """To look behind the gateway's back; texts are bytes."""
    async with Redis.from_url(valkey.url) as client:
        yield client


async def others_jobs(proxy: Gateway) -> Peer:
    """Jobs of others in every state, but none that waits, which is for all; returns the worker that holds one."""
    owner = await proxy.queue()
    worker = await proxy.worker(token=HOLDER, concurrency=2, metrics__maxDataPoints=1000)
    for id, answer in (("done", {"result": 1}), ("broken", {"err": {"message": "no"}}), ("held", None)):
        await owner.call("add", "work", {"of": "others"}, {"jobId": id})
        job = await worker.job()
        await owner.call("addJobLog", id, "a row of others")
        await owner.call("addJobLog", id, "another one")
        if answer is not None:
            await job.answer(**answer)
    await owner.until_state("broken", "failed")
    await owner.call("add", "work", {}, {"jobId": "later", "delay": DAY, "deduplication": {"id": "once"}})
    await owner.call("upsertJobScheduler", "nightly", {"pattern": "0 0 3 1 1 *"}, {"data": {"of": "others"}})
    child = {"name": "child", "queueName": "q", "opts": {"jobId": "child", "delay": DAY}}
    flows = await proxy.connect("/flows")
    await flows.call("add", {"name": "up", "queueName": "q", "opts": {"jobId": "parent"}, "children": [child]})
    return worker


async def state(redis: Redis, prefix: str, ids: list[str]) -> dict[str, Any]:
    """All that is stored of others' jobs."""
    base = f"{prefix}:q:"
    names = [*(f"{id}{part}" for id in ids for part in PARTS), *OTHER_KEYS]
    found: dict[str, Any] = {name: await redis.dump(base + name) for name in names}
    for zset in ("completed", "failed", "delayed", "waiting-children"):
        found[zset] = {id: await redis.zscore(base + zset, id) for id in ids}
    found["lock"] = await redis.get(base + "held:lock")
    found["is held"] = await redis.lpos(base + "active", "held") is not None
    return found


def calls(permission: Permission, prefix: str, ids: list[str], token: str) -> Iterator[tuple[str, list[Any]]]:
    """Every function that the permission is for, with others' jobs in each place that may name one."""
    for row in TABLE:
        if permission in row.permissions:
            for id in ids:
                yield row.name, arguments(row, id, token)
    if permission is Permission.PRODUCE:
        for options in hostile_options(prefix, ids):
            yield "add", ["work", {}, options]
            yield "addBulk", [[{"name": "work", "opts": options}]]
            yield "addAndWait", ["work", {}, options, 1]


def arguments(row: Function, id: str, token: str) -> list[Any]:
    known = {"jobId": id, "parentId": id, "token": token, "keepLogs": 1, "ttl": 1}
    args: list[Any] = []
    for parameter in row.parameters:
        if parameter.name in known:
            args.append(known[parameter.name])
        elif parameter.required or row.variadic or row.waits:
            args.append(example(parameter.type))
        else:
            break
    return args


def hostile_options(prefix: str, ids: list[str]) -> Iterator[dict[str, Any]]:
    for keep in (1, {"count": 1}, {"age": 0}, {"age": 1, "limit": 1000}):
        yield {"removeOnComplete": keep}
        yield {"removeOnFail": keep}
    for mode in ("extend", "replace", "reschedule", "keepLastIfActive"):
        yield {"delay": DAY, "deduplication": {"id": "once", "ttl": 1, mode: True}}
    for id in ids:
        yield {"jobId": id}
        for flag in ("failParentOnFailure", "continueParentOnFailure", "removeDependencyOnFailure"):
            yield {"parent": {"id": id, "queue": f"{prefix}:q"}, flag: True, "jobId": f"mine-{id}-{flag}"}


def hostile_flows(ids: list[str]) -> Iterator[dict[str, Any]]:
    mine = {"name": "mine", "queueName": "q"}
    for id in ids:
        theirs = {"name": "theirs", "queueName": "q", "opts": {"jobId": id, "failParentOnFailure": True}}
        yield {**theirs, "children": [mine]}
        yield {**mine, "children": [theirs, mine]}
        yield {**mine, "children": [{**theirs, "children": [mine]}]}


async def ends(peer: Peer, fn: str, args: list[Any]) -> None:
    """Make a call, whatever becomes of it."""
    with suppress(Refused):
        await peer.reply(await peer.request(fn, *args))


async def finish(proxy: Gateway) -> None:
    """Complete and fail whatever waits."""
    owner, worker = await proxy.queue(), await proxy.worker(concurrency=20)
    while await owner.call("getJobCountByTypes", "waiting", "active") > 1:  # one is held
        job = await worker.job()
        await job.answer(**({"err": "no"} if job.number % 2 else {"result": 1}))


@pytest.mark.parametrize("permission", LEAST)
async def test_a_key_of_one_permission_leaves_the_jobs_of_others_as_they_are(
    proxy: Gateway, redis: Redis, prefix: str, permission: Permission
) -> None:
    await (await others_jobs(proxy)).pause()
    base = f"{prefix}:q:"
    ids = [*VICTIMS, *[key.decode().removeprefix(base) async for key in redis.scan_iter(f"{base}repeat:nightly:*")]]
    assert len(ids) == len(VICTIMS) + 1
    before = await state(redis, prefix, ids)
    assert before["is held"]
    lock = bytes(before["lock"]).decode()
    peer = await proxy.connect("/queue/q", token=permission)
    for token in (lock, "guessed"):
        for fn, args in calls(permission, prefix, ids, token):
            await ends(peer, fn, args)
    flows = await proxy.connect("/flows", token=permission)
    for flow in hostile_flows(ids):
        await ends(flows, "add", [flow])
        await ends(flows, "addBulk", [[flow]])
    assert await state(redis, prefix, ids) == before
    await finish(proxy)
    assert await state(redis, prefix, ids) == before
