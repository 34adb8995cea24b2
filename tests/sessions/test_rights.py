"""Every function, kind of connection and way to another queue, tried with keys of one permission each."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.broker.functions import SUBSCRIBING, TABLE
from bullmq_proxy.gateway.broker.functions.table import Function, FunctionTable
from tests.sessions.peer import SOON, Gateway, Peer, Refused
from tests.support.commands import executed
from tests.support.examples import example_arguments
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

OWN, SISTER, OTHER = "mails-1", "mails-2", "orders"
"""Queues: two that the keys are for, and one that they are not for."""

PREFIXES = ("/queue", "/queues", "/ws/queues")
KINDS = {"": None, "/process/1": Permission.CONSUME, "/events": Permission.OBSERVE}
"""The ends of the paths, and the permission that each kind of connection needs."""

OF_ALL = {"getQueues", "drainConnection", "closeConnection", "renew", "whoami"}
"""Functions of flows that leave out what the key is not for, or are of no queue."""

permissions = pytest.mark.parametrize("permission", list(Permission))


def flows_table() -> FunctionTable:
    """The functions of `/flows`, if there is such a path."""
    name = "bullmq_proxy.gateway.broker.functions.flows"
    if importlib.util.find_spec(name) is None:
        return FunctionTable()
    table: FunctionTable = importlib.import_module(name).FLOWS
    return table


FLOWS = flows_table()


def flow_arguments(function: Function, queue: str) -> list[Any]:
    """Arguments of a function of `/flows` that name a queue."""
    tree = {"name": "root", "queueName": OWN, "children": [{"name": "child", "queueName": queue}]}
    known: dict[str, list[Any]] = {
        "add": [tree],
        "addBulk": [[tree]],
        "getFlow": [{"queueName": queue, "id": "1"}],
        "getConnections": [{"queue": queue}],
        "getHistory": [{"queue": queue}],
        "getScale": [{"queue": queue}],
    }
    return known.get(function.name) or example_arguments(function)


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with one key for each permission, for `mails-*` alone, and jobs in all queues."""
    keys = [entry(permission, permission, queues=["mails-*"]) for permission in Permission]
    keys.append(entry("clerk", "produce", "manage", queues=["mails-*"]))
    path = write_keys(
        tmp_path / "keys.toml", *keys, entry("nothing", queues=["*"]), entry("nowhere", *Permission, queues=[])
    )
    async with Gateway(valkey.url, prefix=prefix, keys_file=path) as gateway:
        for name in (OWN, SISTER, OTHER):
            queue = await gateway.queue(name)
            for number in range(3):
                await queue.call("add", "job", {"number": number})
            await queue.call("add", "later", {}, {"delay": 3_600_000})
            await queue.close()
        yield gateway


@pytest.fixture
async def redis(valkey: ValkeyProcess) -> AsyncIterator[Redis]:
    """To look behind the gateway's back; texts are bytes."""
    async with Redis.from_url(valkey.url) as client:
        yield client


async def keyspace(redis: Redis, prefix: str, queue: str) -> dict[bytes, bytes | None]:
    """All that Redis has of a queue."""
    names = [name async for name in redis.scan_iter(match=f"{prefix}:{queue}:*")]
    return {name: await redis.dump(name) for name in sorted(names)}


async def status(gateway: Gateway, path: str, **query: Any) -> tuple[int, dict[str, str]]:
    """The HTTP status of a handshake, and the error in its body."""
    try:
        async with connect(gateway.url(path, query), compression=None, close_timeout=1, proxy=None):
            return 101, {}
    except InvalidStatus as refused:
        error: dict[str, str] = json.loads(refused.response.body or b"{}")["err"]
        return refused.response.status_code, error


async def outcomes(peer: Peer, calls: list[tuple[Function, list[Any]]], *, all_at_once: bool = False) -> dict[str, str]:
    """Make calls and return what became of each: `ok` or an error's code.

    What may wait for as long as it likes need not be answered: then it was not refused. `all_at_once` expects an answer
    to these, too.
    """
    ids = {function.name: (function, await peer.request(function.name, *args)) for function, args in calls}
    waiting = {name: id for name, (function, id) in ids.items() if function.waits and not all_at_once}
    found = dict.fromkeys(waiting, "ok")
    names = {id: name for name, (_, id) in ids.items()}
    missing = names.keys() - waiting.values()
    while missing:
        message = await peer.message(SOON)
        if message["id"] in names:
            err = message["data"].get("err")
            found[names[message["id"]]] = err["code"] if err else "ok"
            missing.discard(message["id"])
    return found


def test_there_are_arguments_for_every_function() -> None:
    for function in [*TABLE, *FLOWS]:
        args = flow_arguments(function, OWN) if function in list(FLOWS) else example_arguments(function)
        function.bind([Raw(msgspec.json.encode(argument)) for argument in args])


class TestCalls:
    @permissions
    async def test_only_functions_of_the_keys_permission_can_be_called(
        self, proxy: Gateway, redis: Redis, prefix: str, permission: Permission
    ) -> None:
        before = {queue: await keyspace(redis, prefix, queue) for queue in (OWN, SISTER, OTHER)}
        paths = [f"{start}/{OWN}" for start in PREFIXES]
        paths += [f"{start}/{OWN}/process/1" for start in PREFIXES if permission is Permission.CONSUME]
        for path in paths:
            peer = await proxy.connect(path, token=permission)
            if path.endswith("/1"):
                await peer.pause()
                peer.kept()
            denied = [(row, example_arguments(row)) for row in TABLE if permission not in row.permissions]
            assert set((await outcomes(peer, denied, all_at_once=True)).values()) == {"FORBIDDEN"}
        if permission is not Permission.CONSUME:  # its workers took jobs
            assert {queue: await keyspace(redis, prefix, queue) for queue in before} == before
        for path in paths:
            peer = await proxy.connect(path, token=permission)
            rows = [row for row in TABLE if permission in row.permissions]
            allowed = [
                (row, example_arguments(row)) for row in rows if not row.held or row.permission is not permission
            ]
            assert allowed or permission is Permission.TUNE  # which is for options
            assert "FORBIDDEN" not in (await outcomes(peer, allowed)).values()
        for queue in (SISTER, OTHER):
            assert await keyspace(redis, prefix, queue) == before[queue]

    async def test_the_message_says_which_permission_is_missing(self, proxy: Gateway) -> None:
        peer = await proxy.connect(f"/queue/{OWN}", token="produce")
        assert await peer.refusal("pause") == (
            "FORBIDDEN",
            "The key produce may not call pause: it needs the permission manage",
        )

    async def test_a_watcher_can_call_nothing_whatever_its_key(self, proxy: Gateway) -> None:
        peer = await proxy.connect(f"/queue/{OWN}/events", token="observe")
        calls = [(row, example_arguments(row)) for row in TABLE if row.name not in SUBSCRIBING]
        assert set((await outcomes(peer, calls, all_at_once=True)).values()) == {"UNKNOWN_FUNCTION"}

    async def test_keys_of_the_list_may_still_do_everything(self, proxy: Gateway) -> None:
        peer = await proxy.queue(OTHER)
        calls = [(row, example_arguments(row)) for row in TABLE]
        assert "FORBIDDEN" not in (await outcomes(peer, calls)).values()


class TestHandshake:
    @permissions
    async def test_each_kind_of_connection_needs_its_permission(self, proxy: Gateway, permission: Permission) -> None:
        for start in PREFIXES:
            for end, needed in KINDS.items():
                answer, error = await status(proxy, f"{start}/{OWN}{end}", token=permission)
                if needed in (None, permission):
                    assert answer == 101
                else:
                    assert (answer, error["code"]) == (403, "FORBIDDEN")
                    assert f"it needs the permission {needed}" in error["message"]

    @permissions
    async def test_no_path_leads_to_another_queue(
        self, proxy: Gateway, redis: Redis, prefix: str, permission: Permission
    ) -> None:
        before = await keyspace(redis, prefix, OTHER)
        names = [OTHER, OTHER.upper(), "order%73", f"x{OWN}", "mails", "MAILS-1", "%6dails", "mails%20-1", "mails%0A-1"]
        for start in PREFIXES:
            for end in KINDS:
                for name in names:
                    answer, error = await status(proxy, f"{start}/{name}{end}", token=permission)
                    assert (answer, error["code"]) == (403, "FORBIDDEN"), name
        assert await keyspace(redis, prefix, OTHER) == before

    async def test_what_is_not_granted_is_denied(self, proxy: Gateway) -> None:
        for end in KINDS:
            assert (await status(proxy, f"/queue/{OWN}{end}", token="nothing"))[0] == 403
            assert (await status(proxy, f"/queue/{OWN}{end}", token="nowhere"))[0] == 403

    async def test_a_refusal_asks_nothing_of_redis(self, proxy: Gateway, valkey: ValkeyProcess, prefix: str) -> None:
        with SyncRedis.from_url(valkey.url) as client, executed(client, prefix) as commands:
            for end in KINDS:
                await status(proxy, f"/queue/{OTHER}{end}", token="produce")
                await status(proxy, f"/queue/{OWN}{end}", token="nothing")
        assert commands == []


class TestParents:
    @pytest.mark.parametrize("name", [f"{{prefix}}:{OTHER}", f"other:{OWN}", "{prefix}:mails", f"x{{prefix}}:{OWN}"])
    async def test_a_job_cannot_have_a_parent_in_another_queue(
        self, proxy: Gateway, redis: Redis, prefix: str, name: str
    ) -> None:
        before = {queue: await keyspace(redis, prefix, queue) for queue in (OWN, OTHER)}
        peer = await proxy.connect(f"/queue/{OWN}", token="clerk")
        opts = {"parent": {"id": "1", "queue": name.format(prefix=prefix)}}
        code, message = await peer.refusal("add", "child", {}, opts)
        assert (code, "The key clerk is" in message) == ("FORBIDDEN", True)
        jobs = [{"name": "first"}, {"name": "child", "opts": opts}]
        assert (await peer.refusal("addBulk", jobs))[0] == "FORBIDDEN"
        assert {queue: await keyspace(redis, prefix, queue) for queue in before} == before

    async def test_it_can_have_one_in_a_queue_that_the_key_is_for(self, proxy: Gateway, prefix: str) -> None:
        peer = await proxy.connect(f"/queue/{OWN}", token="clerk")
        parent = {"id": "1", "queue": f"{prefix}:{SISTER}"}
        assert (await peer.call("add", "child", {}, {"parent": parent}))["name"] == "child"


class TestFlows:
    @permissions
    async def test_functions_and_queues_are_checked(
        self, proxy: Gateway, redis: Redis, prefix: str, permission: Permission
    ) -> None:
        before = await keyspace(redis, prefix, OTHER)
        for row in FLOWS:
            peer = await proxy.connect("/flows", token=permission)
            is_of_all = row.name in OF_ALL
            may = permission in row.permissions
            for queue, is_allowed in ((OWN, may), (OTHER, may and is_of_all)):
                found = await outcomes(peer, [(row, flow_arguments(row, queue))])
                assert (found[row.name] != "FORBIDDEN") == is_allowed, (row.name, queue, found)
        assert await keyspace(redis, prefix, OTHER) == before

    async def test_a_key_without_permissions_is_not_let_in(self, proxy: Gateway) -> None:
        answer, _ = await status(proxy, "/flows", token="nothing")
        assert answer == (403 if list(FLOWS) else 404)


async def test_an_answer_that_waits_is_a_refusal_at_once_without_the_permission(proxy: Gateway) -> None:
    peer = await proxy.connect(f"/queue/{OWN}", token="observe")
    for row in TABLE:
        if row.waits and row.permission is not Permission.OBSERVE:
            with pytest.raises(Refused, match="it needs the permission"):
                await peer.call(row.name, *example_arguments(row))
