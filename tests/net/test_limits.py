"""Limits of a key over the whole gateway: the board, the bucket, and what clients see of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.access.grants import Grant, Permission
from bullmq_proxy.gateway.access.keys_file import Key, digest
from bullmq_proxy.gateway.access.usage import Usage
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.shared_memory import COLUMNS, SharedMemory
from bullmq_proxy.gateway.values.token_bucket import TokenBucket
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint
from tests.net.conftest import MakeGateway
from tests.net.support import TIMEOUT, RawClient, upgrade
from tests.support.keys import entry, write_keys


class TestBoard:
    def test_a_row_counts_its_own_and_sees_all(self) -> None:
        board = SharedMemory(3)
        rows = [board.row(slot) for slot in range(3)]
        for row, count in zip(rows, (1, 2, 4), strict=True):
            row.add(7, count)
        assert {row.total(7) for row in rows} == {7}
        rows[1].add(7, -1)
        assert rows[0].total(7) == 6

    @pytest.mark.parametrize("column", [0, COLUMNS - 1])
    def test_columns_do_not_touch(self, column: int) -> None:
        board = SharedMemory(2)
        board.row(0).add(column, 5)
        assert sum(board.row(0).total(each) for each in range(COLUMNS)) == 5

    def test_the_row_of_a_dead_shard_is_cleared_and_no_other(self) -> None:
        board = SharedMemory(3)
        for slot in range(3):
            board.row(slot).add(0, 2)
            board.row(slot).add(COLUMNS - 1, 2)
        board.row(1).spend(0)
        board.clear(1)
        assert [board.row(2).total(column) for column in (0, COLUMNS - 1)] == [4, 4]
        board.clear(0)
        assert board.row(2).total(0) == 2
        assert board.row(2).spent(0) == 1, "what was spent stays so"


class Purse:
    """A bucket, with what is taken out of it counted as shards count it."""

    def __init__(self) -> None:
        self.spent = 0
        self.bucket = TokenBucket()

    def take(self, rate: float, now: float) -> bool:
        taken = self.bucket.take(rate, now, spent=self.spent)
        self.spent += taken
        return taken


class TestBucket:
    def test_it_holds_the_calls_of_one_second(self) -> None:
        purse = Purse()
        assert [purse.take(3, 100.0) for _ in range(5)] == [True, True, True, False, False]

    def test_time_fills_it_again_and_never_over(self) -> None:
        purse = Purse()
        while purse.take(10, 0.0):
            pass
        assert not purse.take(10, 0.09)
        assert purse.take(10, 0.21)
        assert purse.take(10, 0.21)
        assert not purse.take(10, 0.21)
        assert sum(purse.take(10, 1000.0) for _ in range(50)) == 10

    def test_less_than_one_per_second_still_lets_some_through(self) -> None:
        purse = Purse()
        assert sum(purse.take(0.5, second / 4) for second in range(4 * 60)) == 30

    def test_the_rate_can_change_from_call_to_call(self) -> None:
        purse = Purse()
        assert sum(purse.take(10, 0.0) for _ in range(20)) == 10
        assert sum(purse.take(2, 1.0) for _ in range(20)) == 2
        assert sum(purse.take(10, 1.5) for _ in range(20)) == 5

    def test_what_others_spend_is_gone(self) -> None:
        bucket = TokenBucket()
        assert bucket.take(10, 0.0, spent=5)
        assert not bucket.take(10, 0.0, spent=6 + 9)
        assert bucket.take(10, 0.1, spent=15)
        assert not bucket.take(10, 0.2, spent=1000), "however much it was"
        assert bucket.take(10, 1.4, spent=1000), "it is forgotten after some time"


class Visitor:
    """A connection as an account knows it."""

    address = "127.0.0.1"

    def __init__(self) -> None:
        self.closed: list[str] = []

    def close_unauthorized(self, reason: str, code: CloseCode = CloseCode.INVALID_AUTHENTICATION) -> None:
        self.closed.append(reason)

    def tell_expiry(self, left: float) -> None:
        """Never happens: it has no token."""


def limited(**limits: Any) -> Key:
    grant = Grant("shop", frozenset(Permission), ("*",))
    return Key(name="shop", digests=(digest("shop"),), grant=grant, column=3, **limits)


def enter(account: Account, count: int) -> list[Visitor]:
    visitors = [Visitor() for _ in range(count)]
    for visitor in visitors:
        account.enter(visitor, SessionEndpoint.QUEUE, "q", ())
    return visitors


class TestShares:
    """Two shards, without a process for each."""

    def test_connections_are_counted_over_all_shards(self) -> None:
        board = SharedMemory(2)
        one, other = (Account(limited(connections=3), Usage(board.row(slot))) for slot in range(2))
        enter(one, 2)
        [last] = enter(other, 1)
        for account in (one, other):
            with pytest.raises(GatewayError, match="connections = 3"):
                enter(account, 1)
        other.leave(last)
        enter(one, 1)
        assert board.row(0).total(3) == 3

    def test_one_that_was_refused_leaves_nothing_behind(self) -> None:
        board = SharedMemory(1)
        account = Account(limited(connections=1), Usage(board.row(0)))
        enter(account, 1)
        refused = Visitor()
        with pytest.raises(GatewayError):
            account.enter(refused, SessionEndpoint.QUEUE, "q", ())
        account.leave(refused)
        assert board.row(0).total(3) == 1

    def test_calls_are_counted_over_all_shards(self) -> None:
        board = SharedMemory(3)
        shards = [Account(limited(messages_per_second=1000), Usage(board.row(slot))) for slot in range(3)]
        for shard in shards:
            shard.tick(0.0)  # as each of them does every second

        def burst(account: Account) -> int:
            for count in range(2000):
                try:
                    account.rights.check_rate()
                except GatewayError:
                    return count
            return 2000

        counts = [burst(shard) for shard in shards]
        assert 1000 <= counts[0] < 1500
        assert max(counts[1:]) < 500, "only what has come back while it was counted"

    def test_a_lower_limit_ends_no_open_connection(self) -> None:
        account = Account(limited(connections=3), Usage(SharedMemory(1).row(0)))
        visitors = enter(account, 3)
        account.change(limited(connections=1))
        assert not any(visitor.closed for visitor in visitors)
        for visitor in visitors[:2]:
            account.leave(visitor)
        with pytest.raises(GatewayError):
            enter(account, 1)


class TestClients:
    @pytest.fixture
    async def limited_gateway(self, make_gateway: MakeGateway, tmp_path: Path) -> Proxy:
        everything = [permission.value for permission in Permission]
        path = write_keys(
            tmp_path / "keys.toml",
            entry("few", *everything, connections=2),
            entry("slow", *everything, messages_per_second=3),
            entry("free", *everything),
        )
        return await make_gateway(keys_file=path)

    async def test_one_connection_too_many_gets_429_until_another_one_closes(self, limited_gateway: Proxy) -> None:
        port, key = limited_gateway.port, "Authorization: Bearer few"
        first = await RawClient.open(port, "/queue/q", key)
        async with await RawClient.open(port, "/queue/q/events", key):
            answer = await upgrade(port, "/queue/q", key)
            assert (answer.status, answer.error["code"]) == (429, "TOO_MANY_REQUESTS")
            assert answer.headers["retry-after"] == "1"
            assert (await upgrade(port, "/queue/q", "Authorization: Bearer free")).status == 101
            await first.close()
            assert await upgrade_when_free(port, key) == 101

    async def test_what_is_refused_for_other_reasons_is_not_counted(self, limited_gateway: Proxy) -> None:
        port, key = limited_gateway.port, "Authorization: Bearer few"
        for _ in range(3):
            assert (await upgrade(port, "/queue/q?nonsense=1", key)).status == 400
            assert (await upgrade(port, "/queue/q", key, "Origin: http://elsewhere")).status == 403
        async with (
            await RawClient.open(port, "/queue/q", key),
            await RawClient.open(port, "/queue/q", key),
        ):
            assert (await upgrade(port, "/queue/q", key)).status == 429

    async def test_a_handshake_that_fails_late_gives_its_place_back(self, limited_gateway: Proxy) -> None:
        port, key = limited_gateway.port, "Authorization: Bearer few"
        for _ in range(3):
            assert (await upgrade(port, "/queue/q", key, "Sec-WebSocket-Key: broken")).status == 400
        assert await upgrade_when_free(port, key) == 101

    async def test_calls_beyond_the_rate_are_refused_and_not_made(self, limited_gateway: Proxy) -> None:
        async with await RawClient.open(limited_gateway.port, "/queue/q", "Authorization: Bearer slow") as client:
            replies = [await client.ask("add", "job") for _ in range(5)]
            refused = [reply["err"] for reply in replies if "err" in reply]
            assert refused
            assert {error["code"] for error in refused} == {"TOO_MANY_REQUESTS"}
            assert "key slow" in refused[0]["message"]
        async with await RawClient.open(limited_gateway.port, "/queue/q", "Authorization: Bearer free") as client:
            assert (await client.ask("count"))["ok"] == 5 - len(refused)

    async def test_answers_to_jobs_are_never_refused(self, limited_gateway: Proxy) -> None:
        port = limited_gateway.port
        async with await RawClient.open(port, "/queue/q", "Authorization: Bearer free") as producer:
            await producer.ask("addBulk", [{"name": "job"}] * 20)
            async with await RawClient.open(port, "/queue/q/process/20", "Authorization: Bearer slow") as worker:
                for message in await worker.messages(20):
                    worker.send(f'{{"id":{message["id"]},"data":{{"result":null}}}}')
                await until_completed(producer, 20)


async def upgrade_when_free(port: int, key: str) -> int:
    """Ask for a WebSocket until there is a place for it: a connection is gone a moment after its client left."""
    async with asyncio.timeout(TIMEOUT):
        while (answer := await upgrade(port, "/queue/q", key)).status == 429:
            pass
    return answer.status


async def until_completed(client: RawClient, count: int) -> None:
    """Wait until so many jobs are completed."""
    async with asyncio.timeout(TIMEOUT):
        while (await client.ask("getJobCounts", "completed"))["ok"]["completed"] < count:
            pass
