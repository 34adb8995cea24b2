"""How an active job moves on: the script for each way, with its KEYS and ARGV, from plain facts about the job.

Answers on Worker connections (`settling.py`) and consuming by hand (`manual.py`) go these ways.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.scripts import HOLE, Template
from bullmq_proxy.gateway.broker.redis.socket import Sink
from bullmq_proxy.gateway.rules.jobs import Hash, read_options, stacktrace
from bullmq_proxy.gateway.rules.options import now_ms, pack
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.values.numbers import parse_int
from bullmq_proxy.gateway.wire.answers import Failed
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions


class ActiveJob(Protocol):
    """A job in somebody's hands: what moving it on needs to know of it."""

    @property
    def id(self) -> str:
        """The job's id."""

    @property
    def token(self) -> str:
        """Of its lock."""

    @property
    def options(self) -> dict[str, Any]:
        """As stored, with their short names."""

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

    def __init__(self, id: str, token: str, fields: Hash, scripts: ScriptOptions) -> None:
        self.id = id
        self.token = token
        self.options = read_options(fields.get(b"opts"))
        self.attempts_made = parse_int(fields.get(b"atm")) or 0
        self.priority = parse_int(fields.get(b"priority")) or 0
        self.stacktrace = fields.get(b"stacktrace")
        self.scripts = scripts


class Move:
    """One way for a job to leave `active`.

    Attributes:
        state: that the job is in then.
        script: that moves it; its name is also the command in BullMQ's error texts.
        send: takes whether to fetch the next job along, and what takes the script's reply.
        charges: an attempt.
    """

    __slots__ = ("charges", "script", "send", "state")

    def __init__(self, state: str, script: str, send: Callable[[bool, Sink], None], *, charges: bool) -> None:
        self.state = state
        self.script = script
        self.send = send
        self.charges = charges


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
        fields = pack(_failure_fields(job, failure))
        if job.attempts_made + 1 < _number(job.options.get("attempts")) and not failure.unrecoverable:
            delay = backoff_delay(job.options.get("backoff"), job.attempts_made + 1)
            if delay > 0:
                return Move("delayed", "moveToDelayed", partial(self._delayed, job, delay, "0", fields), charges=True)
            return Move("waiting", "retryJob", partial(self._retried, job, fields), charges=True)
        return Move("failed", "moveToFinished", partial(self._failed, job, failure.message, fields), charges=True)

    def release(self, job: ActiveJob) -> Move:
        """Give the job back: first in line."""
        return Move("waiting", "moveJobFromActiveToWait", partial(self._released, job), charges=False)

    def delay(self, job: ActiveJob, milliseconds: int) -> Move:
        """Give the job back to wait for some time."""
        return Move("delayed", "moveToDelayed", partial(self._delayed, job, milliseconds, "1", b""), charges=False)

    def wait_children(self, job: ActiveJob, child: str = "") -> Move:
        """Let the job wait for its children, or for the one with the key `child`, if it is pending."""
        return Move("waiting-children", "moveToWaitingChildren", partial(self._parked, job, child), charges=False)

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
        self._failing.send((*self._finished(job, "failed", message.encode(), fetch), fields), sink)

    def _finished(self, job: ActiveJob, target: str, value: bytes, fetch: bool) -> tuple[bytes, ...]:
        """Return what fills the holes of `_finishing`, without those at its end."""
        id = job.id.encode()
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
        push = "RPUSH" if job.options.get("lifo") else "LPUSH"
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


def backoff_delay(backoff: Any, attempts_made: int) -> int:
    """Milliseconds until the next attempt (Node's backoffs.js).

    Args:
        backoff: as stored: `{"type", "delay", "jitter"?}`, or a number for a fixed delay, or nothing.
        attempts_made: the attempts so far, this failure counted.

    A type that only a custom worker knows is treated as `fixed`: the gateway cannot ask the client's code.
    """
    if isinstance(backoff, dict):
        delay, jitter = _number(backoff.get("delay")), _number(backoff.get("jitter"))
        if backoff.get("type") == "exponential":
            delay = round(2.0 ** min(attempts_made - 1, 62) * delay)
    else:
        delay, jitter = _number(backoff), 0
    if jitter > 0:
        return int(random.random() * delay * jitter + delay * (1 - jitter))
    return int(delay)


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _failure_fields(job: ActiveJob, failure: Failed) -> list[str]:
    """Return `failedReason` and `stacktrace` as the flat array that the scripts unpack, the newest trace last."""
    traces = [*stacktrace(job.stacktrace), failure.stack or f"Error: {failure.message}"]
    limit = job.options.get("stackTraceLimit")
    if isinstance(limit, int):
        traces = traces[-limit:] if limit > 0 else []
    return ["failedReason", failure.message, "stacktrace", encode(traces).decode()]


class ScriptOptions:
    """The packed options of the scripts that take or finish jobs for one worker; nearly all of its jobs share them."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        limiter = options.limiter
        self._limits = {"max": limiter[0], "duration": limiter[1]} if limiter else None
        self._fetch = _open_map(lockDuration=options.lock_duration, limiter=self._limits, name=options.name)
        self._finish: dict[Any, bytes] = {}

    def fetch(self, token: str) -> bytes:
        """Return the options of moveToActive-11.lua."""
        return with_token(token, self._fetch)

    def finish(self, job: ActiveJob, target: str) -> bytes:
        """Return the options of moveToFinished-14.lua.

        Args:
            job: to be finished.
            target: `completed` or `failed`.
        """
        options = job.options
        remove = options.get("removeOnComplete" if target == "completed" else "removeOnFail")
        flags = tuple(bool(options.get(flag)) for flag in _FLAGS)
        key = (target, repr(remove), repr(options.get("attempts")), flags)
        packed = self._finish.get(key)
        if packed is None:
            if len(self._finish) >= 64:
                self._finish.clear()
            packed = self._finish[key] = self._pack_finish(remove, target, options, flags)
        return with_token(job.token, packed)

    def _pack_finish(self, remove: Any, target: str, options: dict[str, Any], flags: tuple[bool, ...]) -> bytes:
        own = self._options.remove_on_complete if target == "completed" else self._options.remove_on_fail
        return _open_map(
            name=self._options.name,
            keepJobs=keep_jobs(own if remove is None else remove),
            limiter=self._limits,
            lockDuration=self._options.lock_duration,
            attempts=attempts if isinstance(attempts := options.get("attempts"), int) else 0,
            maxMetricsSize=self._options.max_data_points or "",
            **dict(zip(_FLAGS, flags, strict=True)),
        )


_FLAGS = ("fpof", "cpof", "idof", "rdof")


def keep_jobs(remove: Any) -> dict[str, Any]:
    """BullMQ's `removeOnComplete` / `removeOnFail` as the scripts want it (Node's `getKeepJobs`)."""
    if isinstance(remove, dict):
        return remove
    if isinstance(remove, int | float) and not isinstance(remove, bool):
        return {"count": remove}
    return {"count": 0 if remove else -1}


_TOKEN = pack("token")


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
