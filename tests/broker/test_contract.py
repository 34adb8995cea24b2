"""What we send is what BullMQ's own argument builders send, with the differences that these tests name.

An upgrade of the `bullmq` package that changes the contract of a script fails these tests; then the gateway has to
follow. The differences are what Node's BullMQ sends and the Python package does not, or the other way round.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bullmq
import hiredis
import msgspec
import pytest
import uvloop
from bullmq.job import Job
from bullmq.redis_connection import SCRIPT_DEFINITIONS
from bullmq.scripts import Scripts
from msgspec import Raw

from bullmq_proxy.gateway.access.grants import EVERYTHING, Rights
from bullmq_proxy.gateway.broker.consuming.feed import Feed
from bullmq_proxy.gateway.broker.consuming.leases import Consumer, Lease, Leases
from bullmq_proxy.gateway.broker.consuming.marker import MarkerWait
from bullmq_proxy.gateway.broker.consuming.renewal import LockRenewer
from bullmq_proxy.gateway.broker.consuming.safety_net import SafetyNet
from bullmq_proxy.gateway.broker.consuming.settling import Settler
from bullmq_proxy.gateway.broker.consuming.stalled import StalledChecker
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.managing import PromoteJobsOptions, RetryJobsOptions
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.scripts import script_texts, scripts_on, sha_of
from bullmq_proxy.gateway.broker.redis.seats import Seats
from bullmq_proxy.gateway.broker.redis.socket import Chunk
from bullmq_proxy.gateway.broker.redis.tracker import Tracker
from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.wire.answers import Failed
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions
from tests.support.link import OPTIONS
from tests.support.waiting import eventually

COMMANDS = Path(bullmq.__file__).parent / "commands"
NOW = object()
"""Stands for a time stamp, which differs from call to call."""

LIMITER = {"max": 3, "duration": 1000}

Sent = tuple[list[str], list[Any]]


class Recorder(Link):
    """A link that keeps commands and sends nothing."""

    def __init__(self) -> None:
        super().__init__(Address(), OPTIONS)
        self.commands: list[list[bytes]] = []

    @property
    def is_up(self) -> bool:
        return True

    def send(self, command: bytes | list[Chunk], sink: Any, **more: Any) -> None:
        reader = hiredis.Reader()
        reader.feed(command if isinstance(command, bytes) else b"".join(command))
        while (one := reader.gets()) is not False:
            self.commands.append(one)

    def sent(self, script: str) -> Sent:
        """KEYS and ARGV of the only call of a script so far."""
        sha = sha_of(script_texts()[script]).encode()
        [call] = [command for command in self.commands if command[:2] == [b"EVALSHA", sha]]
        count = int(call[2])
        return [key.decode() for key in call[3 : 3 + count]], list(call[3 + count :])


class Theirs:
    """The package's own builders; what they would run is kept."""

    def __init__(self) -> None:
        self.calls: dict[str, Sent] = {}
        self.commands = {name: self._script(name) for name in SCRIPT_DEFINITIONS}
        self.conn = None
        self.scripts = Scripts("p", "q", self)

    async def getRedisVersion(self) -> str:
        return "7.0.0"

    def _script(self, name: str) -> Callable[..., asyncio.Future[Any]]:
        def run(keys: list[str], args: list[Any], client: Any = None) -> asyncio.Future[Any]:
            self.calls[name] = (keys, args)
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done

        return run


class Ours:
    """A queue of ours, and a lease of a job in it."""

    def __init__(self, *, opts: dict[str, Any] | None = None, atm: int = 0, **options: Any) -> None:
        self.link = Recorder()
        self.queue = Queue("p", "q", self.link, scripts_on(self.link))
        self.options = WorkerOptions(**options)
        self.leases = Leases(Identity("p"))
        self.consumer = Consumer("q", self.options, self.leases, self, self)
        fields = {b"opts": encode(opts or {}), b"atm": b"%d" % atm}
        self.lease = Lease("7", self.consumer, "token", 0.0)
        self.lease.read(fields)
        self.settler = Settler(self.queue)

    def may_fetch(self, consumer: Consumer) -> bool:
        return True

    def ended(self, lease: Lease, reply: Any, *, fetched: bool) -> None: ...

    def take(self, lease: Lease, fields: Hash) -> None: ...

    def cancel(self, lease: Lease, reason: str) -> bool:
        return False

    def forget(self, lease: Lease) -> None: ...

    def sent(self, script: str) -> Sent:
        return self.link.sent(script)


def _nothing(*_: Any) -> None: ...


def readable(args: list[Any], *packed: int) -> list[Any]:
    """ARGV so that both sides compare: numbers as text, time stamps as NOW, msgpack decoded at the places `packed`."""
    return [_unpacked(arg) if place in packed else _text(arg) for place, arg in enumerate(args)]


def _unpacked(arg: Any) -> Any:
    value = msgspec.msgpack.decode(arg)
    return [NOW if _is_now(item) else item for item in value] if isinstance(value, list) else value


def _text(arg: Any) -> Any:
    text = arg.decode() if isinstance(arg, bytes) else str(arg)
    return NOW if _is_now(text) else text


def _is_now(value: Any) -> bool:
    return re.fullmatch(r"1[789]\d{11}", str(value)) is not None


JOBS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("addStandardJob", {}, {"attempts": 0}),
    ("addStandardJob", {"lifo": True, "attempts": 3}, {"lifo": True, "attempts": 3}),
    ("addDelayedJob", {"delay": 500}, {"delay": 500, "attempts": 0}),
    ("addPrioritizedJob", {"priority": 5}, {"priority": 5, "attempts": 0}),
    (
        "addStandardJob",
        {"parent": {"id": "1", "queue": "p:o"}, "failParentOnFailure": True, "keepLogs": 3},
        {"parent": {"id": "1", "queue": "p:o"}, "fpof": True, "kl": 3, "attempts": 0},
    ),
]


@pytest.mark.parametrize(("script", "opts", "stored"), JOBS)
async def test_adding_a_job(script: str, opts: dict[str, Any], stored: dict[str, Any]) -> None:
    theirs, ours = Theirs(), Ours()
    job = Job(theirs_queue(theirs), "name", {"n": 1}, opts)
    await theirs.scripts.addJob(job)
    add(ours, opts)
    their_keys, their_args = theirs.calls[script]
    our_keys, our_args = ours.sent(script)
    assert our_keys == their_keys
    ours_readable, theirs_readable = readable(our_args, 0, 2), readable(their_args, 0, 2)
    # They hand a fourth argument that no script reads, and store a delay and an empty backoff that nobody asked for.
    assert theirs_readable.pop(2) == {"delay": 0, "backoff": None, **stored}
    assert ours_readable.pop(2) == stored
    assert ours_readable == theirs_readable[:2]


def theirs_queue(theirs: Theirs) -> Any:
    class TheirQueue:
        name, prefix, qualifiedName = "q", "p", "p:q"
        backend = theirs

        def __init__(self) -> None:
            self.opts = {"lockDuration": 30_000, "limiter": LIMITER}

    return TheirQueue()


async def test_a_job_with_deduplication_is_added_within_a_transaction_that_looks_first() -> None:
    theirs, ours = Theirs(), Ours()
    opts = {"deduplication": {"id": "d", "ttl": 5}, "jobId": "mine"}
    await theirs.scripts.addJob(Job(theirs_queue(theirs), "name", {"n": 1}, dict(opts), "mine"))
    add(ours, opts)
    assert [command[0] for command in ours.link.commands] == [
        b"HSETNX",  # the queue's version, once
        b"MULTI",
        b"EXISTS",
        b"GET",
        b"EVALSHA",
        b"EXEC",
    ]
    assert ours.sent("addStandardJob")[0] == theirs.calls["addStandardJob"][0]
    assert readable(ours.sent("addStandardJob")[1], 0, 2)[0] == readable(theirs.calls["addStandardJob"][1], 0, 2)[0]


@pytest.mark.parametrize("limiter", [None, (3, 1000)])
async def test_fetching_a_job(limiter: tuple[int, int] | None) -> None:
    theirs, ours = Theirs(), Ours(limiter=limiter, name="worker-1")
    await theirs.scripts.moveToActive("token", {"lockDuration": 30_000, "limiter": LIMITER if limiter else None})
    tracker = Tracker(Link(Address(), OPTIONS), OPTIONS)
    seats = Seats(1, lambda link: tracker)
    waiter = MarkerWait(ours.queue, OPTIONS, seats, SafetyNet(5.0))
    feed = Feed(ours.queue, waiter, StalledChecker(ours.queue, SafetyNet(5.0)), LockRenewer(), ours.leases, _nothing)
    consumer = feed.join(ours.options, ours)
    their_keys, their_args = theirs.calls["moveToActive"]
    our_keys, our_args = ours.sent("moveToActive")
    assert our_keys == their_keys
    mine, other = readable(our_args, 2), readable(their_args, 2)
    assert mine[2].pop("name") == "worker-1"  # Node writes it into `processedBy`
    assert other[2].pop("token") == "token"
    assert mine[2].pop("token") == f"{consumer.token}:1"  # each fetch has one of its own
    if not limiter:
        assert other[2].pop("limiter") is None  # an absent one is the same to the script
    assert mine == other
    await feed.close()


@pytest.mark.parametrize("target", ["completed", "failed"])
@pytest.mark.parametrize("remove", [None, True, False, 5, {"age": 60, "count": 3}])
@pytest.mark.parametrize("points", [0, 60])
async def test_finishing_a_job(target: str, remove: Any, points: int) -> None:
    opts = {"attempts": 2, **({} if remove is None else {"removeOnComplete": remove, "removeOnFail": remove})}
    theirs, ours = Theirs(), Ours(opts=opts, atm=1, name="worker-1", limiter=(3, 1000), max_data_points=points)
    job = Job(theirs_queue(theirs), "name", {}, dict(opts), "7")
    job.attemptsMade = 1
    if points:
        job.queue.opts["metrics"] = {"maxDataPoints": points}
    if target == "completed":
        ours.settler.complete(ours.lease, Raw(b'{"r":1}'), _nothing)
        their_keys, their_args = theirs.scripts.moveToCompletedArgs(job, {"r": 1}, remove, "token", fetchNext=True)
    else:
        ours.settler.fail(ours.lease, Failed("boom", "trace"), _nothing)
        fields = {"failedReason": "boom", "stacktrace": '["trace"]'}
        their_keys, their_args = theirs.scripts.moveToFailedArgs(job, "boom", remove, "token", True, fields)
    our_keys, our_args = ours.sent("moveToFinished")
    assert our_keys == their_keys
    mine, other = readable(our_args, 7, 8), readable(their_args, 7, 8)
    assert mine[7].pop("name") == "worker-1"  # for the job that is fetched along
    assert other[7].pop("attemptsMade") == 1  # no script reads it
    if isinstance(remove, bool):
        other[7]["keepJobs"] = {"count": 0 if remove else -1}  # their `type(True) == int` is never true, as it should
    assert mine == other


async def test_a_failed_job_that_waits_before_its_next_attempt() -> None:
    theirs, ours = Theirs(), Ours(opts={"attempts": 3, "backoff": {"type": "fixed", "delay": 700}})
    ours.settler.fail(ours.lease, Failed("boom", "trace"), _nothing)
    fields = {"failedReason": "boom", "stacktrace": '["trace"]'}
    opts = {"fetchNext": True, "fieldsToUpdate": fields, "workerOpts": {"lockDuration": 30_000}}
    their_keys, their_args = theirs.scripts.moveToDelayedArgs("7", 1_790_000_000_000, "token", 700, opts)
    our_keys, our_args = ours.sent("moveToDelayed")
    assert our_keys == their_keys
    mine, other = readable(our_args, 6, 8), readable(their_args, 6, 8)
    assert other[8].pop("limiter") is None
    assert mine == other


async def test_a_job_that_is_delayed_by_its_worker() -> None:
    theirs, ours = Theirs(), Ours()
    ours.settler.delay(ours.lease, 900, _nothing)
    opts = {"fetchNext": True, "skipAttempt": True, "workerOpts": {"lockDuration": 30_000}}
    their_keys, their_args = theirs.scripts.moveToDelayedArgs("7", 1_790_000_000_000, "token", 900, opts)
    our_keys, our_args = ours.sent("moveToDelayed")
    assert our_keys == their_keys
    mine, other = readable(our_args, 8), readable(their_args, 8)
    assert other[8].pop("limiter") is None
    assert mine == other


@pytest.mark.parametrize("lifo", [True, False])
async def test_a_failed_job_that_is_retried_at_once(lifo: bool) -> None:
    theirs, ours = Theirs(), Ours(opts={"attempts": 3, "lifo": lifo})
    ours.settler.fail(ours.lease, Failed("boom", "trace"), _nothing)
    fields = {"failedReason": "boom", "stacktrace": '["trace"]'}
    their_keys, their_args = theirs.scripts.retryJobArgs("7", lifo, "token", {"fieldsToUpdate": fields})
    our_keys, our_args = ours.sent("retryJob")
    assert our_keys == their_keys
    assert readable(our_args, 5) == readable(their_args, 5)


async def test_waiting_for_children() -> None:
    theirs, ours = Theirs(), Ours()
    ours.settler.wait_children(ours.lease, _nothing)
    their_keys, their_args = theirs.scripts.moveToWaitingChildrenArgs("7", "token", {})
    our_keys, our_args = ours.sent("moveToWaitingChildren")
    assert our_keys == their_keys
    assert readable(our_args) == readable(their_args)


async def test_giving_a_job_back() -> None:
    """The package has the script on its disk, but no builder; these are Node's KEYS (`moveJobFromActiveToWaitArgs`)."""
    ours = Ours()
    ours.settler.release(ours.lease, _nothing)
    keys, args = ours.sent("moveJobFromActiveToWait")
    names = ["active", "wait", "stalled", "paused", "meta", "limiter", "prioritized", "marker", "events"]
    assert keys == [f"p:q:{name}" for name in names]
    assert readable(args) == ["7", "token", "p:q:7"]


def test_a_lock_that_is_due_at_once_does_not_keep_others_from_being_renewed() -> None:
    """On the event loop of shards, whose handles of calls that are due differ from those of others."""

    async def track() -> None:
        renewer, loop = LockRenewer(), asyncio.get_running_loop()
        for renew_at in (loop.time() - 1, loop.time() + 1, loop.time() - 2):
            ours = Ours(lock_duration=30_000)
            ours.lease.renew_at = renew_at
            renewer.track(ours.queue, ours.lease)
        renewer.close()

    uvloop.run(track())


async def test_renewing_locks() -> None:
    theirs, ours = Theirs(), Ours(lock_duration=30_000)
    theirs.scripts.extendJobLocks(["7"], ["token"], 30_000)
    renewer = LockRenewer()
    ours.lease.renew_at = asyncio.get_running_loop().time()
    renewer.track(ours.queue, ours.lease)
    await eventually(lambda: ours.link.commands, "the locks are renewed")
    renewer.close()
    their_keys, their_args = theirs.calls["extendLocks"]
    our_keys, our_args = ours.sent("extendLocks")
    assert our_keys == their_keys
    assert readable(our_args, 1, 2) == readable(their_args, 1, 2)


async def test_looking_for_stalled_jobs() -> None:
    theirs, ours = Theirs(), Ours(max_stalled_count=2, stalled_interval=5000)
    theirs.scripts.moveStalledJobsToWait(2, 5000)
    checker = StalledChecker(ours.queue, SafetyNet(5.0))
    checker.join(ours.consumer)
    checker.close()
    their_keys, their_args = theirs.calls["moveStalledJobsToWait"]
    our_keys, our_args = ours.sent("moveStalledJobsToWait")
    assert our_keys == their_keys
    assert readable(our_args) == readable(their_args)


CONTEXT: Any = Context(None, Rights(EVERYTHING))  # type: ignore[arg-type] # these functions need no broker
CALLS: list[tuple[str, list[Any], str, Callable[[Scripts], Any]]] = [
    ("pause", [], "pause", lambda scripts: scripts.pause(True)),
    ("resume", [], "pause", lambda scripts: scripts.pause(False)),
    ("retryJobs", [RetryJobsOptions(count=5)], "moveJobsToWait", lambda scripts: scripts.retryJobs("failed", 5, 0)),
    ("promoteJobs", [PromoteJobsOptions(count=5)], "moveJobsToWait", lambda scripts: scripts.promoteJobs(5)),
    ("getJobCounts", ["waiting", "failed"], "getCounts", lambda scripts: scripts.getCounts(["waiting", "failed"])),
    ("getJobState", ["7"], "getStateV2", lambda scripts: scripts.getState("7")),
    ("promoteJob", ["7"], "promote", lambda scripts: scripts.promote("7")),
]


@pytest.mark.parametrize(("fn", "args", "script", "build"), CALLS)
async def test_functions_run_a_script_as_the_package_does(
    fn: str, args: list[Any], script: str, build: Callable[[Scripts], Any]
) -> None:
    theirs, ours = Theirs(), Ours()
    await build(theirs.scripts)
    function = TABLE[fn]
    call = function.run(ours.queue, *args, **({"context": CONTEXT} if function.in_context else {}))
    call.send(None)  # up to its first command
    call.close()
    their_keys, their_args = theirs.calls[script]
    our_keys, our_args = ours.sent(script)
    assert our_keys == their_keys[: len(our_keys)]  # theirs for `promote` are more than the script takes
    assert readable(our_args) == readable(their_args)


def add(ours: Ours, opts: dict[str, Any]) -> None:
    ours.queue.add(("name", Raw(b'{"n":1}'), ours.queue.options.prepare(Raw(encode(opts)))), _nothing)


@pytest.mark.parametrize(
    ("send", "script"),
    [
        (lambda ours: add(ours, {}), "addStandardJob"),
        (lambda ours: add(ours, {"delay": 5}), "addDelayedJob"),
        (lambda ours: add(ours, {"priority": 5}), "addPrioritizedJob"),
        (lambda ours: ours.settler.complete(ours.lease, Raw(b"1"), _nothing), "moveToFinished"),
        (lambda ours: ours.settler.delay(ours.lease, 1, _nothing), "moveToDelayed"),
        (lambda ours: ours.settler.release(ours.lease, _nothing), "moveJobFromActiveToWait"),
        (lambda ours: ours.settler.wait_children(ours.lease, _nothing), "moveToWaitingChildren"),
        (
            lambda ours: StalledChecker(ours.queue, SafetyNet(5.0)).join(ours.consumer),
            "moveStalledJobsToWait",
        ),
        (lambda ours: ours.queue.scripts["moveToActive"].run(ours.queue.active_keys, []), "moveToActive"),
    ],
)
async def test_a_script_gets_as_many_keys_as_its_file_says(send: Callable[[Ours], Any], script: str) -> None:
    ours = Ours()
    send(ours)
    keys, _ = ours.sent(script)
    [file] = COMMANDS.glob(f"{script}-*.lua")
    assert len(keys) == int(file.stem.rpartition("-")[2])


async def test_every_script_that_we_name_is_there() -> None:
    assert set(SCRIPT_DEFINITIONS) <= set(script_texts())
    assert {"addLog", "getRateLimitTtl", "moveJobFromActiveToWait", "countVanished"} <= set(script_texts())
