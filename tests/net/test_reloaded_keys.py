"""Keys that change while their clients are connected: read again, or expired."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.access.grants import Grant, Permission
from bullmq_proxy.gateway.access.keys_file import Key, digest
from bullmq_proxy.gateway.net.listener import Listener
from bullmq_proxy.gateway.sessions.budget import Budget
from bullmq_proxy.gateway.wire.closing import CloseCode
from tests.net.conftest import MakeGateway
from tests.net.support import RawClient, admission, call, handshake, upgrade
from tests.net.test_lifetime import House, Probe, wait_in_prepare
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

ALL = tuple(permission.value for permission in Permission)


class Keys:
    """A gateway's keys file, which a test changes."""

    def __init__(self, path: Path, gateway: Proxy, opened: AsyncExitStack) -> None:
        self.path = path
        self.gateway = gateway
        self._opened = opened

    def become(self, *entries: str) -> None:
        """Put these keys in force."""
        write_keys(self.path, *entries)
        self.gateway.reload_keys()

    async def open(self, target: str, key: str = "shop") -> RawClient:
        client = await RawClient.open(self.gateway.port, target, f"Authorization: Bearer {key}")
        return await self._opened.enter_async_context(client)

    async def status(self, target: str, key: str = "shop") -> int:
        return (await upgrade(self.gateway.port, target, f"Authorization: Bearer {key}")).status


@pytest_asyncio.fixture
async def keys(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Keys]:
    """A keys file with the key `shop`, which may do everything, and a gateway that uses it."""
    path = tmp_path / "keys.toml"
    gateway = await make_gateway(keys_file=write_keys(path, entry("shop", *ALL)))
    async with AsyncExitStack() as opened:
        yield Keys(path, gateway, opened)


class TestConnections:
    @pytest.mark.parametrize("target", ["/queue/q", "/queue/q/process/1", "/queue/q/events"])
    async def test_those_of_a_removed_key_are_closed(self, keys: Keys, target: str) -> None:
        client = await keys.open(target)
        keys.become(entry("another", *ALL))
        assert await client.closed() == (4000, "the key is not valid any more")
        assert await keys.status(target) == 401
        assert await keys.status(target, "another") == 101

    async def test_those_of_a_key_with_another_secret_are_closed(self, keys: Keys) -> None:
        client = await keys.open("/queue/q")
        keys.become(entry("shop", *ALL, secret="rotated"))
        assert (await client.closed())[0] == 4000
        assert await keys.status("/queue/q") == 401
        assert await keys.status("/queue/q", "rotated") == 101

    async def test_a_second_secret_takes_over_without_a_gap(self, keys: Keys) -> None:
        old = await keys.open("/queue/q")
        both = '["sha256:{}", "sha256:{}"]'.format(digest("next").hex(), digest("shop").hex())
        keys.become(entry("shop", *ALL, hash=both))
        new = await keys.open("/queue/q", "next")
        assert "ok" in await old.ask("count")
        keys.become(entry("shop", *ALL, secret="next"))
        assert await old.closed() == (4000, "the key is not valid any more")
        assert "ok" in await new.ask("count")
        assert await keys.status("/queue/q") == 401
        await new.close()

    async def test_the_secrets_of_a_key_share_its_limits(self, keys: Keys) -> None:
        both = '["sha256:{}", "sha256:{}"]'.format(digest("next").hex(), digest("shop").hex())
        keys.become(entry("shop", *ALL, hash=both, connections=1))
        await keys.open("/queue/q", "next")
        assert await keys.status("/queue/q") == 429

    async def test_a_key_is_used_from_its_addresses_alone(self, keys: Keys) -> None:
        keys.become(entry("shop", *ALL, addresses='["127.0.0.0/8", "10.0.0.0/8"]'))
        client = await keys.open("/queue/q")
        keys.become(entry("shop", *ALL, addresses='["10.0.0.0/8"]'))
        assert await client.closed() == (4000, "The key shop may not be used from this address")
        assert await keys.status("/queue/q") == 403

    async def test_a_secret_that_moved_to_another_name_is_another_key(self, keys: Keys) -> None:
        client = await keys.open("/queue/q")
        keys.become(entry("store", *ALL, secret="shop"))
        assert (await client.closed())[0] == 4000
        assert await keys.status("/queue/q") == 101

    async def test_those_of_other_keys_stay(self, keys: Keys) -> None:
        keys.become(entry("shop", *ALL), entry("another", *ALL))
        clients = [await keys.open("/queue/q"), await keys.open("/queue/q", "key-1")]
        keys.become(entry("shop", *ALL))
        for client in clients:
            assert "ok" in await client.ask("count")
            await client.close()

    @pytest.mark.parametrize(
        ("target", "changed", "reason"),
        [
            ("/queue/q", entry("shop", *ALL, queues=["other"]), "The key shop is not for the queue q"),
            ("/queue/q", entry("shop"), "The key shop may not call anything: it has no permissions"),
            (
                "/queue/q/process/1",
                entry("shop", "produce", "observe", "manage"),
                "The key shop may not process jobs: it needs the permission consume",
            ),
            (
                "/queue/q/events",
                entry("shop", "produce", "consume", "manage"),
                "The key shop may not watch events: it needs the permission observe",
            ),
            ("/queue/q", entry("shop", *ALL, expires="2020-01-01"), "The key shop has expired"),
        ],
    )
    async def test_those_that_the_key_is_not_for_any_more_are_closed(
        self, keys: Keys, target: str, changed: str, reason: str
    ) -> None:
        client = await keys.open(target)
        keys.become(changed)
        assert await client.closed() == (4000, reason)

    async def test_those_that_it_is_still_for_have_the_new_rights_at_once(self, keys: Keys) -> None:
        async with await keys.open("/queue/q") as client:
            assert "ok" in await client.ask("pause")
            keys.become(entry("shop", "observe"))
            assert (await client.ask("pause"))["err"]["code"] == "FORBIDDEN"
            assert "ok" in await client.ask("count")
            keys.become(entry("shop", "observe", "manage"))
            assert "ok" in await client.ask("resume")

    async def test_new_limits_count_what_is_open_already(self, keys: Keys) -> None:
        async with await keys.open("/queue/q"), await keys.open("/queue/q"):
            keys.become(entry("shop", *ALL, connections=3))
            async with await keys.open("/queue/q") as third:
                assert await keys.status("/queue/q") == 429
                keys.become(entry("shop", *ALL, messages_per_second=0.001))
                found = [await third.ask("count") for _ in range(2)]
                assert [reply.get("err", {}).get("code") for reply in found] == [None, "TOO_MANY_REQUESTS"]

    async def test_an_expired_key_is_closed_within_seconds(self, keys: Keys) -> None:
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=0.5)
        keys.become(entry("shop", *ALL, expires=soon.isoformat()))
        client = await keys.open("/queue/q")
        async with asyncio.timeout(4):
            assert await client.closed() == (4000, "the key has expired")
        answer = await upgrade(keys.gateway.port, "/queue/q", "Authorization: Bearer shop")
        assert (answer.status, answer.error["message"]) == (401, "The key shop has expired")


class TestWorkers:
    async def test_jobs_go_back_and_nothing_is_held_against_them(
        self, keys: Keys, valkey: ValkeyProcess, prefix: str
    ) -> None:
        async with await keys.open("/queue/q", "key-1") as producer:
            await producer.ask("add", "job")
            worker = await keys.open("/queue/q/process/1")
            job = await worker.message()
            worker.send(f'{{"id":{job["id"]},"data":{{"type":"ack"}}}}')
            keys.become()
            assert (await worker.message())["data"] == {"type": "drain", "deadline": 0}
            assert (await worker.closed())[0] == 4000
            async with Redis.from_url(valkey.url, decode_responses=True) as redis:
                async with asyncio.timeout(5):
                    while await redis.lrange(f"{prefix}:q:wait", 0, -1) != ["1"]:
                        pass
                stored = await redis.hgetall(f"{prefix}:q:1")
            assert (stored.get("stc", "0"), stored.get("atm", "0")) == ("0", "0")

    async def test_what_it_answers_afterwards_does_not_count(self, keys: Keys) -> None:
        async with await keys.open("/queue/q", "key-1") as producer:
            await producer.ask("add", "job")
            worker = await keys.open("/queue/q/process/1")
            job = await worker.message()
            keys.become()
            worker.send(f'{{"id":{job["id"]},"data":{{"result":"stolen"}}}}')
            await worker.closed()
            async with asyncio.timeout(5):
                while (await producer.ask("getJobState", "1"))["ok"] != "waiting":
                    pass

    async def test_no_new_jobs_come_while_it_is_closed(self, keys: Keys) -> None:
        async with await keys.open("/queue/q", "key-1") as producer:
            worker = await keys.open("/queue/q/process/5")
            keys.become()
            await producer.ask("addBulk", [{"name": "job"}] * 5)
            assert (await producer.ask("getJobCounts", "active", "waiting"))["ok"] == {"active": 0, "waiting": 5}
            assert (await worker.closed())[0] == 4000


class TestFile:
    async def test_one_that_cannot_be_used_changes_nothing(self, keys: Keys) -> None:
        async with await keys.open("/queue/q") as client:
            with pytest.raises(ValueError, match="key shop: hash: is missing"):
                keys.become("[keys.shop]\n")
            assert "ok" in await client.ask("count")
            assert await keys.status("/queue/q") == 101

    async def test_without_one_there_is_nothing_to_read_again(self, gateway: Proxy) -> None:
        with pytest.raises(ValueError, match="there is no keys_file"):
            gateway.reload_keys()

    async def test_an_empty_one_lets_nobody_in(self, make_gateway: MakeGateway, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        gateway = await make_gateway(keys=[], keys_file=write_keys(path, entry("shop", *ALL)))
        write_keys(path)
        gateway.reload_keys()
        for headers in ("Authorization:",), ("Authorization: Bearer shop",), ("Authorization: Bearer ",):
            assert (await upgrade(gateway.port, "/queue/q", *headers)).status == 401


class TestHandshake:
    """The keys change between the two ends of a handshake."""

    @pytest_asyncio.fixture
    async def house(self) -> AsyncIterator[House]:
        """A listener that knows the key `key-1`."""
        house = House()
        grant = Grant("shop", frozenset({Permission.PRODUCE}), ("*",))
        keys = [Key(name="shop", digests=(digest("key-1"),), grant=grant)]
        house.listener = Listener(admission(keys), Budget(), house._open, house._events, house._calls, house._page)
        await house.listener.start(("127.0.0.1", 0))
        yield house
        await house.listener.close(CloseCode.GOING_AWAY)

    async def test_a_key_that_is_removed_meanwhile_is_not_let_in(self, house: House) -> None:
        house.furnish = wait_in_prepare
        async with await RawClient.connect(house.port) as client:
            client.write(handshake("/queue/q"))
            probe = await house.first()
            house.listener.replace_keys([])
            probe.go_on.set()
            assert (await client.answer()).status == 401
        await house.ended()
        assert probe.story == ["prepare", "closed"]

    async def test_a_session_does_not_begin_on_a_connection_that_is_being_closed(self, house: House) -> None:
        def remove_key_when_prepared(probe: Probe) -> None:
            wait_in_prepare(probe)
            asyncio.get_running_loop().call_soon(probe.go_on.set)
            asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, house.listener.replace_keys, [])

        house.furnish = remove_key_when_prepared
        async with await RawClient.connect(house.port) as client:
            client.write(handshake("/queue/q"))
            probe = await house.first()
            await client.gone()
        await house.ended()
        assert probe.story in (
            ["prepare", "closed"],
            ["prepare", "drain", "closed"],
            ["prepare", "start", "drain", "closed"],
        )


class TestCalls:
    async def test_a_call_that_waits_ends_when_the_key_may_not_make_it_any_more(self, keys: Keys) -> None:
        client = await keys.open("/queue/q")
        client.send(call(1, "getNextJob", "token", {"block": 60_000}))
        client.send(
            call(2, "waitUntilJobFinished", (await client.ask("add", "job", {}, {"delay": 60_000}, id=3))["ok"]["id"])
        )
        assert (await client.ask("count", id=4))["ok"] == 1
        keys.become(entry("shop", "produce", "observe"))
        reply = await client.message()
        assert (reply["id"], reply["data"]["err"]["code"]) == (1, "FORBIDDEN")
        assert "it needs the permission consume" in reply["data"]["err"]["message"]
        await client.ask("add", "job", id=5)
        assert (await client.ask("getJobCounts", "active", "waiting", id=6))["ok"] == {"active": 0, "waiting": 1}

    async def test_calls_that_stand_in_line_are_not_made_either(self, keys: Keys) -> None:
        client = await keys.open("/queue/q")
        for id in range(8):
            client.send(call(id, "getNextJob", f"token-{id}"))
        for id in range(8, 16):
            client.send(call(id, "drain"))
        assert await client.message()
        keys.become(entry("shop", "observe"))
        codes = [(await client.message())["data"].get("err", {}).get("code") for _ in range(15)]
        assert codes[-1] in (None, "FORBIDDEN")
        assert (await client.ask("drain", id=20))["err"]["code"] == "FORBIDDEN"

    async def test_a_call_of_many_scripts_stops_between_two(self, keys: Keys) -> None:
        async with await keys.open("/queue/q", "key-1") as another:
            await another.ask("addBulk", [{"name": "job", "opts": {"delay": 60_000}}] * 5_000)
            client = await keys.open("/queue/q")
            client.send(call(1, "promoteJobs", {"count": 1}))
            async with asyncio.timeout(5):
                while not (await another.ask("getJobCounts", "waiting"))["ok"]["waiting"]:
                    pass
            keys.become(entry("shop", "observe"))
            message = "The key shop may not go on with promoteJobs: it needs the permission manage"
            assert await client.message() == {"id": 1, "data": {"err": {"code": "FORBIDDEN", "message": message}}}
            counts = (await another.ask("getJobCounts", "waiting", "delayed"))["ok"]
            assert min(counts.values()) > 0
