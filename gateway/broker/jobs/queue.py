"""One queue as this shard sees it: its keys, its scripts, and the way of an `add`."""

from __future__ import annotations

import asyncio
import base64
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import hiredis
from msgspec import Raw

from bullmq_proxy import gateway
from bullmq_proxy.gateway.broker.jobs.add_if_absent import AddIfAbsent
from bullmq_proxy.gateway.broker.jobs.counts import Counts, QueueCounts
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink, Links
from bullmq_proxy.gateway.broker.redis.errors import is_forgotten, reply_error
from bullmq_proxy.gateway.broker.redis.replicas import Replicas
from bullmq_proxy.gateway.broker.redis.scripts import HOLE, Script, scripts_on
from bullmq_proxy.gateway.broker.redis.socket import Sink, TwoStepSink, pack_command, packable, resolve
from bullmq_proxy.gateway.broker.redis.troubles import Troubles
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error, invalid_arguments
from bullmq_proxy.gateway.rules.jobs import created_job
from bullmq_proxy.gateway.rules.options import OptionsCache, Prepared, now_ms, pack
from bullmq_proxy.gateway.turns import Turns
from bullmq_proxy.gateway.values.json_text import error_json
from bullmq_proxy.gateway.values.text import as_packed_by_node, bytes_of

# KEYS of the scripts that store a job (addStandardJob-9.lua and its siblings).
_STANDARD: Final = ("wait", "paused", "meta", "id", "completed", "delayed", "active", "events", "marker")
_DELAYED: Final = ("marker", "meta", "id", "delayed", "completed", "events")
_PRIORITIZED: Final = (
    "marker",
    "meta",
    "id",
    "prioritized",
    "delayed",
    "completed",
    "active",
    "events",
    "pc",
)
# KEYS of addParentJob-6.lua.
_PARENT: Final = ("meta", "id", "delayed", "waiting-children", "completed", "events")
# KEYS of moveToActive-11.lua.
_ACTIVE: Final = (
    "wait",
    "active",
    "prioritized",
    "events",
    "stalled",
    "limiter",
    "delayed",
    "paused",
    "meta",
    "pc",
    "marker",
)
# KEYS of moveJobFromActiveToWait-9.lua.
_RELEASE: Final = (
    "active",
    "wait",
    "stalled",
    "paused",
    "meta",
    "limiter",
    "prioritized",
    "marker",
    "events",
)
MOST_ROW: Final = 2**16
"""Bytes of one row of a job's log."""

MOST_ROWS: Final = 10_000
"""Of a job's log; the last ones stay."""

LARGE_REPLIES: Final = 2
"""Places of a shard for replies that are being put together; each may have some ten MiB."""

_VERSION: Final = f"bullmq-proxy:{gateway.__version__}"
_MULTI: Final = pack_command("MULTI")
_EXEC: Final = pack_command("EXEC")

AddArgs = tuple[bytes, Raw, bytes]
"""ARGV of the scripts that store a job: facts about it, its data, its options."""

NewJob = tuple[str, Raw, Prepared]
"""A job to add: its name, its data as JSON text, its checked options."""


class Queue:
    """One queue; shared by all sessions of a shard that use it."""

    def __init__(
        self,
        prefix: str,
        name: str,
        link: CommandLink,
        scripts: Mapping[str, Script],
        max_len_events: int | None = None,
        large_replies: asyncio.Semaphore | None = None,
        troubles: Troubles | None = None,
        turns: Turns | None = None,
        replicas: Replicas | None = None,
        counts: QueueCounts | None = None,
    ) -> None:
        self.prefix = prefix
        self.name = name
        self.qualified = f"{prefix}:{name}"
        self.base = f"{prefix}:{name}:"
        self.link = link
        self.scripts = scripts
        self.large_replies = large_replies or asyncio.Semaphore(LARGE_REPLIES)
        self.troubles = troubles or Troubles()
        self.turns = turns or Turns()
        self.replicas = replicas
        self.counts = counts or Counts().of(name)
        self.options = OptionsCache()
        self.active_keys = self.keys(*_ACTIVE)
        self.release_keys = self.keys(*_RELEASE)
        self._max_len_events = max_len_events
        self._is_introduced = False
        self.adder_keys = {
            "addStandardJob": self.keys(*_STANDARD),
            "addDelayedJob": self.keys(*_DELAYED),
            "addPrioritizedJob": self.keys(*_PRIORITIZED),
            "addParentJob": self.keys(*_PARENT),
        }
        self._adders = {
            script: scripts[script].template(self.adder_keys[script], (HOLE, HOLE, HOLE))
            for script in ("addStandardJob", "addDelayedJob", "addPrioritizedJob")  # parents come in flows only
        }

    @property
    def client_name(self) -> str:
        """The name by which BullMQ knows the connections of this queue's workers (`QueueBase.clientName`)."""
        return f"{self.prefix}:{base64.b64encode(self.name.encode()).decode()}"

    def key(self, name: str) -> str:
        """Return `<prefix>:<queue>:<name>`."""
        return self.base + name

    def keys(self, *names: str) -> list[str]:
        """Return the keys of several names."""
        return [self.base + name for name in names]

    def wake(self) -> None:
        """Wake an idle worker by the queue's marker: moveJobFromActiveToWait does not for jobs with a priority."""
        self.put_marker(b"0", b"0")

    def put_marker(self, member: bytes, score: bytes) -> None:
        """Set a marker: member `0` for a job that waits, `1` with a time for a delayed one."""
        self.link.send(pack_command("ZADD", self.key("marker"), score, member), _ignore)

    def introduce(self) -> None:
        """Write into `meta` who adds to the queue, and how many events it keeps, as each Node `Queue` when it is made.

        A version that stands there stays: it may be that of those whose queue it is.
        """
        if self._is_introduced:
            return
        self._is_introduced = True
        meta = self.key("meta")
        self.link.send(pack_command("HSETNX", meta, "version", _VERSION), self._introduced)
        if self._max_len_events is not None:
            self.link.send(pack_command("HSET", meta, "opts.maxLenEvents", self._max_len_events), self._introduced)

    def _introduced(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            self._is_introduced = False

    # Adding jobs

    def add(self, job: NewJob, sink: Sink) -> None:
        """Store a job and give its JSON text, in parts, to `sink`; or the GatewayError that stopped it."""
        name, data, options = job
        if self.replicas is not None:
            sink = partial(self.replicas.hold, self.link, self.prefix, sink)
        self.introduce()
        timestamp = options.timestamp or now_ms()
        args = self.add_args(options.job_id, name, data, options, timestamp)
        if options.may_be_duplicate:
            self._add_watching(job, timestamp, args, sink)
        else:
            self._adders[adder(options)].send(args, partial(self._added, job, timestamp, sink))

    def _added(self, job: NewJob, timestamp: int, sink: Sink, reply: Any, *, duplicate: bool = False) -> None:
        name, data, options = job
        if isinstance(reply, bytes):
            if not duplicate:
                self.counts.add()
            sink(created_job(reply, name, data, options, timestamp, self.qualified, duplicate=duplicate))
        elif isinstance(reply, int):
            sink(finished_error(reply, command="addJob", parent_key=options.parent_key))
        else:
            sink(reply)

    def _add_watching(self, job: NewJob, timestamp: int, args: AddArgs, sink: Sink, *, full: bool = False) -> None:
        """Store a job that may be there already.

        The scripts answer with an id in both cases; whether it was there is seen by a look right before, in one
        transaction. `full` sends the script's text, once Redis has said that it does not know the hash.
        """
        options = job[2]
        script = adder(options)

        def run(script: str, keys: list[Any], args: list[Any]) -> bytes:
            return self.scripts[script].pack(keys, args, full=full)

        watched = AddIfAbsent(self.base, options.job_id, options, timestamp, is_own=bool(options.job_id))
        commands = [
            _MULTI,
            *watched.commands(run(script, self.adder_keys[script], packable(args)), run),
            _EXEC,
        ]
        taken = partial(self._watched, job, timestamp, args, sink, full, watched)
        self.link.send(b"".join(commands), taken, replies=len(commands))

    def _watched(
        self,
        job: NewJob,
        timestamp: int,
        args: AddArgs,
        sink: Sink,
        full: bool,
        watched: AddIfAbsent,
        replies: Any,
    ) -> None:
        if isinstance(replies, Exception):
            sink(reply_error(replies))
            return
        id, duplicate = watched.take(iter(replies))
        if isinstance(id, hiredis.ReplyError):
            if is_forgotten(id) and not full:
                self._add_watching(job, timestamp, args, sink, full=True)
            else:
                sink(reply_error(id))
            return
        self._added(job, timestamp, sink, id, duplicate=duplicate)

    def add_args(self, id: str, name: str, data: Raw, options: Prepared, timestamp: int) -> AddArgs:
        """Return what the scripts that store a job are told; an empty `id` makes them count one up.

        The key of a parent has its id as that job has it. Node replaces halves of surrogate pairs in it where the whole
        key is long: its scripts do not find the parent then, or a family waits for ever.
        """
        parent_key, deduplication_id = options.parent_key, options.deduplication_id
        return (
            pack(
                (
                    self.base,
                    id,
                    name if name.isascii() else as_packed_by_node(name),
                    timestamp,
                    parent_key,
                    f"{parent_key}:dependencies" if parent_key else None,
                    options.parent,
                    None,  # repeat job key: only schedulers have one
                    as_packed_by_node(f"{self.base}de:{deduplication_id}") if deduplication_id else None,
                )
            ),
            data,
            options.packed,
        )

    # What a job's worker writes down on it

    def update_progress(self, id: str, progress: bytes, sink: Sink) -> None:
        """Set a job's progress, JSON text; `sink` gets None, or the GatewayError that stopped it."""
        keys = self.keys(id, "events", "meta")
        self._write("updateProgress", id, keys, [id, progress], lambda result: sink(None if result == 0 else result))

    def add_log(self, id: str, row: str, keep: int | None, sink: Sink) -> None:
        """Add a row to a job's log, of which the last `keep` stay; `sink` gets their number, or a GatewayError."""
        if len(row) > MOST_ROW // 4 and len(bytes_of(row)) > MOST_ROW:
            sink(invalid_arguments(f"A row of a job's log has at most {MOST_ROW >> 10} KiB"))
            return
        self._write("addLog", id, self.keys(id, f"{id}:logs"), [id, row, min(keep or MOST_ROWS, MOST_ROWS)], sink)

    def _write(self, script: str, id: str, keys: list[str], args: list[Any], sink: Sink) -> None:
        def written(reply: Any) -> None:
            refused = isinstance(reply, int) and reply < 0
            sink(finished_error(reply, command=script, job_id=id) if refused else reply)

        self.scripts[script].send(keys, args, written)

    # Many jobs at once

    def add_bulk(self, jobs: list[NewJob], sink: Sink) -> None:
        """Store many jobs in their order and give the JSON text of the array to `sink`.

        A job that BullMQ refuses (its parent is missing) shows as `{"err": …}` in its place: the others are stored.
        When the link breaks on the way there is one error for all.
        """
        if not jobs:
            sink(b"[]")
            return
        Bulk(self, len(jobs), sink).add(jobs)


class Queues:
    """The queues of a shard; each is shared by all who use it at the same time, and forgotten when nobody does."""

    def __init__(
        self, prefix: str, link: Links, max_len_events: int | None = None, replicas: Replicas | None = None
    ) -> None:
        """Make the collection.

        Args:
            prefix: the gateway's own.
            link: for commands; it gives each queue its own.
            max_len_events: about how many events each queue's stream is to keep; None leaves that to the queue.
            replicas: that must have what is added before it is confirmed.
        """
        self.prefix = prefix
        self.replicas = replicas
        self.link = link
        self.turns = Turns()  # of all that is sent on the link
        self.counts = Counts()
        self._scripts: tuple[CommandLink, Mapping[str, Script]] | None = None  # on the link of the newest queue
        self._max_len_events = max_len_events
        self._large_replies = asyncio.Semaphore(LARGE_REPLIES)
        self._troubles = Troubles()
        self._queues: weakref.WeakValueDictionary[tuple[str, str], Queue] = weakref.WeakValueDictionary()

    def find(self, name: str) -> Queue | None:
        """Return the queue of a name and the gateway's own prefix, if anybody uses it."""
        return self._queues.get((self.prefix, name))

    def get(self, name: str, prefix: str | None = None) -> Queue:
        """Return the queue of a name, by default of the gateway's own prefix.

        Raises:
            GatewayError: INVALID_ARGUMENTS, it cannot be on a cluster.
        """
        key = (prefix or self.prefix, name)
        queue = self._queues.get(key)
        if queue is None:
            link = self.link.of(f"{key[0]}:{key[1]}:")
            if self._scripts is None or self._scripts[0] is not link:
                self._scripts = (link, scripts_on(link))
            queue = self._queues[key] = Queue(
                *key,
                *self._scripts,
                self._max_len_events,
                self._large_replies,
                self._troubles,
                self.turns,
                self.replicas,
                self.counts.of(name if key[0] == self.prefix else ""),
            )
        return queue


class Bulk:
    """One `addBulk`: sends its jobs, in slices where they are many, and collects the replies."""

    def __init__(self, queue: Queue, size: int, sink: Sink, turns: Turns | None = None) -> None:
        """Make one.

        Args:
            queue: that they are added to.
            size: how many jobs there are.
            sink: gets the JSON text of the array, as from `Queue.add_bulk`.
            turns: to which the turn of each job goes back.
        """
        self._queue = queue
        self._sink = sink
        self._turns = turns
        self._results: list[Any] = [None] * size
        self._missing = size
        self._unanswered = 0  # of those that were sent, by Redis
        self._sent = 0
        self._outage: GatewayError | None = None
        self._room: asyncio.Future[None] | None = None  # is waited for, with
        self._most = 0  # unanswered ones

    def add(self, jobs: list[NewJob]) -> None:
        """Store the next ones; but none once the link has lost one: jobs miss at the end, and not in between."""
        first, self._sent = self._sent, self._sent + len(jobs)
        self._unanswered += len(jobs)
        for index, job in enumerate(jobs, first):
            if self._outage is None:
                self._queue.add(job, TwoStepSink(partial(self._take, index), self._executed))
            else:
                self._executed()
                self._take(index, self._outage)

    async def wait_for(self, most: int) -> None:
        """Wait until at most so many of the jobs that were sent have no answer."""
        if self._unanswered > most:
            self._most, self._room = most, asyncio.get_running_loop().create_future()
            await self._room

    def _executed(self) -> None:
        self._unanswered -= 1
        if self._turns is not None:
            self._turns.give_back(1)
        if self._room is not None and self._unanswered <= self._most:
            resolve(self._room, None)
            self._room = None
        if not self._unanswered and self._sent == len(self._results) and isinstance(self._sink, TwoStepSink):
            self._sink.executed()

    def _take(self, index: int, result: Any) -> None:
        self._results[index] = result
        self._missing -= 1
        if isinstance(result, GatewayError) and _is_outage(result):
            self._outage = result
        if not self._missing:
            self._sink(self._whole())

    def _whole(self) -> bytes | GatewayError:
        broken = [result for result in self._results if isinstance(result, GatewayError) and _is_outage(result)]
        if len(broken) == len(self._results) and all(error.code is broken[0].code for error in broken):
            return broken[0]
        if broken:
            return GatewayError(
                ErrorCode.OUTCOME_UNKNOWN,
                f"{len(broken)} of {len(self._results)} jobs may not have been added",
            )
        return b"[%b]" % b",".join(
            b'{"err":%b}' % error_json(result) if isinstance(result, GatewayError) else b"".join(result)
            for result in self._results
        )


def _ignore(reply: Any) -> None:
    """Expect no reply: a lost marker costs its queue at most one round of polling."""


def _is_outage(error: GatewayError) -> bool:
    return error.code in (ErrorCode.REDIS_UNAVAILABLE, ErrorCode.OUTCOME_UNKNOWN, ErrorCode.SHUTTING_DOWN)


def adder(options: Prepared) -> str:
    """Return the script that stores a job with these options; Node's `addJobToTransaction` chooses in this order."""
    if options.delay > 0:
        return "addDelayedJob"
    return "addPrioritizedJob" if options.priority else "addStandardJob"
