"""What belongs to others in a queue, and is out of reach for a key that lacks the right to it."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.exceptions import InvalidStatus

from tests.sessions.peer import Gateway, Peer
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

PRODUCER, WORKER, RIVAL = "producer", "worker", "rival"
CLERK, TUNER, FOREMAN, OTHER_FOREMAN = "clerk", "tuner", "foreman", "other-foreman"
RIGHTS = {
    PRODUCER: ["produce"],
    WORKER: ["consume"],
    RIVAL: ["consume"],
    CLERK: ["produce", "manage"],
    TUNER: ["produce", "consume", "tune"],
    FOREMAN: ["produce", "consume"],
    OTHER_FOREMAN: ["produce", "consume"],
}
"""Keys of the queue `q`."""


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return write_keys(tmp_path / "keys.toml", *(entry(name, *RIGHTS[name], queues=["q"]) for name in RIGHTS))


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


# Options of jobs

SWEEPING: list[Any] = [1, 5000, {"count": 1}, {"age": 0}, {"age": 3600, "count": 100}, {"age": 1, "limit": 5}]
HARMLESS: list[Any] = [True, False, 0, {"count": 0}, {"count": -1}, {}, {"age": 5, "count": 0}]
OPTION_SETS: list[dict[str, Any]] = [
    *({name: keep} for name in ("removeOnComplete", "removeOnFail") for keep in SWEEPING),
    *(
        {"deduplication": {"id": "once", "ttl": 60_000, mode: True}}
        for mode in ("extend", "replace", "reschedule", "keepLastIfActive")
    ),
]


@pytest.mark.parametrize("options", OPTION_SETS, ids=str)
async def test_options_that_act_on_others_jobs_need_tune_or_manage(proxy: Gateway, options: dict[str, Any]) -> None:
    producer = await proxy.connect("/queue/q", token=PRODUCER)
    flows = await proxy.connect("/flows", token=PRODUCER)
    name = next(iter(options))
    node = {"name": "work", "queueName": "q", "opts": options}
    defaults = {"queuesOptions": {"q": {"defaultJobOptions": options}}}
    for peer, fn, args, place in (
        (producer, "add", ["work", {}, options], "args[2]"),
        (producer, "addBulk", [[{"name": "fine"}, {"name": "work", "opts": options}]], "args[0][1].opts"),
        (flows, "add", [node], "args[0].opts"),
        (flows, "add", [{"name": "work", "queueName": "q"}, defaults], "args[0].opts"),
        (flows, "addBulk", [[{"name": "up", "queueName": "q"}, node]], "args[0][1].opts"),
    ):
        code, message = await peer.refusal(fn, *args)
        assert code == "FORBIDDEN"
        assert message.startswith(f"The key producer may not set `{place}.{name}`, which ")
        assert message.endswith(": it needs the permission tune or manage")
    for key in (CLERK, TUNER):
        assert await (await proxy.connect("/queue/q", token=key)).call("add", "work", {}, options)


@pytest.mark.parametrize("keep", HARMLESS, ids=str)
async def test_a_producer_may_say_what_becomes_of_its_own_job(proxy: Gateway, keep: Any) -> None:
    producer = await proxy.connect("/queue/q", token=PRODUCER)
    assert await producer.call("add", "work", {}, {"removeOnComplete": keep, "removeOnFail": keep})


async def test_the_options_of_each_job_of_a_flow_are_looked_at(proxy: Gateway) -> None:
    flows = await proxy.connect("/flows", token=PRODUCER)
    leaf = {"name": "leaf", "queueName": "q", "opts": {"removeOnFail": 1}}
    flow = {"name": "root", "queueName": "q", "children": [{"name": "branch", "queueName": "q", "children": [leaf]}]}
    code, message = await flows.refusal("add", flow)
    assert (code, "`args[0].children[0].children[0].opts.removeOnFail`" in message) == ("FORBIDDEN", True)


async def test_a_producer_may_throttle_by_deduplication(proxy: Gateway) -> None:
    producer = await proxy.connect("/queue/q", token=PRODUCER)
    first, second = [await producer.call("add", "w", {}, {"deduplication": {"id": "a", "ttl": 60_000}}) for _ in "12"]
    assert (second["id"], second["duplicate"]) == (first["id"], True)


async def test_a_producer_cannot_end_a_scheduler_or_rewrite_its_template(
    proxy: Gateway, owner: Peer, redis: Redis, prefix: str
) -> None:
    producer = await proxy.connect("/queue/q", token=PRODUCER)
    for scheduler in ("nightly", "a:5"):  # the second one's key looks like that of a job
        await owner.call("upsertJobScheduler", scheduler, {"every": 3_600_000}, {"data": {"is": "mine"}})
        before = await redis.hgetall(f"{prefix}:q:repeat:{scheduler}")
        following = f"repeat:{scheduler}:4102444800000"
        for id in (following, f"repeat:{scheduler}"):
            if id.count(":") == 2:
                expected = "The key producer may not set `args[2].jobId`, which is that of a job scheduler's job"
                code, message = await producer.refusal("add", "work", {}, {"jobId": id})
                assert (code, message.startswith(expected)) == ("FORBIDDEN", True)
            assert (await producer.refusal("addBulk", [{"name": "w", "opts": {"jobId": id}}]))[0] in REFUSALS
            assert (await producer.refusal("updateJobData", id, {"is": "theirs"}))[0] in REFUSALS
        rival = await proxy.connect("/queue/q", token=RIVAL)
        assert (await rival.refusal("updateJobData", "repeat:a:5", {}))[0] in (*REFUSALS, "NOT_FOUND")
        assert await redis.hgetall(f"{prefix}:q:repeat:{scheduler}") == before


REFUSALS = ("FORBIDDEN", "INVALID_ARGUMENTS")


# Options of workers


@pytest.mark.parametrize(
    "query",
    [
        {"limiter__max": 1, "limiter__duration": 86_400_000},
        {"removeOnComplete": 1},
        {"removeOnFail": '{"age":1}'},
        {"stalledInterval": 86_400_000},
        {"maxStalledCount": 0},
        {"metrics__maxDataPoints": 1},
    ],
    ids=str,
)
async def test_options_of_a_worker_that_act_on_others_jobs_need_tune_or_manage(
    proxy: Gateway, query: dict[str, Any]
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await proxy.worker(token=WORKER, **query)
    assert refused.value.response.status_code == 403
    error = json.loads(refused.value.response.body or b"")["err"]
    name = next(iter(query)).replace("__", ".")
    assert error["code"] == "FORBIDDEN"
    assert error["message"].startswith(f"The key worker may not set `?{name}`, which ")
    assert error["message"].endswith(": it needs the permission tune or manage")
    await proxy.worker(token=TUNER, **query)


async def test_options_of_a_worker_for_its_own_jobs_need_nothing_more(proxy: Gateway) -> None:
    defaults = {"stalledInterval": 30_000, "maxStalledCount": 3, "metrics__maxDataPoints": 0}
    query: dict[str, Any] = {
        "removeOnComplete": "true",
        "lockDuration": 60_000,
        "name": "w",
        "ackTimeout": 0,
        "confirm": 1,
    }
    await proxy.worker(token=WORKER, **{**query, **defaults})


async def test_a_worker_is_closed_when_its_key_loses_the_right_to_its_options(
    valkey: ValkeyProcess, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "keys.toml"
    write_keys(path, entry("w", "consume", "tune", queues=["q"]))
    async with Gateway(valkey.url, prefix=prefix, keys_file=str(path)) as gateway:
        plain, limited = await gateway.worker(token="w"), await gateway.worker(token="w", removeOnComplete=10)
        write_keys(path, entry("w", "consume", queues=["q"]))
        gateway.reload_keys()
        assert await limited.closed() == 4000
        await plain.pause()  # it is served


# Jobs in hand

ON_JOBS: dict[str, list[Any]] = {
    "updateJobData": [{"is": "theirs"}],
    "updateJobProgress": [99],
    "addJobLog": ["row", 1],
    "clearJobLogs": [],
}


async def test_a_consumer_writes_on_jobs_that_it_holds_and_no_others(
    proxy: Gateway, owner: Peer, redis: Redis, prefix: str
) -> None:
    worker = await proxy.worker(token=WORKER)
    await owner.call("add", "work", {"is": "mine"})
    job = await worker.job()
    await owner.call("add", "waits", {"is": "mine"})
    rival = await proxy.connect("/queue/q", token=RIVAL)
    for id in (job.id, "2"):
        await owner.call("addJobLog", id, "mine")
        await owner.call("addJobLog", id, "mine, too")
        before = await redis.hgetall(f"{prefix}:q:{id}")
        for fn, args in ON_JOBS.items():
            code, message = await rival.refusal(fn, id, *args)
            assert code == "FORBIDDEN"
            assert message.startswith(
                f"The key rival does not hold the job {id}, and may not call {fn} for it: it needs"
            )
        assert await redis.hgetall(f"{prefix}:q:{id}") == before
        assert await redis.llen(f"{prefix}:q:{id}:logs") == 2
    elsewhere = await proxy.connect("/queue/q", token=WORKER)
    clerk = await proxy.connect("/queue/q", token=CLERK)
    for peer, id in ((worker, job.id), (elsewhere, job.id), (clerk, job.id), (clerk, "2")):
        for fn, args in ON_JOBS.items():
            await peer.call(fn, id, *args)


async def test_a_missing_job_is_missing_and_not_forbidden(proxy: Gateway) -> None:
    rival = await proxy.connect("/queue/q", token=RIVAL)
    for fn in ("updateJobData", "updateJobProgress", "addJobLog"):
        assert (await rival.refusal(fn, "gone", *ON_JOBS[fn]))[0] == "NOT_FOUND"


@pytest.mark.parametrize("taken", ["by hand", "by a worker of another program"])
async def test_a_job_that_others_have_locked_is_written_on_with_its_token(
    proxy: Gateway, owner: Peer, redis: Redis, prefix: str, taken: str
) -> None:
    await owner.call("add", "work")
    holder, rival = [await proxy.connect("/queue/q", token=key) for key in (WORKER, RIVAL)]
    token = "a-token-of-mine"
    await holder.call("getNextJob", token)
    if taken != "by hand":
        token = str(uuid.uuid4()) + ":0"
        await redis.set(f"{prefix}:q:1:lock", token)
    before = await redis.hgetall(f"{prefix}:q:1")
    for fn, args in ON_JOBS.items():
        rest = [*args, None] if fn == "clearJobLogs" else args
        for guess in ([], [None], ["guessed"], [token[:-1]]):
            code, message = await rival.refusal(fn, "1", *rest, *guess)
            assert code == "FORBIDDEN"
            assert message.endswith("it needs the token of the job's lock, or the permission manage")
    assert await redis.hgetall(f"{prefix}:q:1") == before
    for fn, args in ON_JOBS.items():
        rest = [*args, None] if fn == "clearJobLogs" else args
        await holder.call(fn, "1", *rest, token)
    assert (await owner.call("getJob", "1"))["progress"] == 99


# Families


async def test_a_child_is_given_to_a_job_that_the_caller_holds_and_to_no_other(
    proxy: Gateway, owner: Peer, redis: Redis, prefix: str
) -> None:
    worker = await proxy.worker(token=FOREMAN)
    await owner.call("add", "work")
    job = await worker.job()
    await owner.call("add", "waits")
    flows = {key: await proxy.connect("/flows", token=key) for key in (PRODUCER, FOREMAN)}
    queues = {key: await proxy.connect("/queue/q", token=key) for key in (PRODUCER, FOREMAN, OTHER_FOREMAN)}
    node = {"name": "child", "queueName": "q"}
    for id in (job.id, "2"):
        opts = {"parent": {"id": id, "queue": f"{prefix}:q"}, "failParentOnFailure": True}
        refused = [(queues[PRODUCER], "it needs the permission consume or manage")]
        refused += [(queues[OTHER_FOREMAN], f"other-foreman does not hold the job {id}, and may not give it a child")]
        refused += [(queues[FOREMAN], "foreman does not hold the job 2")] if id == "2" else []
        for peer, why in refused:
            for fn, args in (("add", ["child", {}, opts]), ("addBulk", [[{"name": "c", "opts": opts}]])):
                code, message = await peer.refusal(fn, *args)
                assert (code, why in message) == ("FORBIDDEN", True), message
        for key in (PRODUCER, FOREMAN) if id == "2" else (PRODUCER,):
            assert (await flows[key].refusal("add", {**node, "opts": opts}))[0] == "FORBIDDEN"
        assert not await redis.exists(f"{prefix}:q:{id}:dependencies")
    opts = {"parent": {"id": job.id, "queue": f"{prefix}:q"}}
    await queues[FOREMAN].call("add", "child", {}, opts)
    await queues[FOREMAN].call("addBulk", [{"name": "child", "opts": opts}, {"name": "free"}])
    await flows[FOREMAN].call("add", {**node, "opts": opts})
    assert await redis.scard(f"{prefix}:q:{job.id}:dependencies") == 3
    gone = {"parent": {"id": "gone", "queue": f"{prefix}:q"}}
    assert (await queues[FOREMAN].refusal("add", "child", {}, gone))[0] == "NOT_FOUND"


async def test_a_flow_takes_no_job_that_is_there_already_into_its_family(
    proxy: Gateway, owner: Peer, redis: Redis, prefix: str
) -> None:
    await owner.call("add", "work", {}, {"jobId": "theirs"})
    before = await redis.hgetall(f"{prefix}:q:theirs")
    flows = await proxy.connect("/flows", token=PRODUCER)
    theirs = {"name": "x", "queueName": "q", "opts": {"jobId": "theirs"}}
    mine = {"name": "mine", "queueName": "q"}
    for flow, place in (
        ({**theirs, "children": [mine]}, "args[0]"),
        ({**mine, "children": [mine, theirs]}, "args[0].children[1]"),
        ({**mine, "children": [{**theirs, "children": [mine]}]}, "args[0].children[0]"),
    ):
        code, message = await flows.refusal("add", flow)
        assert code == "FORBIDDEN"
        assert message == (
            "The key producer may not take the job theirs, which is there already, into a flow -"
            f" at `{place}`: it needs the permission manage"
        )
        assert (await flows.refusal("addBulk", [mine, flow]))[0] == "FORBIDDEN"
    assert await redis.hgetall(f"{prefix}:q:theirs") == before
    assert not await redis.exists(f"{prefix}:q:theirs:dependencies")
    assert (await flows.call("add", theirs))["job"]["duplicate"] is True  # alone it changes nothing
    clerk = await proxy.connect("/flows", token=CLERK)
    assert await clerk.call("add", {**mine, "children": [theirs]})


async def test_a_flow_with_ids_of_its_own_can_be_added_again(proxy: Gateway) -> None:
    flows = await proxy.connect("/flows", token=PRODUCER)
    leaves = [{"name": "leaf", "queueName": "q", "opts": {"jobId": f"leaf-{n}"}} for n in range(2)]
    flow = {"name": "root", "queueName": "q", "opts": {"jobId": "root"}, "children": leaves}
    await flows.call("add", flow)
    again = await flows.call("add", flow)
    assert [child["job"]["duplicate"] for child in again["children"]] == [True, True]
    more = {**flow, "children": [*leaves, {"name": "leaf", "queueName": "q"}]}
    assert (await flows.refusal("add", more))[0] == "FORBIDDEN"
