"""Job schedulers on a Queue connection, against a real Valkey: refusals that Node does not have, and what they leave.

That the answers are Node's, and what Redis holds afterwards, is for `tests/interop/scenarios/schedulers.py`.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from msgspec import Raw
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import Grant, Permission, Rights
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from tests.sessions.peer import Gateway, Peer, until
from tests.support.link import started
from tests.support.valkey import ValkeyProcess

HOUR = 3_600_000  # ms
YEARLY = {"pattern": "0 0 1 1 *", "tz": "UTC"}


@pytest.fixture
async def queue(proxy: Gateway) -> Peer:
    return await proxy.queue()


async def upsert(queue: Peer, repeat: Any, *template: Any, id: str = "s") -> Any:
    return await queue.call("upsertJobScheduler", id, repeat, *template)


async def refusal(queue: Peer, *args: Any) -> str:
    """The message of a refused call, which has to leave nothing behind."""
    code, message = await queue.refusal("upsertJobScheduler", *args)
    assert code == "INVALID_ARGUMENTS"
    assert await queue.call("getJobSchedulersCount") == 0
    assert await queue.call("count") == 0
    return message


def test_setting_up_is_managing_and_reading_is_observing() -> None:
    assert {function.name: function.permission for function in TABLE if "JobScheduler" in function.name} == {
        "upsertJobScheduler": Permission.MANAGE,
        "removeJobScheduler": Permission.MANAGE,
        "getJobScheduler": Permission.OBSERVE,
        "getJobSchedulers": Permission.OBSERVE,
        "getJobSchedulersCount": Permission.OBSERVE,
    }


async def test_a_scheduler_lives_from_its_making_to_its_removal(queue: Peer) -> None:
    before = int(time.time() * 1000)
    job = await upsert(queue, {"every": HOUR}, {"name": "beat", "data": {"n": 1}, "opts": {"attempts": 3}})
    assert (job["name"], job["data"], job["opts"]["attempts"], job["delay"]) == ("beat", {"n": 1}, 3, 0)
    assert (await queue.call("getJob", job["id"]))["repeatJobKey"] == "s"
    scheduler = await queue.call("getJobScheduler", "s")
    assert before <= scheduler.pop("next") <= int(time.time() * 1000)
    assert 0 <= scheduler.pop("offset") < HOUR
    assert scheduler == {
        "key": "s",
        "name": "beat",
        "iterationCount": 1,
        "every": HOUR,
        "template": {"data": {"n": 1}, "opts": {"attempts": 3}},
    }
    assert [one["key"] for one in await queue.call("getJobSchedulers")] == ["s"]
    assert await queue.call("getJobSchedulersCount") == 1
    assert await queue.call("removeJobScheduler", "s") is True
    assert await queue.call("removeJobScheduler", "s") is False
    assert await queue.call("getJobScheduler", "s") is None
    assert await queue.call("getJobSchedulers") == []


async def test_a_parent_in_the_template_is_within_the_key_s_reach(valkey: ValkeyProcess, prefix: str) -> None:
    async with started(valkey.url, prefix) as broker:
        grant = Grant("mailer", frozenset(Permission), ("mails",))
        template = {"opts": {"parent": {"id": "mother", "queue": f"{prefix}:bills"}}}
        function = TABLE["upsertJobScheduler"]
        bound = function.bind([Raw(json.dumps(arg).encode()) for arg in ("s", YEARLY, template)])
        with pytest.raises(GatewayError) as caught:
            await function.run(broker.queue("mails"), *bound, context=Context(broker, Rights(grant)))
    assert caught.value.code is ErrorCode.FORBIDDEN


async def test_the_queue_is_told_who_writes_to_it(queue: Peer, redis: Redis, prefix: str) -> None:
    await upsert(queue, YEARLY)
    assert str(await redis.hget(f"{prefix}:q:meta", "version")).startswith("bullmq-proxy:")


async def test_data_is_stored_as_the_text_that_the_client_wrote(queue: Peer, redis: Redis, prefix: str) -> None:
    text = '{ "n" : 1.0, "big": 12345678901234567890, "ü": "\\u00fc" }'
    await queue.socket.send(
        f'{{"id":1,"data":{{"fn":"upsertJobScheduler","args":["s",{json.dumps(YEARLY)},{{"data":{text}}}]}}}}'
    )
    job = (await queue.message())["data"]["ok"]
    assert await redis.hget(f"{prefix}:q:repeat:s", "data") == text
    assert await redis.hget(f"{prefix}:q:{job['id']}", "data") == text


@pytest.mark.parametrize("repeat", [{"every": HOUR, "limit": 0}, {**YEARLY, "limit": 2, "count": 2}])
async def test_no_job_is_null_and_leaves_nothing(queue: Peer, redis: Redis, prefix: str, repeat: Any) -> None:
    assert await upsert(queue, repeat) is None
    assert await queue.call("getJobSchedulersCount") == 0
    assert [key async for key in redis.scan_iter(f"{prefix}:q:*")] == []


@pytest.mark.parametrize(
    ("repeat", "message"),
    [
        ({"every": -1}, "Expected a whole number >= 0 - at `args[1].every`"),
        ({"every": 1.5}, "Expected a whole number, got a number that is not whole - at `args[1].every`"),
        ({"every": "5000"}, "Expected a whole number, got a string - at `args[1].every`"),
        ({"every": True}, "Expected a whole number, got true or false - at `args[1].every`"),
        ({"every": 5_000_000_000_001}, "Expected a whole number <= 5000000000000 - at `args[1].every`"),
        ({"every": 0, **YEARLY}, "Expected a whole number >= 1 - at `args[1].every`"),
        ({"every": HOUR, "offset": -1}, "Expected a whole number >= 0 - at `args[1].offset`"),
        ({"every": HOUR, "limit": -1}, "Expected a whole number >= 0 - at `args[1].limit`"),
        ({"every": HOUR, "limit": "1"}, "Expected a whole number, got a string - at `args[1].limit`"),
        ({"every": HOUR, "count": 0.5}, "Expected a whole number, got a number that is not whole - at `args[1].count`"),
        ({"every": HOUR, "startDate": "soon"}, "Expected milliseconds or a date in ISO 8601 - at `args[1].startDate`"),
        ({"every": HOUR, "endDate": "x" * 41}, "Expected a string of length <= 40 - at `args[1].endDate`"),
        ({"every": HOUR, "startDate": -1}, "Expected a whole number >= 0 - at `args[1].startDate`"),
        ({"every": HOUR, "startDate": 10**14}, "Expected a date up to 90000000000000 ms - at `args[1].startDate`"),
        ({"pattern": 5}, "Expected a string, got a whole number - at `args[1].pattern`"),
        ({**YEARLY, "tz": 1}, "Expected a string, got a whole number - at `args[1].tz`"),
        ({**YEARLY, "immediately": "yes"}, "Expected true or false, got a string - at `args[1].immediately`"),
        ({"evry": HOUR}, "Unknown option `evry`, did you mean `every`? - at `args[1]`"),
        ({**YEARLY, "key": "x"}, "Unknown option `key` - at `args[1]`"),
        (None, "Expected an object, got null - at `args[1]`"),
    ],
)
async def test_bad_repeat_options_are_refused_with_their_place(queue: Peer, repeat: Any, message: str) -> None:
    assert await refusal(queue, "s", repeat) == message


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"opts": {"jobId": "x"}}, "The jobs of a scheduler cannot have this option - at `args[2].opts.jobId`"),
        ({"opts": {"delay": 0}}, "The jobs of a scheduler cannot have this option - at `args[2].opts.delay`"),
        ({"opts": {"repeat": {}}}, "The jobs of a scheduler cannot have this option - at `args[2].opts.repeat`"),
        (
            {"opts": {"deduplication": {"id": "x"}}},
            "The jobs of a scheduler cannot have this option - at `args[2].opts.deduplication`",
        ),
        ({"opts": {"priority": 1.5}}, "Priority should not be float"),
        ({"opts": {"priority": 2**21}}, "Priority should be between 0 and 2097151"),
        ({"opts": {"priority": "1"}}, "Expected a number, got a string - at `args[2].opts.priority`"),
        ({"opts": {"backoff": {"type": "fixed", "jitter": 9}}}, "Jitter should be between 0 and 1"),
        ({"opts": {"atempts": 1}}, "Unknown option `atempts`, did you mean `attempts`? - at `args[2].opts`"),
        ({"opts": 5}, "Expected an object or null, got a whole number - at `args[2].opts`"),
        ({"name": 5}, "Expected a string or null, got a whole number - at `args[2].name`"),
        ({"zz": 1}, "Unknown option `zz` - at `args[2]`"),
        ("beat", "Expected an object or null, got a string - at `args[2]`"),
    ],
)
async def test_bad_templates_are_refused_with_their_place(queue: Peer, template: Any, message: str) -> None:
    assert await refusal(queue, "s", YEARLY, template) == message


async def test_the_id_has_a_letter_at_least(queue: Peer) -> None:
    assert await refusal(queue, "", YEARLY) == "Expected a string of length >= 1 - at `args[0]`"
    signature = "upsertJobScheduler(jobSchedulerId, repeatOpts, jobTemplate?)"
    assert await refusal(queue, "s") == f"Expected an array of at least length 2, got 1 - at `args`: {signature}"


async def test_the_checks_of_the_options_come_after_node_s(queue: Peer) -> None:
    both = "Both .pattern and .every options are defined for this repeatable job"
    assert await refusal(queue, "s", {**YEARLY, "every": 5}, {"opts": {"priority": 1.5}}) == both
    assert await refusal(queue, "s", {"pattern": "bad"}, {"opts": {"priority": 1.5}}) == "Priority should not be float"


async def test_an_unknown_zone_is_refused_in_cron_parser_s_words(queue: Peer) -> None:
    message = await refusal(queue, "s", {"pattern": "0 0 * * *", "tz": "Nowhere"})
    assert message.startswith("CronDate: unhandled timestamp: ")


async def test_a_scheduler_that_cannot_be_made_says_why(queue: Peer) -> None:
    start = {**YEARLY, "startDate": "2099-06-01T00:00Z"}
    job = await upsert(queue, start)
    await queue.call("promoteJobs")
    await queue.call("removeJobScheduler", "s")
    message = "Cannot create job scheduler iteration - job ID already exists. addJobScheduler"
    assert await queue.refusal("upsertJobScheduler", "s", start) == ("CONFLICT", message)
    assert (await queue.call("getJob", job["id"]))["id"] == job["id"]


async def test_the_next_job_of_a_scheduler_cannot_be_removed_but_with_it(queue: Peer) -> None:
    id = (await upsert(queue, YEARLY))["id"]
    message = f"Job {id} belongs to a job scheduler and cannot be removed directly. removeJob"
    assert await queue.refusal("removeJob", id) == ("CONFLICT", message)
    assert await queue.call("removeJobScheduler", "s") is True
    assert await queue.call("getJob", id) is None


async def test_what_is_left_of_a_scheduler_goes_as_it_is_read(queue: Peer, redis: Redis, prefix: str) -> None:
    await upsert(queue, YEARLY)
    await upsert(queue, YEARLY, id="whole")
    await redis.delete(f"{prefix}:q:repeat:s")
    assert await queue.call("getJobScheduler", "s") is None
    assert await queue.call("getJobSchedulersCount") == 2
    assert [one["key"] for one in await queue.call("getJobSchedulers")] == ["whole"]
    assert await queue.call("getJobSchedulersCount") == 1
    assert await queue.call("count") == 1


async def test_repeatable_jobs_of_old_are_told_and_the_rest_is_tidied(queue: Peer, redis: Redis, prefix: str) -> None:
    old = "mail:5::UTC:0 0 * * *"
    await redis.zadd(f"{prefix}:q:repeat", {old: 5, "older:6:::5000": 4, "gone": 3})
    code, message = await queue.refusal("getJobSchedulers")
    assert (code, f'(key: "{old}")' in message) == ("CONFLICT", True)
    assert await queue.call("getJobSchedulersCount") == 2
    code, message = await queue.refusal("getJobSchedulers", 0, -1, True)
    assert 'key: "older:6:::5000"' in message
    assert (await queue.refusal("getJobScheduler", old))[0] == "CONFLICT"
    assert await queue.call("removeJobScheduler", old) is True


async def test_a_scheduler_is_changed_in_place(queue: Peer) -> None:
    first = await upsert(queue, {"every": HOUR})
    second = await upsert(queue, YEARLY, {"data": 2})
    assert await queue.call("getJob", first["id"]) is None
    assert (await queue.call("getJob", second["id"]))["data"] == 2
    scheduler = await queue.call("getJobScheduler", "s")
    assert (scheduler["pattern"], "every" in scheduler) == (YEARLY["pattern"], False)


async def test_workers_go_on_with_the_schedule_until_its_limit(proxy: Gateway, queue: Peer) -> None:
    worker = await proxy.worker()
    await upsert(queue, {"every": 50, "limit": 3}, {"data": {"n": 1}, "opts": {"attempts": 2}})
    ids = []
    for _ in range(3):
        job = await worker.job()
        ids.append(job.id)
        assert (job.payload, job.shown["opts"]["attempts"], job.shown["repeatJobKey"]) == ({"n": 1}, 2, "s")
        await job.answer(result=1)
    times = [int(id.rpartition(":")[2]) for id in ids]
    assert all((later - times[0]) % 50 == 0 for later in times)
    await queue.until_state(ids[-1], "completed")
    assert await queue.call("count") == 0
    assert (await queue.call("getJobScheduler", "s"))["iterationCount"] == 3


async def test_a_scheduler_that_is_removed_while_its_job_is_active_ends_with_it(proxy: Gateway, queue: Peer) -> None:
    worker = await proxy.worker()
    await upsert(queue, {"every": HOUR})
    job = await worker.job()
    await until(lambda: queue.call("getDelayed"), "the next job is there")
    assert await queue.call("removeJobScheduler", "s") is True
    await job.answer(result=1)
    await queue.until_state(job.id, "completed")
    assert await queue.call("count") == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ('{"attempts":1}', "no repeat options"),
        ('{"repeat":{}}', "Either .pattern or .every"),
        ('{"repeat":{"pattern":"99 * * * *"}}', "got value 99"),
        ('{"repeat":{"every":5,"limit":"x"}}', "could not convert"),
        ("nonsense", "no repeat options"),
    ],
)
async def test_a_job_whose_schedule_cannot_go_on_is_processed_all_the_same(
    proxy: Gateway,
    queue: Peer,
    redis: Redis,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
    background: list[str],
    options: str,
    reason: str,
) -> None:
    id = (await upsert(queue, {"every": HOUR}))["id"]
    await redis.hset(f"{prefix}:q:{id}", "opts", options)
    worker = await proxy.worker(confirm=1)
    job = await worker.job()
    await job.answer(result=1)
    assert (await worker.data())["state"] == "completed"
    assert await queue.call("getDelayed") == []
    assert f"the iteration after {id} of q is not created" in caplog.text
    assert reason in caplog.text
    background.clear()


async def test_a_scheduler_s_job_never_fails_because_its_workers_vanish(proxy: Gateway, queue: Peer) -> None:
    id = (await upsert(queue, {"every": HOUR}))["id"]
    for vanished in range(3):
        worker = await proxy.worker(maxStalledCount=1)
        job = await worker.job()
        assert (job.id, job.shown["stalledCounter"]) == (id, vanished)
        worker.vanish()
    await queue.until_state(id, "waiting")
    await queue.call("removeJobScheduler", "s")  # now it is a job like any other
    worker = await proxy.worker(maxStalledCount=1)
    await worker.job()
    worker.vanish()
    await queue.until_state(id, "failed")


async def test_the_job_of_a_repeatable_job_of_old_is_processed_and_told(
    proxy: Gateway, queue: Peer, redis: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    id = (await upsert(queue, {"every": HOUR}))["id"]
    await redis.hset(f"{prefix}:q:{id}", "rjk", "mail:5::UTC:0 0 * * *")
    worker = await proxy.worker(confirm=1)
    await (await worker.job()).answer(result=1)
    assert (await worker.data())["state"] == "completed"
    assert "Legacy repeatable job metadata" in caplog.text


async def test_a_job_with_an_empty_scheduler_id_is_like_any_other(
    proxy: Gateway, queue: Peer, redis: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    id = (await upsert(queue, {"every": HOUR}))["id"]
    await redis.hset(f"{prefix}:q:{id}", "rjk", "")
    worker = await proxy.worker(confirm=1)
    await (await worker.job()).answer(result=1)
    assert (await worker.data())["state"] == "completed"
    assert "is not created" not in caplog.text
