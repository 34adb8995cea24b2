"""Worker connections with `grace`: their jobs are kept when they break, and taken up where their client comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.exceptions import InvalidMessage, InvalidStatus

from bullmq_proxy.gateway.broker.consuming import roster
from bullmq_proxy.gateway.broker.redis.scripts import script_texts, sha_of
from bullmq_proxy.gateway.broker.redis.tracker import NAME
from bullmq_proxy.gateway.net import opening_connection
from tests.sessions.peer import Gateway, Job, Peer, both_listen, down, until
from tests.support.keys import entry, write_keys
from tests.support.relay import Relay
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import TIMEOUT

GRACE = 60_000


@pytest.fixture
async def here(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    keys = write_keys(tmp_path / "keys.toml", entry("other", "consume"))
    async with Gateway(valkey.url, prefix=prefix, keys_file=keys) as gateway:
        yield gateway


@pytest.fixture
async def there(valkey: ValkeyProcess, prefix: str, here: Gateway, redis: Redis) -> AsyncIterator[Gateway]:
    """Another gateway on the same Redis; both hear each other."""
    async with Gateway(valkey.url, prefix=prefix) as gateway:
        await both_listen(redis, prefix)
        yield gateway


class Client:
    """A worker with `grace`."""

    def __init__(self, peer: Peer, message: dict[str, Any]) -> None:
        self.peer = peer
        self.number: int = message["id"]
        self.welcome: dict[str, Any] = message["data"]
        self.secret: str = self.welcome["consumer"]

    @property
    def jobs(self) -> list[tuple[str, int]]:
        return sorted((job["jobId"], job["number"]) for job in self.welcome["jobs"])

    def again(self, number: int) -> Job:
        """A job that was pushed on an earlier connection."""
        [shown] = [job for job in self.welcome["jobs"] if job["number"] == number]
        data = {"type": "process", "payload": {}, "job": {"id": shown["jobId"], "name": "work"}}
        return Job(self.peer, {"id": number, "data": data})


async def come(gateway: Gateway, concurrency: int = 5, grace: int = GRACE, **options: Any) -> Client:
    peer = await gateway.worker("q", concurrency, grace=grace, **options)
    message = await peer.message()
    assert message["data"]["type"] == "welcome", message
    return Client(peer, message)


async def work(queue: Peer, client: Client, *ids: str) -> list[Job]:
    """Let a client have jobs of these ids."""
    await queue.call("addBulk", [{"name": "work", "opts": {"jobId": id}} for id in ids])
    return [await client.peer.job() for _ in ids]


async def is_gone(queue: Peer) -> None:
    """Wait until the gateway has noticed that the connection broke."""

    async def look() -> bool:
        [consumer] = (await queue.call("getConsumers"))["consumers"]
        return not consumer["connected"]

    await until(look, "the connection is known to be gone")


async def nobody_works(queue: Peer) -> None:
    async def look() -> bool:
        return not (await queue.call("getConsumers"))["consumers"]

    await until(look, "nobody is waited for")


@pytest.mark.parametrize("elsewhere", [True, False], ids=["another-gateway", "the-same-shard"])
async def test_a_client_that_comes_back_goes_on_with_its_jobs(here: Gateway, there: Gateway, elsewhere: bool) -> None:
    queue = await here.queue()
    client = await come(here, confirm=1)
    assert (client.number, client.jobs, client.welcome["grace"]) == (0, [], GRACE)
    jobs = await work(queue, client, "a", "b", "c")
    assert [job.number for job in jobs] == [1, 2, 3]
    await jobs[0].answer(result=0)
    assert (await client.peer.data())["type"] == "finished"
    client.peer.vanish()
    await is_gone(queue)
    assert await queue.call("getJobCounts", "active", "waiting") == {"active": 2, "waiting": 0}
    back = await come(there if elsewhere else here, consumer=client.secret, confirm=1)
    assert back.secret != client.secret
    assert back.jobs == [("b", 2), ("c", 3)]
    assert back.number == 4
    await back.again(2).answer(result="done")
    assert await back.peer.message() == {"id": 2, "data": {"type": "finished", "state": "completed", "jobId": "b"}}
    await back.again(3).answer(type="progress", progress=50)
    [job] = await work(queue, back, "d")
    assert job.number == 5
    await back.again(3).answer(err="no")
    assert (await back.peer.data())["state"] == "failed"
    stored = await queue.call("getJob", "c")
    assert (stored["progress"], stored["stalledCounter"], stored["attemptsMade"]) == (50, 0, 1)


async def is_renewed(redis: Redis, lock: str) -> None:
    token, seen = await redis.get(lock), await redis.pttl(lock)

    async def look() -> bool:
        nonlocal seen
        last, seen = seen, await redis.pttl(lock)
        assert await redis.get(lock) == token
        return bool(seen > last + 200)

    await until(look, "the lock is renewed")


async def test_locks_are_renewed_meanwhile_and_after(here: Gateway, there: Gateway, redis: Redis, prefix: str) -> None:
    queue = await here.queue()
    client = await come(here, lockDuration=1000)
    await work(queue, client, "a")
    client.peer.vanish()
    await is_gone(queue)
    lock = f"{prefix}:q:a:lock"
    await is_renewed(redis, lock)
    client = await come(there, lockDuration=1000, consumer=client.secret)
    assert client.jobs == [("a", 1)]
    assert await redis.get(lock) == client.welcome["jobs"][0]["token"]
    await is_renewed(redis, lock)
    await client.again(1).answer(result=1)
    await queue.until_state("a", "completed")


async def test_jobs_go_back_counted_when_the_time_has_passed(here: Gateway, there: Gateway) -> None:
    queue = await here.queue()
    client = await come(here, grace=50)
    await work(queue, client, "a")
    client.peer.vanish()
    await nobody_works(queue)
    back = await come(there, consumer=client.secret)
    assert back.jobs == []
    job = await back.peer.job()
    assert (job.id, job.shown["stalledCounter"]) == ("a", 1)


async def test_one_that_comes_back_before_its_end_was_noticed_is_the_one_that_counts(
    here: Gateway, there: Gateway
) -> None:
    queue = await here.queue()
    client = await come(here)
    await work(queue, client, "a")
    back = await come(there, consumer=client.secret)
    assert back.jobs == [("a", 1)]
    assert await client.peer.closed() == 4001
    await back.again(1).answer(result=1)
    await queue.until_state("a", "completed")


async def test_a_connection_that_breaks_before_its_welcome_was_read_loses_nothing(
    here: Gateway, there: Gateway
) -> None:
    queue = await here.queue()
    client = await come(here)
    await work(queue, client, "a", "b")
    client.peer.vanish()
    for gateway in (there, here, there):  # the client knows its first secret alone
        back = await come(gateway, consumer=client.secret)
        assert back.jobs == [("a", 1), ("b", 2)]
        back.peer.vanish()
    back = await come(here, consumer=client.secret)
    for number in (1, 2):
        await back.again(number).answer(result=1)
    await queue.until_state("b", "completed")


async def test_a_secret_is_of_one_key_one_queue_and_one_client(here: Gateway, there: Gateway) -> None:
    queue = await here.queue()
    client = await come(here)
    await work(queue, client, "a")
    client.peer.vanish()
    await is_gone(queue)
    for secret in (client.secret[:-1], f"{client.secret}x", "x", "a:0:0:1:x", ":::::", "é"):
        assert (await come(there, concurrency=1, consumer=secret)).jobs == []
    peer = await here.connect("/queue/q/process/1", token="other", grace=GRACE, consumer=client.secret)
    assert (await peer.data())["jobs"] == []
    peer = await there.worker("another", grace=GRACE, consumer=client.secret)
    assert (await peer.data())["jobs"] == []
    assert (await come(there, consumer=client.secret)).jobs == [("a", 1)]


async def test_what_is_kept_can_be_cancelled_and_ended(here: Gateway, there: Gateway) -> None:
    queue = await there.queue()
    client = await come(here)
    await work(queue, client, "a", "b")
    client.peer.vanish()
    await is_gone(queue)
    assert await queue.call("cancelJob", "a") == {"delivered": False, "state": "failed"}
    [consumer] = (await queue.call("getConsumers"))["consumers"]
    assert (consumer["inHand"], consumer["takesJobs"]) == (1, False)
    await queue.call("disconnectConsumer", consumer["id"])
    await queue.until_state("b", "waiting")
    assert (await queue.call("getJob", "b"))["stalledCounter"] == 0
    assert (await come(there, consumer=client.secret)).jobs == []


async def test_a_shard_that_stops_keeps_nothing(here: Gateway, there: Gateway) -> None:
    queue = await there.queue()
    client = await come(here)
    await work(queue, client, "a")
    client.peer.vanish()
    await is_gone(queue)
    await here.stop()
    assert (await queue.call("getJobState", "a"), (await queue.call("getJob", "a"))["stalledCounter"]) == ("waiting", 0)


async def test_a_key_cannot_keep_jobs_for_more_and_more_clients(
    here: Gateway, there: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "MOST_AWAY", 2)
    queue = await here.queue()
    for id in ("a", "b", "c"):
        client = await come(here)
        [job] = await work(queue, client, id)
        assert job.id == id
        client.peer.vanish()
        await until(lambda: nobody_is_connected(queue), "the connection is known to be gone")
    await queue.until_state("a", "waiting")
    assert (await queue.call("getJob", "a"))["stalledCounter"] == 1
    assert await queue.call("getJobCounts", "active") == {"active": 2}


async def nobody_is_connected(queue: Peer) -> bool:
    return not any(consumer["connected"] for consumer in (await queue.call("getConsumers"))["consumers"])


async def test_what_is_kept_outlives_an_outage_of_redis(server: ValkeyProcess, frail: Gateway) -> None:
    queue = await frail.queue()
    client = await come(frail)
    await work(queue, client, "a")
    server.kill()
    client.peer.vanish()
    await down(frail)
    with pytest.raises(InvalidStatus) as refused:
        await come(frail, consumer=client.secret)
    assert refused.value.response.status_code == 503
    server.start()

    async def is_up() -> bool:
        return await frail.metric("redis_up") == 1

    await until(is_up, "Redis is back")
    back = await come(frail, consumer=client.secret)
    assert back.jobs == [("a", 1)]
    await back.again(1).answer(result=1)
    await queue.until_state("a", "completed")


async def test_a_shard_that_does_not_hear_for_a_moment_is_asked_again(
    here: Gateway, there: Gateway, redis: Redis
) -> None:
    queue = await here.queue()
    client = await come(here)
    await work(queue, client, "a")
    client.peer.vanish()
    await is_gone(queue)
    for each in await redis.client_list():
        if each["name"].endswith(NAME):
            await redis.client_kill_filter(_id=each["id"])
    assert (await come(there, consumer=client.secret)).jobs == [("a", 1)]


async def test_a_job_goes_back_whose_client_is_refused_before_redis_says_that_it_has_it_again(
    valkey: ValkeyProcess, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening_connection, "_OPEN_TIMEOUT", 0.5)
    async with Relay(valkey) as relay, Gateway(relay.url, prefix=prefix) as gateway:
        queue = await gateway.queue()
        client = await come(gateway)
        await work(queue, client, "a")
        client.peer.vanish()
        await is_gone(queue)
        relay.hold_at(sha_of(script_texts()["handOver"]).encode())
        with pytest.raises((InvalidMessage, InvalidStatus)):
            await come(gateway, consumer=client.secret)
        assert relay.held.is_set()
        relay.let_go()
        await queue.until_state("a", "waiting")


async def goes_on(there: Gateway, secret: str, queue: Peer, end: asyncio.Task[None]) -> None:
    """Let a client take its two jobs up elsewhere and answer them while its shard ends; neither was given back."""
    back = await come(there, consumer=secret)
    assert back.jobs == [("a", 1), ("b", 2)]
    await end
    for number in (1, 2):
        await back.again(number).answer(result=1)
    await queue.until_state("b", "completed")
    for id in ("a", "b"):
        job = await queue.call("getJob", id)
        assert (job["attemptsStarted"], job["stalledCounter"]) == (1, 0)


async def test_a_client_whose_shard_stops_goes_on_elsewhere_with_its_jobs(
    valkey: ValkeyProcess, prefix: str, there: Gateway
) -> None:
    queue = await there.queue()
    async with Gateway(valkey.url, prefix=prefix, drain_timeout=5.0) as stopping:
        client = await come(stopping)
        await work(queue, client, "a", "b")
        end = asyncio.create_task(stopping.stop())
        assert (await client.peer.data())["type"] == "drain"
        await goes_on(there, client.secret, queue, end)


@pytest.mark.parametrize("is_first", [True, False], ids=["before-the-drain", "while-it-drains"])
async def test_a_client_whose_connection_breaks_when_its_shard_stops_goes_on_elsewhere_with_its_jobs(
    valkey: ValkeyProcess, prefix: str, there: Gateway, is_first: bool
) -> None:
    queue = await there.queue()
    async with Gateway(valkey.url, prefix=prefix, drain_timeout=TIMEOUT) as stopping:
        client = await come(stopping)
        await work(queue, client, "a", "b")
        if is_first:
            client.peer.vanish()
            await is_gone(queue)
        end = asyncio.create_task(stopping.stop())
        if not is_first:
            assert (await client.peer.data())["type"] == "drain"
            client.peer.vanish()
        await goes_on(there, client.secret, queue, end)


async def test_what_nobody_has_taken_up_goes_back_uncounted_when_the_shard_has_drained(
    valkey: ValkeyProcess, prefix: str, there: Gateway
) -> None:
    queue = await there.queue()
    async with Gateway(valkey.url, prefix=prefix, drain_timeout=0.1) as stopping:
        client = await come(stopping)
        await work(queue, client, "a")
        client.peer.vanish()
        await is_gone(queue)
        await stopping.stop()
    job = await (await there.worker("q")).job()
    assert (job.id, job.shown["stalledCounter"]) == ("a", 0)


async def test_without_grace_there_is_no_welcome_and_nothing_is_kept(here: Gateway, there: Gateway) -> None:
    queue, worker = await here.queue(), await here.worker()
    await queue.call("add", "work", {}, {"jobId": "a"})
    assert (await worker.job()).number == 0
    worker.vanish()
    job = await (await there.worker()).job()
    assert (job.id, job.shown["stalledCounter"]) == ("a", 1)


class Wanderer:
    """A client that answers some of its jobs, breaks its connection, and comes back on another gateway."""

    def __init__(self, gateways: tuple[Gateway, Gateway], seed: int) -> None:
        self._gateways = gateways
        self._chance = random.Random(seed)
        self._known: dict[int, str] = {}  # by the number of the message, which is of one job for good
        self._read: set[int] = set()
        self._secret = ""

    async def run(self) -> None:
        while True:
            options: dict[str, Any] = {"consumer": self._secret} if self._secret else {}
            client = await come(self._chance.choice(self._gateways), concurrency=4, **options)
            self._secret = client.secret
            for id, number in client.jobs:
                assert self._known.setdefault(number, id) == id
                if number in self._read:
                    await client.again(number).answer(result=id)
                else:  # it was pushed as the connection broke
                    await client.again(number).answer(type="release")
            for _ in range(self._chance.randint(2, 12)):
                try:
                    message = await client.peer.message(0.1)
                except TimeoutError:  # no more jobs for now
                    break
                assert message["data"]["type"] not in ("lost", "cancel"), message
                if message["data"]["type"] == "process":
                    job = Job(client.peer, message)
                    assert self._known.setdefault(job.number, job.id) == job.id
                    self._read.add(job.number)
                    if self._chance.random() < 0.7:
                        await job.answer(result=job.id)
            client.peer.vanish()


async def test_clients_that_come_back_over_and_over_lose_no_job_and_do_none_twice(
    here: Gateway, there: Gateway
) -> None:
    count = 150
    queue = await here.queue()
    await queue.call("addBulk", [{"name": "work", "opts": {"jobId": f"j{number}"}} for number in range(count)])
    wanderers = [asyncio.create_task(Wanderer((here, there), seed).run()) for seed in range(3)]

    async def look() -> bool:
        for wanderer in wanderers:
            if wanderer.done():
                wanderer.result()
        return bool(await queue.call("getCompletedCount") == count)

    await until(look, "all jobs are completed", 20.0)
    for wanderer in wanderers:
        wanderer.cancel()
    for job in await queue.call("getCompleted", 0, -1):
        assert (job["attemptsMade"], job["stalledCounter"], job["returnvalue"]) == (1, 0, job["id"]), job
