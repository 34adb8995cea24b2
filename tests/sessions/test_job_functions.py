"""Functions of one job by its id: results, refusals, and what a key that is not for all queues may not reach."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from msgspec import Raw
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import Grant, Permission, Rights
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from tests.sessions.peer import Gateway, Peer
from tests.support.link import started
from tests.support.valkey import ValkeyProcess

LATER = 3_600_000  # ms

LimitedCall = Callable[..., Awaitable[Any]]


@pytest.fixture
async def queue(proxy: Gateway) -> Peer:
    return await proxy.queue()


@pytest.fixture
async def broker(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Broker]:
    async with started(valkey.url, prefix) as broker:
        yield broker


@pytest.fixture
def limited(broker: Broker) -> LimitedCall:
    """Call a function of the queue `q` with a key that is for some queues only: for `q`, if they are not named."""

    async def call(fn: str, *args: Any, queues: tuple[str, ...] = ("q",)) -> Any:
        function = TABLE[fn]
        context = Context(broker, Rights(Grant("ops", frozenset(Permission), queues)))
        provided = {"context": context} if function.in_context else {}
        bound = function.bind([Raw(json.dumps(arg).encode()) for arg in args])
        return await function.run(broker.queue("q"), *bound, **provided)

    return call


async def add(queue: Peer, id: str, **opts: Any) -> None:
    await queue.call("add", "job", {}, {"jobId": id, **opts})


# Changing


async def test_a_delayed_job_gets_another_delay(queue: Peer, redis: Redis, prefix: str) -> None:
    await add(queue, "d", delay=LATER)
    before = await redis.zscore(f"{prefix}:q:delayed", "d")
    assert await queue.call("changeJobDelay", "d", 2 * LATER) is None
    after = await redis.zscore(f"{prefix}:q:delayed", "d")
    assert before is not None
    assert after is not None
    assert (after - before) / 0x1000 == pytest.approx(LATER, abs=5000)
    assert (await queue.call("getJob", "d"))["delay"] == 2 * LATER


async def test_only_a_delayed_job_gets_another_delay(queue: Peer) -> None:
    await add(queue, "w")
    assert await queue.refusal("changeJobDelay", "w", 5) == (
        "CONFLICT",
        "Job w is not in the delayed state. changeDelay",
    )
    assert await queue.refusal("changeJobDelay", "x", 5) == ("NOT_FOUND", "Missing key for job x. changeDelay")


async def test_a_waiting_job_gets_a_priority_and_loses_it(queue: Peer) -> None:
    await add(queue, "a")
    assert await queue.call("changeJobPriority", "a", {"priority": 2097151}) is None
    assert await queue.call("getJobState", "a") == "prioritized"
    assert (await queue.call("getJob", "a"))["priority"] == 2097151
    assert await queue.call("changeJobPriority", "a", {"lifo": True}) is None
    assert await queue.call("getJobState", "a") == "waiting"
    assert await queue.refusal("changeJobPriority", "x", {}) == ("NOT_FOUND", "Missing key for job x. changePriority")


async def test_a_whole_number_may_be_written_with_a_fraction(queue: Peer) -> None:
    await add(queue, "a")
    await queue.call("changeJobPriority", "a", {"priority": 3.0})
    assert (await queue.call("getJob", "a"))["priority"] == 3


@pytest.mark.parametrize(
    ("priority", "message"),
    [
        (1.5, "Priority should not be float"),
        (-0.5, "Priority should not be float"),
        (-1, "Priority should be between 0 and 2097151"),
        (2097152, "Priority should be between 0 and 2097151"),
        (1e300, "Priority should be between 0 and 2097151"),
    ],
)
async def test_a_priority_that_would_spoil_the_order_is_refused(queue: Peer, priority: float, message: str) -> None:
    await add(queue, "a")
    assert await queue.refusal("changeJobPriority", "a", {"priority": priority}) == ("INVALID_ARGUMENTS", message)
    assert await queue.call("getJobState", "a") == "waiting"


async def test_logs_are_cleared_but_for_the_last(queue: Peer) -> None:
    await add(queue, "a")
    for row in ("one", "two", "three"):
        await queue.call("addJobLog", "a", row)
    assert await queue.call("clearJobLogs", "a", 2) is None
    assert (await queue.call("getJobLogs", "a"))["logs"] == ["two", "three"]
    assert await queue.call("clearJobLogs", "a") is None
    assert await queue.call("getJobLogs", "a") == {"logs": [], "count": 0}


async def test_a_deduplication_id_is_freed_by_the_job_that_holds_it(queue: Peer) -> None:
    await add(queue, "a", deduplication={"id": "once"})
    assert await queue.call("removeJobDeduplicationKey", "a") is True
    await add(queue, "b", deduplication={"id": "once"})
    assert await queue.call("removeJobDeduplicationKey", "a") is False
    assert await queue.call("getJobState", "b") == "waiting"


async def test_the_state_of_a_job_can_be_asked_for(queue: Peer) -> None:
    await add(queue, "d", delay=LATER)
    asked = ("Active", "Completed", "Delayed", "Failed", "Waiting", "WaitingChildren")
    assert [await queue.call(f"isJob{state}", "d") for state in asked] == [False, False, True, False, False, False]
    await queue.call("promoteJob", "d")
    assert [await queue.call(f"isJob{state}", "d") for state in asked] == [False, False, False, False, True, False]
    assert not any([await queue.call(f"isJob{state}", "nobody") for state in asked])


@pytest.mark.parametrize(
    ("fn", "args", "place"),
    [
        ("changeJobDelay", ["1"], "args"),
        ("changeJobDelay", ["1", None], "args[1]"),
        ("changeJobDelay", ["1", "5"], "args[1]"),
        ("changeJobDelay", ["1", 0.5], "args[1]"),
        ("changeJobDelay", ["1", -1], "args[1]"),  # Node stores it, and takes it for 0
        ("changeJobDelay", ["1", 2**53], "args[1]"),
        ("changeJobPriority", ["1"], "args"),
        ("changeJobPriority", ["1", None], "args[1]"),
        ("changeJobPriority", ["1", 3], "args[1]"),
        ("changeJobPriority", ["1", {"priority": "1"}], "args[1].priority"),
        ("changeJobPriority", ["1", {"lifo": 1}], "args[1].lifo"),
        ("changeJobPriority", ["1", {"prio": 1}], "args[1]"),
        ("clearJobLogs", ["1", -1], "args[1]"),
        ("clearJobLogs", ["1", 1.5], "args[1]"),
        ("getJobDependencies", ["1", {"processed": True}], "args[1].processed"),
        ("getJobDependencies", ["1", {"processed": {"count": 0}}], "args[1].processed.count"),
        ("getJobDependencies", ["1", {"ignored": {"count": True}}], "args[1].ignored.count"),
        ("getJobDependencies", ["1", {"failed": {"cursor": -1}}], "args[1].failed.cursor"),
        ("getJobDependencies", ["1", {"unprocessed": {"cursor": "0"}}], "args[1].unprocessed.cursor"),
        ("getJobDependencies", ["1", {"done": {}}], "args[1]"),
        ("getJobDependenciesCount", ["1", {"failed": 1}], "args[1].failed"),
        ("getJobDependenciesCount", ["1", {"fail": True}], "args[1]"),
        ("retryJob", ["1", "failed", {"reset": True}], "args[2]"),
        *(
            (fn, [id], "args[0]")
            for fn in (
                "getJobChildrenValues",
                "getJobIgnoredChildrenFailures",
                "isJobActive",
                "isJobWaiting",
                "removeJobChildDependency",
                "removeJobDeduplicationKey",
                "removeJobUnprocessedChildren",
            )
            for id in ("", None, 1.5)
        ),
    ],
)
async def test_bad_arguments_name_their_place(queue: Peer, fn: str, args: list[Any], place: str) -> None:
    code, message = await queue.refusal(fn, *args)
    assert code == "INVALID_ARGUMENTS"
    assert f"`{place}`" in message


# Families


async def test_the_children_of_a_job_are_read_in_their_kinds(queue: Peer, redis: Redis, prefix: str) -> None:
    base = f"{prefix}:q:m"
    await redis.hset(f"{base}:processed", mapping={"c:1": '{"sum": 1.50}', "c:2": "NaN", "c:3": ""})
    await redis.sadd(f"{base}:dependencies", "c:4")
    await redis.hset(f"{base}:failed", mapping={"c:5": "no luck"})
    await redis.zadd(f"{base}:unsuccessful", {"c:6": 1})
    values = {"c:1": {"sum": 1.5}, "c:2": "NaN", "c:3": ""}  # what is no JSON comes as a text
    assert await queue.call("getJobChildrenValues", "m") == values
    assert await queue.call("getJobIgnoredChildrenFailures", "m") == {"c:5": "no luck"}
    assert await queue.call("getJobDependencies", "m") == {
        "processed": values,
        "unprocessed": ["c:4"],
        "failed": ["c:6"],
        "ignored": {"c:5": "no luck"},
    }
    assert await queue.call("getJobDependenciesCount", "m") == {
        "processed": 3,
        "unprocessed": 1,
        "failed": 1,
        "ignored": 1,
    }
    assert await queue.call("getJobDependenciesCount", "m", {"failed": True}) == {"failed": 1}


async def test_many_children_are_read_page_by_page(queue: Peer, redis: Redis, prefix: str) -> None:
    base, ids = f"{prefix}:q:m", [f"{prefix}:q:{n}" for n in range(1000)]
    await redis.hset(f"{base}:processed", mapping={id: str(n) for n, id in enumerate(ids)})
    await redis.sadd(f"{base}:dependencies", *ids)
    await redis.hset(f"{base}:failed", mapping={id: f"why {n}" for n, id in enumerate(ids)})
    whole = await queue.call("getJobDependencies", "m")
    for kind in ("processed", "unprocessed", "ignored"):
        cursor = 0
        pages: list[Any] = []
        while not pages or cursor:
            page = await queue.call("getJobDependencies", "m", {kind: {"cursor": cursor, "count": 100}})
            assert page.keys() == {kind, f"next{kind.capitalize()}Cursor"}
            pages.append(page[kind])
            cursor = page[f"next{kind.capitalize()}Cursor"]
        assert len(pages) > 5
        if kind == "unprocessed":
            assert sorted({id for page in pages for id in page}) == sorted(whole[kind])
        else:
            assert {id: value for page in pages for id, value in page.items()} == whole[kind]


async def test_failed_children_are_paged_as_in_node(queue: Peer, redis: Redis, prefix: str) -> None:
    await redis.zadd(f"{prefix}:q:m:unsuccessful", {f"c:{n}": n for n in range(10)})
    page = await queue.call("getJobDependencies", "m", {"failed": {"cursor": 3, "count": 6}})
    assert page == {"failed": ["c:3", "c:4", "c:5"], "nextFailedCursor": 9}


async def test_a_child_is_untied_from_its_parent(queue: Peer, prefix: str) -> None:
    await add(queue, "m")
    await add(queue, "c", parent={"id": "m", "queue": f"{prefix}:q"})
    assert await queue.call("removeJobChildDependency", "c") is True
    assert "parent" not in await queue.call("getJob", "c")
    for id, missing in (("c", "parent job undefined"), ("nobody", "job nobody")):
        assert await queue.refusal("removeJobChildDependency", id) == (
            "NOT_FOUND",
            f"Missing key for {missing}. removeChildDependency",
        )


async def test_children_that_are_not_finished_are_removed(queue: Peer, prefix: str) -> None:
    await add(queue, "m")
    await add(queue, "c", parent={"id": "m", "queue": f"{prefix}:q"})
    await add(queue, "g", parent={"id": "c", "queue": f"{prefix}:q"}, delay=LATER)
    assert await queue.call("removeJobUnprocessedChildren", "m") is None
    assert [job["id"] for job in await queue.call("getJobs")] == ["m"]
    assert await queue.call("removeJobUnprocessedChildren", "nobody") is None


# Keys that are for some queues only

REMOVERS = ("remove", "removeJob", "removeJobUnprocessedChildren")


async def refused(call: Awaitable[Any]) -> str:
    """The text of the refusal."""
    with pytest.raises(GatewayError) as caught:
        await call
    assert caught.value.code is ErrorCode.FORBIDDEN
    return caught.value.message


@pytest.fixture
async def family(proxy: Gateway, queue: Peer, prefix: str) -> Peer:
    """In `q` a mother and her child, in `other` a grandchild; the connection is of `other`."""
    other = await proxy.queue("other")
    await add(queue, "mother")
    await add(queue, "child", parent={"id": "mother", "queue": f"{prefix}:q"})
    await add(other, "grandchild", parent={"id": "child", "queue": f"{prefix}:q"})
    return other


@pytest.mark.parametrize("fn", REMOVERS)
async def test_nobody_removes_jobs_in_queues_that_the_key_is_not_for(
    limited: LimitedCall, queue: Peer, family: Peer, fn: str
) -> None:
    assert await refused(limited(fn, "mother")) == "The key ops is not for the queue other"
    assert await refused(limited(fn, "mother", queues=("q", "others"))) == "The key ops is not for the queue other"
    assert await family.call("getJobState", "grandchild") == "waiting"
    assert await queue.call("count") == 2


@pytest.mark.parametrize("fn", REMOVERS)
async def test_a_key_for_all_queues_of_a_family_removes_it(limited: LimitedCall, family: Peer, fn: str) -> None:
    await limited(fn, "mother", queues=("q", "oth*"))
    assert await family.call("count") == 0


@pytest.mark.parametrize("fn", REMOVERS)
async def test_a_key_for_one_queue_removes_what_is_in_it(
    limited: LimitedCall, queue: Peer, prefix: str, fn: str
) -> None:
    await add(queue, "mother")
    await add(queue, "child", parent={"id": "mother", "queue": f"{prefix}:q"})
    await limited(fn, "mother")
    assert await queue.call("getJob", "child") is None
    assert await limited(fn, "nobody") in (None, 1)


@pytest.mark.parametrize("fn", ["remove", "removeJob"])
async def test_without_its_children_a_job_can_be_removed(
    limited: LimitedCall, queue: Peer, family: Peer, fn: str
) -> None:
    await limited(fn, "mother", {"removeChildren": False})
    assert await queue.call("getJob", "mother") is None
    assert await family.call("getJobState", "grandchild") == "waiting"


@pytest.mark.parametrize("kind", ["processed", "failed", "unsuccessful", "dependencies"])
async def test_every_kind_of_children_counts_where_it_would_be_removed(
    limited: LimitedCall, queue: Peer, redis: Redis, prefix: str, kind: str
) -> None:
    await add(queue, "mother")
    key, child = f"{prefix}:q:mother:{kind}", f"{prefix}:other:child"
    match kind:
        case "unsuccessful":
            await redis.zadd(key, {child: 1})
        case "dependencies":
            await redis.sadd(key, child)
        case _:
            await redis.hset(key, child, "1")
    assert await refused(limited("remove", "mother")) == "The key ops is not for the queue other"
    if kind == "dependencies":
        assert await refused(limited("removeJobUnprocessedChildren", "mother"))
    else:  # those that are finished it leaves alone
        assert await limited("removeJobUnprocessedChildren", "mother") is None
    assert await redis.exists(key)


async def test_a_child_under_another_prefix_is_out_of_reach(
    limited: LimitedCall, queue: Peer, redis: Redis, prefix: str
) -> None:
    await add(queue, "mother")
    await redis.sadd(f"{prefix}:q:mother:dependencies", f"{prefix}2:q:child")
    message = await refused(limited("remove", "mother", queues=("*",)))
    assert message == f"The key ops is only for queues with the prefix {prefix}"


async def test_the_search_through_a_family_ends_where_it_goes_in_circles(
    limited: LimitedCall, queue: Peer, redis: Redis, prefix: str
) -> None:
    await add(queue, "mother")
    await redis.sadd(f"{prefix}:q:mother:dependencies", f"{prefix}:q:child", f"{prefix}:q:mother")
    await redis.sadd(f"{prefix}:q:child:dependencies", f"{prefix}:q:mother", f"{prefix}:other:child")
    assert await refused(limited("remove", "mother")) == "The key ops is not for the queue other"


async def test_a_deep_family_is_searched_to_its_end(
    limited: LimitedCall, queue: Peer, redis: Redis, prefix: str
) -> None:
    await add(queue, "j0")
    async with redis.pipeline() as pipe:
        for n in range(1000):
            pipe.sadd(f"{prefix}:q:j{n}:dependencies", f"{prefix}:{'q' if n < 999 else 'other'}:j{n + 1}")
        await pipe.execute()
    assert await refused(limited("remove", "j0")) == "The key ops is not for the queue other"


async def test_a_child_is_untied_only_from_a_parent_that_the_key_reaches(
    limited: LimitedCall, proxy: Gateway, queue: Peer, prefix: str
) -> None:
    other = await proxy.queue("other")
    await add(other, "mother")
    await add(queue, "child", parent={"id": "mother", "queue": f"{prefix}:other"})
    message = await refused(limited("removeJobChildDependency", "child"))
    assert message == "The key ops is not for the queue other"
    assert await other.call("getJobDependenciesCount", "mother", {"unprocessed": True}) == {"unprocessed": 1}
    assert await limited("removeJobChildDependency", "child", queues=("q", "other")) is True
    await add(queue, "sibling", parent={"id": "child", "queue": f"{prefix}:q"})
    assert await limited("removeJobChildDependency", "sibling") is True


@pytest.mark.parametrize("fn", ["remove", "removeJob"])
async def test_the_end_of_a_job_counts_for_its_parent_wherever_that_is(
    limited: LimitedCall, proxy: Gateway, queue: Peer, prefix: str, fn: str
) -> None:
    other = await proxy.queue("other")
    await add(other, "mother")
    await add(queue, "child", parent={"id": "mother", "queue": f"{prefix}:other"})
    await limited(fn, "child")
    assert await other.call("getJobDependenciesCount", "mother", {"unprocessed": True}) == {"unprocessed": 0}


async def test_what_is_no_job_is_no_fault_of_the_gateways(queue: Peer) -> None:
    await queue.call("add", "job")
    code, message = await queue.refusal("getJob", "id")  # the counter of ids
    assert code == "CONFLICT"
    assert message.startswith("Redis refused the command: WRONGTYPE")
