"""How an active job moves on: the script for each way, with its KEYS and ARGV, from plain facts about the job.

Answers on Worker connections (`settling.py`) and consuming by hand (`manual.py`) go these ways.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.scripts import HOLE, Template
from bullmq_proxy.gateway.broker.redis.socket import Sink
from bullmq_proxy.gateway.rules.jobs import Hash, stacktrace
from bullmq_proxy.gateway.rules.options import now_ms, pack, pack_given
from bullmq_proxy.gateway.rules.stored_options import (
    PARENT_FLAGS,
    StoredOptions,
    backoff_delay,
    keep_jobs,
    limited_traces,
    stored_options,
)
from bullmq_proxy.gateway.values.json_text import encode_as_node
from bullmq_proxy.gateway.values.numbers import parse_int
from bullmq_proxy.gateway.values.text import as_argument_of_node, bytes_of, in_half_pairs, with_texts
from bullmq_proxy.gateway.wire.answers import Failed
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions

MOST_TRACES: Final = 2**18
"""Bytes of the stack traces that a job keeps; the newest one stays, however long."""


class ActiveJob(Protocol):
    """A job in somebody's hands: what moving it on needs to know of it."""

    @property
    def id(self) -> str:
        """The job's id."""

    @property
    def token(self) -> str:
        """Of its lock."""

    @property
    def options(self) -> StoredOptions:
        """As stored."""

    @property
    def attempts_made(self) -> int:
        """Those that have ended."""

    @property
    def stacktrace(self) -> bytes | None:
        """The stored traces: a JSON array."""

    @property
    def scripts(self) -> ScriptOptions:
        """What the scripts are told of the one who holds it."""


class JobOfToken:
    """A job that somebody holds by its token alone; its fields are those that were loaded."""

    FIELDS: Final = ("opts", "atm", "priority", "stacktrace")

    def __init__(self, id: str, token: str, fields: Hash) -> None:
        self.id = id
        self.token = token
        self.options = stored_options(fields.get(b"opts"))
        self.attempts_made = parse_int(fields.get(b"atm")) or 0
        self.priority = parse_int(fields.get(b"priority")) or 0
        self.stacktrace = fields.get(b"stacktrace")
        self.scripts = _OF_NOBODY


async def load_job(queue: Queue, id: str, token: str) -> JobOfToken:
    """Return what is stored of a job that somebody wants to move; the scripts find out whether it may be."""
    values = await queue.link.call("HMGET", queue.key(id), *JobOfToken.FIELDS, decode=False)
    named = zip(JobOfToken.FIELDS, values, strict=True)
    return JobOfToken(id, token, {name.encode(): value for name, value in named if value is not None})


class Move:
    """One way for a job to leave `active`.

    Attributes:
        state: that the job is in then.
        script: that moves it; its name is also the command in BullMQ's error texts.
        send: takes whether to fetch the next job along, and what takes the script's reply.
        charges: an attempt.
        delay: that the job then waits, in ms; None where it is not delayed.
    """

    __slots__ = ("charges", "delay", "script", "send", "state")

    def __init__(
        self, state: str, script: str, send: Callable[[bool, Sink], None], *, charges: bool, delay: int | None = None
    ) -> None:
        self.state = state
        self.script = script
        self.send = send
        self.charges = charges
        self.delay = delay


class Moves:
    """The ways out of `active` of one queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._base = queue.base.encode()
        self._completing = self._finishing("completed", "returnvalue")
        self._failing = self._finishing("failed", "failedReason", HOLE)  # and the job's other new fields
        self._delay = queue.keys("marker", "active", "prioritized", "delayed")
        self._delay_rest = queue.keys("events", "meta", "stalled", "wait", "limiter", "pc")

    def complete(self, job: ActiveJob, result: bytes) -> Move:
        """Store the job's return value: JSON text."""
        return Move("completed", "moveToFinished", partial(self._completed, job, result), charges=True)

    def fail(self, job: ActiveJob, failure: Failed) -> Move:
        """Let the job fail: again if BullMQ's attempts allow it, after its backoff, else for good."""
        fields = pack_given(_failure_fields(job, failure))
        delay = None if failure.unrecoverable else _retry_delay(job)
        if delay is not None:
            if delay > 0:
                return self._to_delayed(job, delay, fields, charges=True)
            return Move("waiting", "retryJob", partial(self._retried, job, fields), charges=True)
        return Move("failed", "moveToFinished", partial(self._failed, job, failure.message, fields), charges=True)

    def release(self, job: ActiveJob) -> Move:
        """Give the job back: first in line."""
        return Move("waiting", "moveJobFromActiveToWait", partial(self._released, job), charges=False)

    def delay(self, job: ActiveJob, milliseconds: int) -> Move:
        """Give the job back to wait for some time."""
        return self._to_delayed(job, milliseconds, b"", charges=False)

    def wait_children(self, job: ActiveJob, child: str = "") -> Move:
        """Let the job wait for its children, or for the one with the key `child`, if it is pending."""
        return Move("waiting-children", "moveToWaitingChildren", partial(self._parked, job, child), charges=False)

    def _to_delayed(self, job: ActiveJob, delay: int, fields: bytes, *, charges: bool) -> Move:
        send = partial(self._delayed, job, delay, "0" if charges else "1", fields)
        return Move("delayed", "moveToDelayed", send, charges=charges, delay=delay)

    # What the scripts take

    def _finishing(self, target: str, field: str, *more: object) -> Template:
        """Prepare a call of moveToFinished, the way of every job and most of a worker's time."""
        queue = self._queue
        rest = queue.keys(
            "wait", "active", "prioritized", "events", "stalled", "limiter", "delayed", "paused", "meta", "pc", target
        )
        keys = [*rest, HOLE, queue.key(f"metrics:{target}"), queue.key("marker")]
        args = (HOLE, HOLE, field, HOLE, target, HOLE, queue.base, HOLE, *more)
        return queue.scripts["moveToFinished"].template(keys, args)

    def _completed(self, job: ActiveJob, result: bytes, fetch: bool, sink: Sink) -> None:
        self._completing.send(self._finished(job, "completed", result, fetch), sink)

    def _failed(self, job: ActiveJob, message: str, fields: bytes, fetch: bool, sink: Sink) -> None:
        self._failing.send((*self._finished(job, "failed", as_argument_of_node(message).encode(), fetch), fields), sink)

    def _finished(self, job: ActiveJob, target: str, value: bytes, fetch: bool) -> tuple[bytes, ...]:
        """Return what fills the holes of `_finishing`, without those at its end."""
        id = bytes_of(job.id)
        return (
            self._base + id,
            id,
            b"%d" % now_ms(),
            value,
            b"1" if fetch else b"",
            job.scripts.finish(job, target),
        )

    def _delayed(self, job: ActiveJob, delay: int, skip_attempt: str, fields: bytes, fetch: bool, sink: Sink) -> None:
        queue, token = self._queue, job.token
        keys = [*self._delay, queue.key(job.id), *self._delay_rest]
        args = [queue.base, now_ms(), job.id, token, delay, skip_attempt, fields]
        if fetch:
            args += ["1", job.scripts.fetch(token)]
        queue.scripts["moveToDelayed"].send(keys, args, sink)

    def _retried(self, job: ActiveJob, fields: bytes, fetch: bool, sink: Sink) -> None:
        queue = self._queue
        keys = [
            *queue.keys("active", "wait", "paused"),
            queue.key(job.id),
            *queue.keys("meta", "events", "delayed", "prioritized", "pc", "marker", "stalled"),
        ]
        push = "RPUSH" if job.options.lifo else "LPUSH"
        args = [queue.base, now_ms(), push, job.id, job.token, fields]
        queue.scripts["retryJob"].send(keys, args, sink)

    def _released(self, job: ActiveJob, fetch: bool, sink: Sink) -> None:
        queue = self._queue
        args = [job.id, job.token, queue.key(job.id)]
        queue.scripts["moveJobFromActiveToWait"].send(queue.release_keys, args, sink)

    def _parked(self, job: ActiveJob, child: str, fetch: bool, sink: Sink) -> None:
        queue, id = self._queue, job.id
        keys = [
            *queue.keys("active", "waiting-children"),
            *queue.keys(id, f"{id}:dependencies", f"{id}:unsuccessful"),
            *queue.keys("stalled", "events"),
        ]
        args = [job.token, child, now_ms(), id, queue.base]
        queue.scripts["moveToWaitingChildren"].send(keys, args, sink)


def _retry_delay(job: ActiveJob) -> int | None:
    """Return the milliseconds until the next attempt, or None when there is to be none."""
    made = job.attempts_made + 1
    return backoff_delay(job.options.backoff, made) if made < job.options.attempts else None


def _failure_fields(job: ActiveJob, failure: Failed) -> list[str]:
    """Return `failedReason` and `stacktrace` as the flat array that the scripts unpack, the newest trace last."""
    traces = [*with_texts(stacktrace(job.stacktrace), in_half_pairs), failure.stack or f"Error: {failure.message}"]
    kept = limited_traces(traces, job.options.stack_trace_limit)
    text = encode_as_node(kept)
    while len(text) > MOST_TRACES and len(kept) > 1:
        kept = kept[len(kept) // 2 :]  # an attempt in so many costs more than it would to find the last one that fits
        text = encode_as_node(kept)
    return ["failedReason", failure.message, "stacktrace", text.decode()]


class ScriptOptions:
    """The packed options of the scripts that take or finish jobs for one worker; nearly all of its jobs share them."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        limiter = options.limiter
        self._limits = {"max": limiter[0], "duration": limiter[1]} if limiter else None
        self._fetch = _open_map(lockDuration=options.lock_duration, limiter=self._limits, name=options.name)
        self._finish: dict[tuple[str, str], bytes] = {}

    def fetch(self, token: str) -> bytes:
        """Return the options of moveToActive-11.lua."""
        return with_token(token, self._fetch)

    def finish(self, job: ActiveJob, target: str) -> bytes:
        """Return the options of moveToFinished-14.lua.

        Args:
            job: to be finished.
            target: `completed` or `failed`.
        """
        key = (target, job.options.key)
        packed = self._finish.get(key)
        if packed is None:
            if len(self._finish) >= 64:
                self._finish.clear()
            packed = self._finish[key] = self._pack_finish(target, job.options)
        return with_token(job.token, packed)

    def _pack_finish(self, target: str, options: StoredOptions) -> bytes:
        if target == "completed":
            kept, own = options.keep_completed, self._options.remove_on_complete
        else:
            kept, own = options.keep_failed, self._options.remove_on_fail
        return _open_map(
            name=self._options.name,
            keepJobs=kept or keep_jobs(own),
            limiter=self._limits,
            lockDuration=self._options.lock_duration,
            attempts=options.attempts,
            maxMetricsSize=self._options.max_data_points or "",
            **dict(zip(PARENT_FLAGS, options.flags, strict=True)),
        )


_TOKEN: Final = pack("token")


def _open_map(**options: Any) -> bytes:
    """Return a msgpack map of the options that are set, with a place for a token at its end left open.

    Its first byte counts the entries: a fixmap, 0x80 + n, since there are never 15 of them.
    """
    given = {name: value for name, value in options.items() if value is not None}
    assert len(given) < 15
    return bytes((0x80 + len(given) + 1,)) + pack(given)[1:] + _TOKEN


def with_token(token: str, open_map: bytes) -> bytes:
    """Return the map with its token: cheaper than packing all of it for each job."""
    return open_map + pack(token)


_OF_NOBODY: Final = ScriptOptions(WorkerOptions())  # of one who holds a job by its token alone
