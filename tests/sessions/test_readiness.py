"""`/ready`, and the look at the server before it: a job could be added and worked now, or why it could not."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.redis.check import check
from bullmq_proxy.gateway.broker.redis.errors import RedisRefused
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from tests.sessions.peer import Gateway, until
from tests.support.valkey import ValkeyProcess

RIGHTS = (
    "+@read", "+@write", "+@transaction", "-@dangerous", "+evalsha", "+eval", "+script|load", "+script|exists", "+ping",
    "+select", "+hello", "+client|setname", "+client|id", "+client|unblock", "+client|tracking", "+client|list",
    "+subscribe", "+unsubscribe", "+publish", "+pubsub|numsub", "+info",
)  # fmt: skip
"""The least that docs/redis.md names."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    with ValkeyProcess(tmp_path_factory.mktemp("ready"), tcp=True) as process:
        yield process


@pytest.fixture
async def redis(server: ValkeyProcess) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url, decode_responses=True) as client:
        yield client


async def _execute(redis: Redis, *command: Any) -> None:
    await redis.execute_command(*command)  # type: ignore[no-untyped-call]


TROUBLES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...], str]] = {
    "no memory": (("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0), "OOM"),
    "no replica": (
        ("CONFIG", "SET", "min-replicas-to-write", 1),
        ("CONFIG", "SET", "min-replicas-to-write", 0),
        "NOREPLICAS",
    ),
    "no right": (("ACL", "SETUSER", "default", "-xadd"), ("ACL", "SETUSER", "default", "+xadd"), "xadd"),
    "no master": (("REPLICAOF", "127.0.0.1", 1), ("REPLICAOF", "NO", "ONE"), "replica"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_it_is_not_ready_while_no_job_could_be_added(
    trouble: str, server: ValkeyProcess, redis: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    begin, end, why = TROUBLES[trouble]
    async with Gateway(server.url, prefix=prefix, queue_links=2) as gateway:
        workers = [await gateway.worker(f"q{number}") for number in range(40)]
        assert await gateway.ready() == (200, "")
        try:
            await _execute(redis, *begin)
            await until(lambda: _not_ready(gateway, why), f"it says {why}")
        finally:
            await _execute(redis, *end)
        await until(lambda: _is_ready(gateway), "it is ready again")
        queue = await gateway.queue("q0")
        await queue.call("add", "n", {})
        await (await workers[0].job()).answer(result=None)
    lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) < 25, lines


async def _not_ready(gateway: Gateway, why: str) -> bool:
    status, message = await gateway.ready()
    return status == 503 and why in message


async def _is_ready(gateway: Gateway) -> bool:
    return (await gateway.ready())[0] == 200


async def test_a_link_that_cannot_come_back_is_told_of(server: ValkeyProcess, redis: Redis, prefix: str) -> None:
    async with Gateway(server.url, prefix=prefix, redis_backlog_timeout=0.1) as gateway:
        most = len(await redis.client_list())
        await _execute(redis, "CONFIG", "SET", "maxclients", most)
        try:
            await gateway.worker()
            await until(lambda: _not_ready(gateway, "first commands"), "it says so")
        finally:
            await _execute(redis, "CONFIG", "SET", "maxclients", 10_000)
        await until(lambda: _is_ready(gateway), "it is ready again")


# Before the first client


async def test_what_is_dangerous_is_said_at_the_start(
    server: ValkeyProcess, redis: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    await redis.config_set("appendonly", "no")
    try:
        async with Gateway(server.url, prefix=prefix):
            pass
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.config_set("appendonly", "yes")
    assert "its eviction policy is allkeys-lru: jobs are lost when memory is short; set it to noeviction" in caplog.text
    assert "it keeps nothing on disk" in caplog.text


async def test_nothing_is_said_of_a_server_that_is_fit(
    server: ValkeyProcess, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Gateway(server.url, prefix=prefix):
        pass
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def _says(info: str) -> Callable[..., Awaitable[Any]]:
    async def call(*command: Any) -> Any:
        return info if command == ("INFO",) else ["save", "3600 1"]

    return call


async def _can() -> None:
    """Add jobs."""


async def _cannot() -> None:
    raise GatewayError(ErrorCode.INTERNAL, "Redis refused the command: NOPERM The gateway's user has no permissions")


async def test_a_server_that_is_too_old_or_lets_nobody_add_is_refused() -> None:
    with pytest.raises(RedisRefused, match=r"version 4\.0\.9: BullMQ needs 5\.0"):
        await check(_says("redis_version:4.0.9\r\n"), _can, fails_over=False)
    with pytest.raises(RedisRefused, match=r"NOPERM.*docs/redis\.md#rights"):
        await check(_says("redis_version:7.2.4\r\n"), _cannot, fails_over=False)
    [old, alone] = await check(
        _says("redis_version:6.0.1\r\naof_enabled:0\r\nconnected_slaves:0\r\n"), _can, fails_over=True
    )
    assert "recommends 6.2" in old
    assert "no replica follows" in alone


async def test_the_least_rights_are_enough(
    server: ValkeyProcess, redis: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    await _execute(
        redis, "ACL", "SETUSER", "gateway", "reset", "on", ">secret", f"~{prefix}:*", f"&{prefix}:*", *RIGHTS
    )
    url = server.url.replace("redis://", "redis://gateway:secret@")
    async with Gateway(url, prefix=prefix, queue_links=1) as gateway:
        assert await gateway.ready() == (200, "")
        for name in ("q0", "q1"):  # with a link of its own, and by the tracker
            queue, worker = await gateway.queue(name), await gateway.worker(name)
            events = await gateway.events(name, "completed")
            job = await queue.call("add", "n", {}, {"jobId": "mine"})
            await (await worker.job()).answer(result=None)
            assert job["id"] in json.dumps(await events.data())
            await until(partial(queue.call, "getWorkersCount"), "the worker is seen")
            await queue.call("getJobCounts")
            await queue.call("pause")
            await queue.call("obliterate", {"force": True})
        flows = await gateway.connect("/flows")
        await flows.call(
            "add", {"name": "p", "queueName": "q2", "children": [{"name": "c", "queueName": "q3", "data": {}}]}
        )
    assert "NOPERM" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
