"""What belongs to others in a queue, and is out of reach for a key that lacks the right to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.sessions.peer import Gateway, Peer
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

PRODUCER, WORKER, RIVAL, CLERK = "producer", "worker", "rival", "clerk"
"""Keys of the queue `q`: to produce, twice to consume, and to produce and manage."""


@pytest.fixture
def keys(tmp_path: Path) -> str:
    rights = {PRODUCER: ["produce"], WORKER: ["consume"], RIVAL: ["consume"], CLERK: ["produce", "manage"]}
    return write_keys(tmp_path / "keys.toml", *(entry(name, *rights[name], queues=["q"]) for name in rights))


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str, keys: str) -> AsyncIterator[Gateway]:
    async with Gateway(valkey.url, prefix=prefix, keys_file=keys) as gateway:
        yield gateway


@pytest.fixture
async def owner(proxy: Gateway) -> Peer:
    """One who may do everything."""
    return await proxy.queue()


# Locks

MOVES: dict[str, list[Any]] = {
    "moveJobToCompleted": ["stolen"],
    "moveJobToFailed": [{"message": "stolen", "unrecoverable": True}],
    "moveJobToDelayed": [4_102_444_800_000],
    "moveJobToWait": [],
}


async def test_a_workers_token_moves_its_job_for_connections_with_its_key_alone(
    proxy: Gateway, owner: Peer, valkey: ValkeyProcess, prefix: str, keys: str
) -> None:
    worker = await proxy.worker(token=WORKER)
    await owner.call("add", "work")
    job = await worker.job()
    token = job.shown["token"]
    async with Gateway(valkey.url, prefix=prefix, keys_file=keys) as other:  # it shares nothing but the keys
        for gateway in (proxy, other):
            for key in (RIVAL, "key-1"):
                rival = await gateway.connect("/queue/q", token=key)
                for fn, args in MOVES.items():
                    refused = await rival.refusal(fn, job.id, *args, token)
                    assert refused == await rival.refusal(fn, job.id, *args, "wrong")
                    assert refused[0] == "NOT_LOCKED"
                assert await rival.call("extendJobLock", job.id, token, 1) == 0
        again = await other.connect("/queue/q", token=WORKER)
        assert await again.call("extendJobLock", job.id, token, 30_000) == 1
        assert await again.call("moveJobToCompleted", job.id, "done", token) == []
    assert (await owner.call("getJob", job.id))["returnvalue"] == "done"


async def test_nothing_of_a_token_can_be_foreseen_from_another(proxy: Gateway, owner: Peer, redis: Redis) -> None:
    workers = [await proxy.worker(token=WORKER) for _ in range(2)]
    await owner.call("addBulk", [{"name": "work"}] * 2)
    tokens = [(await worker.job()).shown["token"].split(":") for worker in workers]
    run, slot, incarnation, key, _, _ = tokens[0]
    assert [token[:4] for token in tokens] == [[run, slot, incarnation, key]] * 2
    assert len({token[4] for token in tokens}) == 2
    assert {len(token[4]) for token in tokens} == {22}
