"""Who is connected, on all gateways of a prefix: what a manager is shown of it, and how connections are sent away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from itertools import combinations, product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.broker.redis import channel
from tests.net.support import Answer, RawClient
from tests.sessions.peer import Gateway, Peer, both_listen, until
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

PATTERNS = ("mails-*", "orders", "*")
PERMISSIONS: list[tuple[str, ...]] = [(), *((permission,) for permission in Permission), tuple(Permission)]
SETS = [subset for size in range(3) for subset in combinations(PATTERNS, size)]
KEYS = [(f"key-{number}", may, of) for number, (may, of) in enumerate(product(PERMISSIONS, SETS), 2)]
"""A key for each set of permissions and patterns."""


@pytest.fixture
async def here(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with all those keys."""
    path = write_keys(tmp_path / "keys.toml", *(entry(name, *may, queues=of) for name, may, of in KEYS))
    async with Gateway(valkey.url, prefix=prefix, keys_file=path) as gateway:
        yield gateway


@pytest.fixture
async def there(valkey: ValkeyProcess, prefix: str, here: Gateway, redis: Redis) -> AsyncIterator[Gateway]:
    """Another gateway on the same Redis, which knows nothing of the first; both hear each other."""
    async with Gateway(valkey.url, prefix=prefix) as gateway:
        await both_listen(redis, prefix)
        yield gateway


async def ask(gateway: Gateway, method: str, target: str, key: str = "key-1") -> Answer:
    async with await RawClient.connect(gateway.port) as client:
        return await client.fetch(method, target, f"Authorization: Bearer {key}")


async def connected(gateway: Gateway, key: str = "key-1", **query: Any) -> dict[str, dict[str, Any]]:
    """What a key is shown, by the ids, without the connection that asks."""
    target = "/connections?" + "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
    found = json.loads((await ask(gateway, "GET", target, key)).body)["ok"]
    assert (found["omitted"], found["silent"]) == (0, 0)
    return {each["id"]: each for each in found["connections"] if each["kind"] != "http"}


async def dismiss(gateway: Gateway, id: str, how: str, key: str = "key-1") -> Any:
    return json.loads((await ask(gateway, "POST", f"/connections/{id}/{how}", key)).body)["ok"]


async def one(gateway: Gateway, kind: str) -> str:
    """The id of the only connection of a kind."""
    [id] = await connected(gateway, kind=kind)
    return id


class TestList:
    async def test_every_kind_is_shown_with_what_it_does_on_all_gateways(self, here: Gateway, there: Gateway) -> None:
        before = int(time.time() * 1000)
        queue, flows = await here.queue("mails"), await here.connect("/flows", token="key-37")
        worker, watcher = await there.worker("mails", 3), await there.events("orders")
        await queue.call("add", "work")
        job = await worker.job()
        waiting = await queue.request("getNextJob", "token", {"block": 60_000})
        async with await RawClient.connect(here.port) as client:
            client.request("GET", "/queue/mails/events", "Accept: text/event-stream")
            await until(lambda: self._are(here, 5), "all are shown")
            shown = list((await connected(here)).values())
        assert shown == sorted(shown, key=lambda each: each["since"])
        gateways = {each.pop("gateway") for each in shown}
        assert len(gateways) == 2
        assert {each.pop("id").rsplit(":", 3)[0] for each in shown} == gateways
        assert len({each.pop("host") for each in shown}) == 1
        for each in shown:
            assert before - 1 <= each.pop("since") <= time.time() * 1000 + 1
            assert (each.pop("shard"), each.pop("address"), each.pop("lag")) == (0, "127.0.0.1", 0)
        idle = {"key": "", "inHand": 0, "concurrency": None, "calls": 0}
        assert sorted(shown, key=lambda each: (each["kind"], str(each["queue"]))) == [
            {**idle, "kind": "events", "queue": "mails"},
            {**idle, "kind": "events", "queue": "orders"},
            {**idle, "kind": "flows", "queue": None, "key": "key-37"},
            {**idle, "kind": "queue", "queue": "mails", "calls": 1},
            {**idle, "kind": "worker", "queue": "mails", "inHand": 1, "concurrency": 3},
        ]
        await job.answer(result=None)
        await asyncio.gather(*(each.close() for each in (flows, worker, watcher)))
        await until(lambda: self._are(there, 1), "the others are gone")
        assert waiting

    @staticmethod
    async def _are(gateway: Gateway, count: int) -> bool:
        return len(await connected(gateway)) == count

    async def test_it_can_be_of_one_queue_or_kind_and_has_a_limit(self, here: Gateway, there: Gateway) -> None:
        for gateway in (here, there, here, there):
            await gateway.worker("mails")
        await here.queue("orders")
        await until(lambda: self._are(here, 5), "all are shown")
        assert {each["queue"] for each in (await connected(here, queue="orders")).values()} == {"orders"}
        workers = list(await connected(here, kind="worker"))
        assert len(workers) == 4
        flows = await here.connect("/flows")
        for limit, shown in ((1, 1), (3, 3), (4, 4), (1000, 4)):
            found = await flows.call("getConnections", {"kind": "worker", "limit": limit})
            assert [each["id"] for each in found["connections"]] == workers[:shown]
            assert found["omitted"] == 4 - shown

    async def test_the_id_of_a_worker_is_that_of_the_consumer(self, here: Gateway, there: Gateway) -> None:
        worker = await there.worker("mails")
        await worker.pause()
        [consumer] = (await (await here.queue("mails")).call("getConsumers"))["consumers"]
        assert consumer["id"] == await one(here, "worker")

    async def test_what_a_client_has_not_read_is_its_lag(self, here: Gateway, there: Gateway) -> None:
        queue = await there.queue("mails")
        await queue.call("add", "large", "x" * 500_000, {"jobId": "large"})
        queue.socket.transport.pause_reading()
        for _ in range(20):
            await queue.request("getJob", "large")

        async def look() -> bool:
            return any(each["lag"] > 100_000 for each in (await connected(here)).values())

        await until(look, "its lag is shown")

    async def test_a_shard_that_does_not_answer_is_counted(
        self, here: Gateway, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(channel, "DEADLINE", 0.1)
        async with redis.pubsub() as silent:
            await silent.subscribe(f"{prefix}:{{gateways}}:channel@0")
            await silent.subscribe(f"{prefix}:{{gateways}}:channel@0:a:0:0")
            flows = await here.connect("/flows")
            found = await flows.call("getConnections", {"kind": "flows"})
            assert ([each["kind"] for each in found["connections"]], found["silent"]) == (["flows"], 1)
            code, message = await flows.refusal("closeConnection", "a:0:0:1")
            assert (code, "does not answer" in message) == ("OUTCOME_UNKNOWN", True)

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("kind=none", "Expected one of queue, worker, events, flows, http - at `?kind`"),
            ("limit=0", "Expected a whole number from 1 to 1000 - at `?limit`"),
            ("limit=1001", "Expected a whole number from 1 to 1000 - at `?limit`"),
            ("queue=a:b", "Queue name cannot contain : - at `args[0].queue`"),
            ("queue=", "Queue name must be provided - at `args[0].queue`"),
            ("x=1", "Unknown option"),
        ],
    )
    async def test_what_cannot_be_used_is_refused(self, proxy: Gateway, query: str, message: str) -> None:
        refused = await ask(proxy, "GET", f"/connections?{query}")
        assert (refused.status, message in refused.error["message"]) == (400, True), refused.error


class TestSendingAway:
    async def test_a_worker_that_is_drained_finishes_what_it_has(self, here: Gateway, there: Gateway) -> None:
        queue, worker = await here.queue("mails"), await there.worker("mails", 5, confirm=1)
        await queue.call("add", "work")
        job = await worker.job()
        id = await one(here, "worker")
        for _ in range(2):
            assert await dismiss(here, id, "drain") is True
        assert await worker.data() == {"type": "drain"}
        await queue.call("add", "next")
        await job.answer(result=1)
        assert (await worker.data())["type"] == "finished"
        await worker.nothing_more()

    async def test_a_worker_that_is_closed_gives_back_its_jobs_uncounted(self, here: Gateway, there: Gateway) -> None:
        queue, worker = await here.queue("mails"), await there.worker("mails", grace=60_000)
        await queue.call("add", "work")
        await worker.data()  # welcome
        job = await worker.job()
        assert await dismiss(here, await one(here, "worker"), "close") is True
        assert await worker.closed() == 4001
        assert worker.socket.close_reason == "closeConnection was called"
        again = await (await here.worker("mails")).job()
        assert (again.id, again.shown["stalledCounter"], again.shown["attemptsMade"]) == (job.id, 0, 0)

    @pytest.mark.parametrize("how", ["drain", "close"])
    @pytest.mark.parametrize(
        ("kind", "path"), [("queue", "/queue/mails"), ("events", "/queue/mails/events"), ("flows", "/flows")]
    )
    async def test_any_other_client_is_sent_away(
        self, here: Gateway, there: Gateway, kind: str, path: str, how: str
    ) -> None:
        client = await there.connect(path)
        assert await dismiss(here, await one(here, kind), how) is True
        assert await client.closed() == 4001

    @pytest.mark.parametrize("how", ["drain", "close"])
    async def test_a_stream_of_events_ends(self, here: Gateway, how: str) -> None:
        async with await RawClient.connect(here.port) as client:
            client.request("GET", "/queue/mails/events", "Accept: text/event-stream")
            await until(lambda: connected(here, kind="events"), "it is connected")
            assert await dismiss(here, await one(here, "events"), how) is True
            await client.gone()

    @pytest.mark.parametrize("how", ["drain", "close"])
    async def test_a_connection_for_requests_ends_with_its_last_response(self, here: Gateway, how: str) -> None:
        flows = await here.connect("/flows")
        async with await RawClient.connect(here.port) as client:
            assert (await client.fetch("GET", "/queue/mails/getNextJob")).status == 405
            found = await flows.call("getConnections", {"kind": "http"})
            [id] = [each["id"] for each in found["connections"]]
            assert await dismiss(here, id, how) is True
            await client.gone()

    async def test_who_closes_its_own_connection_gets_the_answer(self, here: Gateway) -> None:
        async with await RawClient.connect(here.port) as client:
            [own] = json.loads((await client.fetch("GET", "/connections")).body)["ok"]["connections"]
            assert own["kind"] == "http"
            answer = await client.fetch("POST", f"/connections/{own['id']}/close")
            assert json.loads(answer.body) == {"ok": True}
            assert answer.headers["connection"] == "close"
            await client.gone()


class TestRights:
    """Every key of some permissions, for queues of some patterns."""

    async def test_a_key_is_shown_and_reaches_what_it_manages(self, here: Gateway, there: Gateway) -> None:
        every: set[str | None] = {"mails-1", "mails-2", "orders", None}
        seen_by: dict[str, set[str | None]] = {"mails-*": {"mails-1", "mails-2"}, "orders": {"orders"}, "*": every}
        peers: list[Peer] = [await there.queue(name) for name in ("mails-1", "orders")]
        peers += [await here.events("mails-2"), await here.connect("/flows")]

        async def all_there() -> bool:
            return len(await connected(here)) == len(peers)

        await until(all_there, "all are connected")
        ids = {each["queue"]: id for id, each in (await connected(here)).items()}
        assert ids.keys() == every
        unknown = f"{ids['orders']}1"
        async with await RawClient.connect(here.port) as client:
            for name, permissions, patterns in KEYS:
                key = f"Authorization: Bearer {name}"
                manages = Permission.MANAGE in permissions
                seen = {queue for pattern in patterns for queue in seen_by[pattern]}
                for target in ("/connections", "/flows/getConnections"):
                    answer = await client.fetch("GET", target, key)
                    if manages:
                        found = json.loads(answer.body)["ok"]["connections"]
                        assert {each["queue"] for each in found if each["kind"] != "http"} == seen, (name, patterns)
                        assert (None in seen) == any(each["kind"] == "http" for each in found)
                    else:
                        assert (answer.status, answer.error["code"]) == (403, "FORBIDDEN")
                for queue in ids.keys() - {None}:
                    answer = await client.fetch("GET", f"/connections?queue={queue}", key)
                    assert answer.status == (200 if manages and queue in seen else 403)
                    assert answer.status == 403 or [*json.loads(answer.body)["ok"]["connections"]]
                for queue, id in ((None, unknown), ("", "x"), *ids.items()):
                    if manages and id in ids.values() and queue in seen:
                        continue  # it would be closed
                    for how in ("drain", "close"):
                        answer = await client.fetch("POST", f"/connections/{id}/{how}", key)
                        if manages:
                            assert json.loads(answer.body) == {"ok": False}, (name, queue)
                        else:
                            assert (answer.status, answer.error["code"]) == (403, "FORBIDDEN")
        assert len(await connected(here)) == len(peers)

    async def test_a_key_may_have_more_patterns_than_one_question_takes(
        self, valkey: ValkeyProcess, prefix: str, tmp_path: Path
    ) -> None:
        patterns = [f"{number:05}-{'x' * 90}" for number in range(1500)]
        path = write_keys(tmp_path / "many.toml", entry("many", "manage", queues=[*patterns, "mails", "m*"]))
        async with Gateway(valkey.url, prefix=prefix, keys_file=path) as gateway:
            peer = await gateway.queue("mails")
            await gateway.queue("orders")
            [(id, shown)] = (await connected(gateway, "many")).items()
            assert shown["queue"] == "mails"
            assert await dismiss(gateway, id, "close", "many") is True
            assert await peer.closed() == 4001
            assert await dismiss(gateway, id, "close", "many") is False

    async def test_nobody_reaches_them_without_a_key(self, here: Gateway) -> None:
        await here.queue("mails")
        id = await one(here, "queue")
        for key in ("", "wrong"):
            for method, target in (("GET", "/connections"), ("POST", f"/connections/{id}/close")):
                assert (await ask(here, method, target, key)).error["code"] == "UNAUTHORIZED"
        for target in (f"/connections/{id}/close", f"/connections/{id}/drain"):
            assert (await ask(here, "GET", target)).status == 405
        assert await one(here, "queue") == id


async def test_a_key_learns_who_it_is_and_what_it_may_do(here: Gateway) -> None:
    everything = {"key": "", "permissions": list(Permission), "queues": ["*"]}
    assert await (await here.connect("/flows")).call("whoami") == everything
    async with await RawClient.connect(here.port) as client:
        for name, permissions, patterns in KEYS:
            for target in ("/whoami", "/flows/whoami"):
                answer = await client.fetch("GET", target, f"Authorization: Bearer {name}")
                if permissions:
                    shown = {"key": name, "permissions": list(permissions), "queues": list(patterns)}
                    assert json.loads(answer.body) == {"ok": shown}
                else:
                    assert (answer.status, answer.error["code"]) == (403, "FORBIDDEN")
        assert (await client.fetch("GET", "/whoami", "Authorization: Bearer wrong")).status == 401
