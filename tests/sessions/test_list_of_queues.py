"""The list of queues: all of them in pages, those of the key and no others, over WebSocket and HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.broker.functions import queues
from bullmq_proxy.gateway.broker.redis import channel
from tests.net.support import Answer, RawClient
from tests.sessions.peer import Gateway, Peer, until
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

NAMES = ("mails-1", "mails-2", "mails", "orders", "*", "q[x]", "é {tag}")
PATTERNS: dict[str, set[str]] = {
    "mails-*": {"mails-1", "mails-2"},
    "mails": {"mails"},
    "*s": {"mails", "orders"},
    "none-*": set(),
}
"""Patterns of keys, and the queues that they cover."""


async def make(redis: Redis, prefix: str, *names: str) -> None:
    """Make queues, as far as they are seen."""
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hset(f"{prefix}:{name}:meta", "version", "bullmq")
        await pipe.execute()


async def pages(peer: Peer, **opts: Any) -> list[list[str]]:
    """The names in each page, up to the last one."""
    found: list[list[str]] = []
    page: dict[str, Any] = {"cursor": None}
    while not found or page["cursor"]:
        page = await peer.call("getQueues", {**opts, "cursor": page["cursor"]})
        found.append([queue["name"] for queue in page["queues"]])
    return found


def names(page: dict[str, Any]) -> set[str]:
    return {queue["name"] for queue in page["queues"]}


async def get(gateway: Gateway, query: str = "", key: str = "key-1") -> Answer:
    """The answer to a request for the list."""
    async with await RawClient.connect(gateway.port) as client:
        return await client.fetch("GET", f"/queues{query}", f"Authorization: Bearer {key}")


class TestPages:
    async def test_all_queues_of_the_prefix_are_listed_and_nothing_else(
        self, proxy: Gateway, redis: Redis, prefix: str
    ) -> None:
        peer = await proxy.connect("/flows")
        assert await peer.call("getQueues") == {"queues": [], "cursor": None}
        await make(redis, prefix, *NAMES)
        await make(redis, f"{prefix}:x", "longer prefix")
        await make(redis, f"x{prefix}", "other prefix")
        await make(redis, "*", "no pattern")
        await redis.set(f"{prefix}:mails:1:meta", "a job's")
        queue = await proxy.queue("added")
        await queue.call("add", "job")
        page = await peer.call("getQueues")
        assert names(page) == {*NAMES, "added"}
        assert page["cursor"] is None
        assert (await get(proxy)).body == json.dumps({"ok": page}, ensure_ascii=False, separators=(",", ":")).encode()

    async def test_a_prefix_is_no_pattern(self, valkey: ValkeyProcess, redis: Redis, prefix: str) -> None:
        await make(redis, prefix, "other")
        odd = f"{prefix[:-1]}[{prefix[-1]}]?*\\"
        await make(redis, odd, "own")
        async with Gateway(valkey.url, prefix=odd) as gateway:
            assert names(await (await gateway.connect("/flows")).call("getQueues")) == {"own"}

    async def test_pages_have_all_of_many_queues(self, proxy: Gateway, redis: Redis, prefix: str) -> None:
        all_names = [f"queue-{number}" for number in range(3000)]
        await make(redis, prefix, *all_names)
        peer = await proxy.connect("/flows")
        found = await pages(peer, limit=200)
        assert {name for page in found for name in page} == set(all_names)
        assert len(found) > 1
        assert all(len(page) >= 200 for page in found[:-1])
        by_http: set[str] = set()  # in other pages, perhaps: SCAN promises all keys, and no order
        query = "?limit=200"
        while query:
            page = json.loads((await get(proxy, query)).body)["ok"]
            by_http |= names(page)
            query = f"?limit=200&cursor={page['cursor']}" if page["cursor"] else ""
        assert by_http == set(all_names)

    async def test_one_call_goes_through_so_many_keys_and_no_more(
        self, proxy: Gateway, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queues, "SLICES", 1)
        await redis.mset({f"noise-{number}": "" for number in range(5000)})
        await make(redis, prefix, "one", "two")
        found = await pages(await proxy.connect("/flows"))
        assert len(found) >= 4  # some without a queue
        assert {name for page in found for name in page} == {"one", "two"}

    async def test_counts_come_along_when_asked_for(self, proxy: Gateway, redis: Redis, prefix: str) -> None:
        await make(redis, prefix, *(f"queue-{number}" for number in range(120)))
        await redis.set(f"{prefix}:queue-0:wait", "of another program")
        queue = await proxy.queue("mails")
        await queue.call("addBulk", [{"name": "now"}, {"name": "later", "opts": {"delay": 60_000}}])
        page = await (await proxy.connect("/flows")).call("getQueues", {"counts": True, "limit": 1000})
        counts = {each["name"]: each.get("counts") for each in page["queues"]}
        assert counts["queue-0"] is None
        assert counts["mails"] == await queue.call("getJobCounts")
        assert counts["queue-7"] == dict.fromkeys(counts["mails"], 0)
        assert len(counts) == 121
        by_request = json.loads((await get(proxy, "?counts=1&limit=1000")).body)
        assert by_request == {"ok": page}

    async def test_how_long_the_next_job_has_waited_comes_along_when_asked_for(
        self, proxy: Gateway, redis: Redis, prefix: str
    ) -> None:
        now = int(time.time() * 1000)
        hour, minute = now - 3_600_000, now - 60_000
        added: dict[str, list[dict[str, Any]]] = {
            "plain": [{"timestamp": hour}, {"timestamp": minute}],
            "by priority": [{"timestamp": hour, "priority": 5}, {"timestamp": now}],
            "its delay is over": [{"timestamp": hour, "delay": 3_540_000}],
            "delayed": [{"delay": 3_600_000}],
            "only a retry has a delay": [{"timestamp": hour, "backoff": {"type": "fixed", "delay": 5000}}],
            "not yet": [{"timestamp": now + 3_600_000}],
        }
        for name, jobs in added.items():
            queue = await proxy.queue(name)
            await queue.call("addBulk", [{"name": "job", "opts": opts} for opts in jobs])
        await (await proxy.queue("its delay is over")).call("promoteJobs")
        await (await proxy.queue("plain")).call("pause")
        await make(redis, prefix, "empty", "odd", "gone")
        await redis.set(f"{prefix}:odd:wait", "of another program")
        await redis.rpush(f"{prefix}:gone:wait", "1")
        page = await (await proxy.connect("/flows")).call("getQueues", {"oldest": True})
        found = {each["name"]: (each.get("oldest"), each.get("paused")) for each in page["queues"]}
        ages = {name: age and round(age / 60_000) for name, (age, _) in found.items()}
        assert ages == {
            "plain": 60,
            "by priority": 60,
            "its delay is over": 1,
            "delayed": None,
            "only a retry has a delay": 60,
            "not yet": 0,
            "empty": None,
            "odd": None,
            "gone": None,
        }
        assert {name: paused for name, (_, paused) in found.items()} == {
            **dict.fromkeys(found, False),
            "plain": True,
            "odd": None,
        }
        by_request = json.loads((await get(proxy, "?oldest=true")).body)["ok"]
        assert {each["name"]: each.get("paused") for each in by_request["queues"]}["plain"]

    async def test_who_is_connected_is_counted_on_all_gateways_when_asked_for(
        self, proxy: Gateway, redis: Redis, prefix: str, valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(channel, "_PIECE", 200)
        all_names = [f"queue-{number}" for number in range(50)]
        await make(redis, prefix, *all_names)
        async with Gateway(valkey.url, prefix=prefix) as other:
            workers = [await gateway.worker("queue-7") for gateway in (proxy, other, other)]
            await workers[0].pause()
            await other.events("queue-7")
            await other.events("queue-8")
            waiting = await other.queue("queue-9")
            await waiting.request("getNextJob", "token", {"block": 60_000})
            await waiting.request("waitUntilJobFinished", "1")
            flows = await proxy.connect("/flows")

            async def look() -> dict[str, tuple[int, int]]:
                page = await flows.call("getQueues", {"connected": True})
                assert page["silent"] == 0
                found = {each["name"]: (each["workers"], each["watchers"]) for each in page["queues"]}
                return found if found["queue-7"][0] == 3 else {}

            found = await until(look, "all workers are there")
            assert found == dict.fromkeys(all_names, (0, 0)) | {"queue-7": (3, 1), "queue-8": (0, 1)}

    @pytest.mark.parametrize(
        ("query", "option", "status", "message"),
        [
            ("cursor=x", {"cursor": "x"}, 400, "Expected the `cursor` of an earlier answer"),
            ("limit=0", {"limit": 0}, 400, "Expected"),
            ("limit=1001", {"limit": 1001}, 400, "Expected"),
            ("counts=2", {"counts": 2}, 400, "Expected"),
            ("oldest=2", {"oldest": 2}, 400, "Expected"),
            ("connected=x", {"connected": "x"}, 400, "Expected"),
            ("x=1", {"x": 1}, 400, "Unknown option"),
            ("cursor=00000000-0", {"cursor": "00000000-0"}, 409, "begin again, without `cursor`"),
        ],
    )
    async def test_what_cannot_be_used_is_refused(
        self, proxy: Gateway, query: str, option: dict[str, Any], status: int, message: str
    ) -> None:
        answer = await get(proxy, f"?{query}")
        assert answer.status == status
        code, text = await (await proxy.connect("/flows")).refusal("getQueues", option)
        assert answer.error["code"] == code
        assert message in text
        assert message in answer.error["message"]


class TestRights:
    """Every key of some permissions, for queues of some patterns."""

    @pytest.fixture
    async def proxy(self, valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
        keys = [
            entry(f"key-{number}", *permissions, queues=queues)
            for number, (permissions, queues) in enumerate(self.keys(), 2)
        ]
        path = write_keys(tmp_path / "keys.toml", *keys)
        async with Gateway(valkey.url, prefix=prefix, keys_file=path) as gateway:
            yield gateway

    @staticmethod
    def keys() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        sets = [subset for size in range(3) for subset in combinations(PATTERNS, size)]
        permissions: list[tuple[str, ...]] = [(), *((permission,) for permission in Permission), tuple(Permission)]
        return [(each, queues) for each in permissions for queues in sets]

    async def test_a_key_sees_the_queues_that_it_is_for_if_it_may_observe(
        self, proxy: Gateway, redis: Redis, prefix: str
    ) -> None:
        await make(redis, prefix, *NAMES)
        async with await RawClient.connect(proxy.port) as client:
            for number, (permissions, patterns) in enumerate(self.keys(), 2):
                seen = {name for pattern in patterns for name in PATTERNS[pattern]}
                for target in ("/queues", "/queues?counts=1&limit=2", "/flows/getQueues"):
                    answer = await client.fetch("GET", target, f"Authorization: Bearer key-{number}")
                    if Permission.OBSERVE in permissions:
                        assert names(json.loads(answer.body)["ok"]) == seen, (permissions, patterns)
                    else:
                        assert (answer.status, answer.error["code"]) == (403, "FORBIDDEN")
        assert names(json.loads((await get(proxy)).body)["ok"]) == set(NAMES)

    async def test_nobody_sees_them_without_a_key(self, proxy: Gateway) -> None:
        for key in ("", "wrong"):
            assert (await get(proxy, key=key)).error["code"] == "UNAUTHORIZED"
