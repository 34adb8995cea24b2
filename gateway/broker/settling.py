"""How a lease ends: completed, failed, given back, delayed, waiting for children, or its holder vanished.

A final answer is never thrown away because Redis is slow or gone: it is sent again until Redis has said what became of
it. Sending it again is safe: each of the scripts checks the lock first and removes it, and no two leases of a job have
the same token.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from msgspec import Raw

from gateway.broker.connection import pack_command
from gateway.broker.errors import OUTAGE
from gateway.broker.leases import Consumer, Lease
from gateway.broker.queue import Queue
from gateway.wire.answers import Failed
from gateway.wire.envelope import encode
from gateway.wire.errors import ErrorCode, GatewayError, finished_error
from gateway.wire.jobs import stacktrace
from gateway.wire.numbers import parse_int
from gateway.wire.options import now_ms, pack

log = logging.getLogger(__name__)

Done = Callable[["str | GatewayError"], None]
"""Is told the state that the job is in now, or why the answer could not be stored."""

Call = tuple[str, list[str], list[Any]]
"""A script's name, its KEYS and its ARGV."""

STALLED_TOO_OFTEN: Final = "job stalled more than allowable limit"  # moveStalledJobsToWait-9.lua
_MISSING, _NO_LOCK, _NOT_ACTIVE, _PENDING, _OTHER_LOCK, _FAILED_CHILD = -1, -2, -3, -4, -6, -9
_LOOKING: Final = ("moveToFinished", "moveToDelayed")  # the scripts that can fetch the next job
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # s between two tries


_FOUND_NOTHING: Final = [0, 0, 0, 0]  # no job, no limit, no delayed job


class Feed(Protocol):
    """What settling needs of the feed that the lease came from."""

    def may_fetch(self, consumer: Consumer) -> bool:
        """Whether finishing a job should bring the consumer its next one."""

    def settled(self, lease: Lease, reply: Any, *, looked: bool) -> None:
        """The lease is over; `reply` may hold the next job, if the script `looked` for one."""


class _Settlement:
    """One final answer on its way."""

    __slots__ = ("build", "charges", "command", "done", "doubtful", "lease", "looked", "pause", "state")

    def __init__(self, lease: Lease, state: str, command: str, build: Callable[[bool], Call], done: Done) -> None:
        self.lease = lease
        self.charges = command in ("moveToFinished", "retryJob")  # an attempt; also a retry after a delay
        self.state = state
        self.command = command
        self.build = build  # takes: fetch the next job?
        self.done = done
        self.doubtful = False  # an earlier try may have succeeded
        self.looked = False  # this try looks for the next job
        self.pause = _FIRST_PAUSE


class Settler:
    """Ends the leases of one queue."""

    def __init__(self, queue: Queue, feed: Feed) -> None:
        self._queue = queue
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._finish = queue.keys(
            "wait", "active", "prioritized", "events", "stalled", "limiter", "delayed", "paused", "meta", "pc"
        )
        self._delay = queue.keys("marker", "active", "prioritized", "delayed")
        self._delay_rest = queue.keys("events", "meta", "stalled", "wait", "limiter", "pc")

    # The answers

    def complete(self, lease: Lease, result: Raw, done: Done) -> None:
        """Store the job's return value: JSON text, as the client wrote it."""
        self._settle(lease, "completed", "moveToFinished", partial(self._completed, lease, bytes(result)), done)

    def fail(self, lease: Lease, failure: Failed, done: Done) -> None:
        """Let the job fail: again if BullMQ's attempts allow it, after its backoff, else for good."""
        fields = _failure_fields(lease, failure)
        if lease.attempts_made + 1 < _number(lease.options.get("attempts")) and not failure.unrecoverable:
            delay = backoff_delay(lease.options.get("backoff"), lease.attempts_made + 1)
            if delay > 0:
                build = partial(self._delayed, lease, delay, "0", pack(fields))
                self._settle(lease, "delayed", "moveToDelayed", build, done, charges=True)
            else:
                self._settle(lease, "waiting", "retryJob", partial(self._retried, lease, pack(fields)), done)
        else:
            build = partial(self._failed, lease, failure.message, pack(fields))
            self._settle(lease, "failed", "moveToFinished", build, done)

    def release(self, lease: Lease, done: Done) -> None:
        """Give the job back: first in line, no attempt charged."""
        self._settle(lease, "waiting", "moveJobFromActiveToWait", partial(self._released, lease), done)

    def delay(self, lease: Lease, milliseconds: int, done: Done) -> None:
        """Give the job back to wait for some time, no attempt charged."""
        build = partial(self._delayed, lease, milliseconds, "1", b"")
        self._settle(lease, "delayed", "moveToDelayed", build, done)

    def wait_children(self, lease: Lease, done: Done) -> None:
        """Let the job wait for its children. With none pending the lease goes on, and `done` gets a CONFLICT."""
        build = partial(self._parked, lease)
        self._settle(lease, "waiting-children", "moveToWaitingChildren", build, done)

    def vanish(self, lease: Lease) -> None:
        """The holder is gone: give the job back, or fail it when its holders vanish over and over."""
        keys = self._queue.keys(lease.id, f"{lease.id}:lock")
        lease.settling = True
        self._queue.commands["countVanished"].send(keys, [lease.token], partial(self._vanished, lease))

    def _vanished(self, lease: Lease, reply: Any) -> None:
        """Not counted (Redis was away) still means given back; not ours any more is for `release` to find out."""
        if isinstance(reply, int) and reply > 0:
            lease.stalled = reply
        if isinstance(reply, int) and reply > lease.consumer.options.max_stalled_count:
            self.fail(lease, Failed(STALLED_TOO_OFTEN, unrecoverable=True), _log_outcome(lease))
        else:
            self.release(lease, _log_outcome(lease))

    # Sending, and sending again

    def _settle(
        self,
        lease: Lease,
        state: str,
        command: str,
        build: Callable[[bool], Call],
        done: Done,
        *,
        charges: bool = False,
    ) -> None:
        lease.settling = True
        settlement = _Settlement(lease, state, command, build, done)
        settlement.charges = charges or settlement.charges
        self._send(settlement, self._feed.may_fetch(lease.consumer))

    def _send(self, settlement: _Settlement, fetch: bool) -> None:
        settlement.looked = fetch and settlement.command in _LOOKING
        script, keys, args = settlement.build(fetch)
        self._queue.commands[script].send(keys, args, partial(self._replied, settlement))

    def _replied(self, settlement: _Settlement, reply: Any) -> None:
        if isinstance(reply, GatewayError):
            if reply.code in OUTAGE:
                self._try_again(settlement, reply)
            else:
                self._end(settlement, reply)
        elif isinstance(reply, int) and reply < 0:
            self._refused(settlement, reply)
        elif settlement.command == "moveToWaitingChildren" and reply == 1:
            self._go_on(settlement)
        else:
            self._end(settlement, settlement.state, reply)

    def _go_on(self, settlement: _Settlement) -> None:
        """No children to wait for: the job is the client's as before, unless that has gone meanwhile."""
        lease = settlement.lease
        lease.settling = False
        settlement.done(GatewayError(ErrorCode.CONFLICT, f"Job {lease.id} has no pending children"))
        if not lease.consumer.open:
            self.vanish(lease)

    def _try_again(self, settlement: _Settlement, error: GatewayError) -> None:
        if error.code is ErrorCode.OUTCOME_UNKNOWN:
            settlement.doubtful = True
        self._loop.call_later(settlement.pause, self._send, settlement, False)
        settlement.pause = min(settlement.pause * 2, _LONGEST_PAUSE)

    def _refused(self, settlement: _Settlement, code: int) -> None:
        lease = settlement.lease
        if settlement.doubtful and code in (_MISSING, _NO_LOCK, _NOT_ACTIVE, _OTHER_LOCK):
            self._find_out(settlement, code)
        elif settlement.state == "completed" and code in (_PENDING, _FAILED_CHILD):
            # As Node's worker: what cannot be completed fails with the reason, for good when a child failed.
            error = self._error(settlement, code)
            self.fail(lease, Failed(error.message, unrecoverable=code == _FAILED_CHILD), settlement.done)
        else:
            self._end(settlement, self._error(settlement, code))

    def _find_out(self, settlement: _Settlement, code: int) -> None:
        """An earlier try's reply was lost, and the lock is not ours any more: did that try take it?

        What else takes a lock away is its end, and then the stalled check, which counts. So an earlier try has
        succeeded if the job was not stalled meanwhile, and is charged one more attempt where the try was to charge one.
        """
        lease = settlement.lease
        if code == _MISSING:  # nobody can remove a locked job but the finishing itself (`removeOnComplete`)
            self._end(settlement, settlement.state)
            return

        def found(reply: Any) -> None:
            if isinstance(reply, Exception):
                self._loop.call_later(settlement.pause, self._find_out, settlement, code)
                return
            attempts, stalled = (parse_int(value) or 0 for value in reply)
            charged = attempts > lease.attempts_made
            succeeded = stalled == lease.stalled and (charged or not settlement.charges)
            self._end(settlement, settlement.state if succeeded else self._error(settlement, code))

        self._queue.link.send(pack_command("HMGET", self._queue.key(lease.id), "atm", "stc"), found, writes=False)

    def _error(self, settlement: _Settlement, code: int) -> GatewayError:
        return finished_error(code, command=settlement.command, job_id=settlement.lease.id, state="active")

    def _end(self, settlement: _Settlement, outcome: str | GatewayError, reply: Any = None) -> None:
        lease = settlement.lease
        if settlement.command == "moveJobFromActiveToWait" and lease.priority:
            self._queue.wake()
        if settlement.command == "moveToFinished" and settlement.looked and reply == 0:
            reply = _FOUND_NOTHING  # this script has two ways to say so; without it the feed would look once more
        lease.consumer.end(lease)
        settlement.done(outcome)
        self._feed.settled(lease, reply, looked=settlement.looked)

    # What the scripts take

    def _completed(self, lease: Lease, result: bytes, fetch: bool) -> Call:
        return self._finished(lease, "completed", "returnvalue", result, fetch)

    def _failed(self, lease: Lease, message: str, fields: bytes, fetch: bool) -> Call:
        script, keys, args = self._finished(lease, "failed", "failedReason", message, fetch)
        return script, keys, [*args, fields]

    def _finished(self, lease: Lease, target: str, field: str, value: str | bytes, fetch: bool) -> Call:
        queue = self._queue
        keys = [
            *self._finish,
            queue.key(target),
            queue.key(lease.id),
            queue.key(f"metrics:{target}"),
            queue.key("marker"),
        ]
        args = [
            lease.id,
            now_ms(),
            field,
            value,
            target,
            "1" if fetch else "",
            queue.base,
            lease.consumer.finish_options(lease, target),
        ]
        return "moveToFinished", keys, args

    def _delayed(self, lease: Lease, delay: int, skip_attempt: str, fields: bytes, fetch: bool) -> Call:
        queue, token = self._queue, lease.token
        keys = [*self._delay, queue.key(lease.id), *self._delay_rest]
        args = [queue.base, now_ms(), lease.id, token, delay, skip_attempt, fields]
        if fetch:
            args += ["1", lease.consumer.fetch_options(lease.token)]
        return "moveToDelayed", keys, args

    def _retried(self, lease: Lease, fields: bytes, fetch: bool) -> Call:
        queue = self._queue
        keys = [
            *queue.keys("active", "wait", "paused"),
            queue.key(lease.id),
            *queue.keys("meta", "events", "delayed", "prioritized", "pc", "marker", "stalled"),
        ]
        push = "RPUSH" if lease.options.get("lifo") else "LPUSH"
        return "retryJob", keys, [queue.base, now_ms(), push, lease.id, lease.token, fields]

    def _released(self, lease: Lease, fetch: bool) -> Call:
        args = [lease.id, lease.token, self._queue.key(lease.id)]
        return "moveJobFromActiveToWait", self._queue.release_keys, args

    def _parked(self, lease: Lease, fetch: bool) -> Call:
        queue, id = self._queue, lease.id
        keys = [
            *queue.keys("active", "waiting-children"),
            *queue.keys(id, f"{id}:dependencies", f"{id}:unsuccessful"),
            *queue.keys("stalled", "events"),
        ]
        return "moveToWaitingChildren", keys, [lease.token, "", now_ms(), id, queue.base]


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


def _failure_fields(lease: Lease, failure: Failed) -> list[str]:
    """`failedReason` and `stacktrace` as the flat array that the scripts unpack; the newest trace stands last."""
    traces = [*stacktrace(lease.stacktrace), failure.stack or f"Error: {failure.message}"]
    limit = lease.options.get("stackTraceLimit")
    if isinstance(limit, int):
        traces = traces[-limit:] if limit > 0 else []
    return ["failedReason", failure.message, "stacktrace", encode(traces).decode()]


def _log_outcome(lease: Lease) -> Done:
    def done(outcome: str | GatewayError) -> None:
        if isinstance(outcome, GatewayError):
            log.info("job %s of a vanished worker: %s", lease.id, outcome.message)

    return done
