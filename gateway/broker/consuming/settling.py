"""How a lease ends: completed, failed, given back, delayed, waiting for children, or its holder vanished.

A final answer is never thrown away because Redis is slow, gone or unwilling: it is sent again until Redis has said what
became of it. Sending it again is safe: each of the scripts checks the lock first and removes it, and no two leases of a
job have the same token. The job of an answer that can never be stored goes back at once, as if its holder had vanished.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from msgspec import Raw

from bullmq_proxy.gateway.broker.consuming.leases import OVERTAKEN, Lease, tell
from bullmq_proxy.gateway.broker.jobs.moves import Move, Moves
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.errors import reply_error, will_pass
from bullmq_proxy.gateway.broker.redis.socket import pack_command
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error
from bullmq_proxy.gateway.values.numbers import parse_int
from bullmq_proxy.gateway.wire.answers import Failed

log = logging.getLogger(__name__)

Outcome = Move | GatewayError
"""How the job has left `active`, or why the answer could not be stored."""

Done = Callable[[Outcome], None]
"""Is told what became of an answer."""

STALLED_TOO_OFTEN: Final = "job stalled more than allowable limit"  # moveStalledJobsToWait-9.lua
_MISSING, _NO_LOCK, _NOT_ACTIVE, _PENDING, _OTHER_LOCK, _FAILED_CHILD = -1, -2, -3, -4, -6, -9
_NOT_OURS: Final = (_MISSING, _NO_LOCK, _NOT_ACTIVE, _OTHER_LOCK)
_FETCHING: Final = ("moveToFinished", "moveToDelayed")  # the scripts that can fetch the next job
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # s between two tries


_FOUND_NOTHING: Final = [0, 0, 0, 0]  # no job, no limit, no delayed job


class _Settlement:
    """One final answer on its way."""

    __slots__ = ("done", "doubtful", "fetched", "is_last", "lease", "move", "pause")

    def __init__(self, lease: Lease, move: Move, done: Done, *, is_last: bool) -> None:
        self.lease = lease
        self.move = move
        self.done = done
        self.is_last = is_last  # nothing is left to be tried if this cannot be stored
        self.doubtful = False  # an earlier try may have succeeded
        self.fetched = False  # this try looks for the next job
        self.pause = _FIRST_PAUSE


class Settler:
    """Ends the leases of one queue.

    Attributes:
        moves: that end them.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self.moves = Moves(queue)

    # The answers

    def complete(self, lease: Lease, result: Raw, done: Done) -> None:
        """Store the job's return value: JSON text, as the client wrote it."""
        self._settle(lease, self.moves.complete(lease, bytes(result)), done)

    def fail(self, lease: Lease, failure: Failed, done: Done) -> None:
        """Let the job fail: again if BullMQ's attempts allow it, after its backoff, else for good."""
        self._settle(lease, self.moves.fail(lease, failure), done)

    def release(self, lease: Lease, done: Done) -> None:
        """Give the job back: first in line, no attempt charged."""
        self._settle(lease, self.moves.release(lease), done)

    def delay(self, lease: Lease, milliseconds: int, done: Done) -> None:
        """Give the job back to wait for some time, no attempt charged."""
        self._settle(lease, self.moves.delay(lease, milliseconds), done)

    def wait_children(self, lease: Lease, done: Done) -> None:
        """Let the job wait for its children. With none pending the lease goes on, and `done` gets a CONFLICT."""
        self._settle(lease, self.moves.wait_children(lease), done)

    def vanish(self, lease: Lease, *, last: bool = False) -> None:
        """Give the job of a holder that is gone back, or fail it when its holders vanish over and over.

        Args:
            lease: of the job.
            last: it goes back last in line, or last of its priority, so that its holder does not get it next.
        """
        self._give_back(lease, partial(self._put_last, lease) if last else _log_outcome(lease))

    def _give_back(self, lease: Lease, done: Done) -> None:
        """Count that the holder is gone, and give the job back in the same breath where that cannot be too often.

        Nobody else counts without taking our lock away. Whoever waits for jobs is told of it only once.
        """
        keys = self._queue.keys(lease.id, f"{lease.id}:lock", "repeat")
        limit = lease.consumer.options.max_stalled_count
        may_fail = lease.stalled >= limit
        lease.begin_settling()
        then = partial(self._vanished, lease, done) if may_fail else partial(_note_count, lease)
        self._queue.scripts["countVanished"].send(keys, [lease.token, limit], then)
        if not may_fail:
            self._settle(lease, self.moves.release(lease), done, is_last=True)

    def _vanished(self, lease: Lease, done: Done, reply: Any) -> None:
        """Give the job back even when nothing was counted: the script finds out whether it is still ours."""
        _note_count(lease, reply)
        fails = isinstance(reply, list) and reply[1]
        too_often = Failed(STALLED_TOO_OFTEN, unrecoverable=True)
        self._settle(
            lease, self.moves.fail(lease, too_often) if fails else self.moves.release(lease), done, is_last=True
        )

    def _put_last(self, lease: Lease, outcome: Outcome) -> None:
        """Let a job that is back in wait be the last of its priority; no more happens to one that is taken already."""
        _log_outcome(lease)(outcome)
        if not isinstance(outcome, GatewayError):
            keys = self._queue.keys("wait", "paused", "meta", "prioritized", "active", "pc", "marker")
            args = [lease.priority, self._queue.base, lease.id, 0]
            self._queue.scripts["changePriority"].send(keys, args, _ignore)

    # Sending, and sending again

    def _settle(self, lease: Lease, move: Move, done: Done, *, is_last: bool = False) -> None:
        fetch = lease.consumer.may_fetch
        lease.begin_settling()
        self._send(_Settlement(lease, move, done, is_last=is_last), fetch)

    def _send(self, settlement: _Settlement, fetch: bool) -> None:
        settlement.fetched = fetch and settlement.move.script in _FETCHING
        try:
            settlement.move.send(fetch, partial(self._replied, settlement))
        except Exception:
            log.exception("the answer for job %s of %s cannot be sent", settlement.lease.id, self._queue.name)
            self._give_up(settlement, GatewayError(ErrorCode.INTERNAL, "The answer cannot be sent to Redis"))

    def _replied(self, settlement: _Settlement, reply: Any) -> None:
        if isinstance(reply, GatewayError):
            if will_pass(reply):
                self._try_again(settlement, reply)
            else:
                self._give_up(settlement, reply)
        elif isinstance(reply, int) and reply < 0:
            self._refused(settlement, reply)
        elif settlement.move.script == "moveToWaitingChildren" and reply == 1:
            self._go_on(settlement)
        else:
            self._end(settlement, settlement.move, reply)

    def _go_on(self, settlement: _Settlement) -> None:
        """Leave a job with no children to wait for with its client, unless that has gone meanwhile."""
        lease = settlement.lease
        lease.go_on()
        tell(settlement.done, GatewayError(ErrorCode.CONFLICT, f"Job {lease.id} has no pending children"))
        if not lease.consumer.open:
            self.vanish(lease)

    def _try_again(self, settlement: _Settlement, error: GatewayError) -> None:
        if error.code is ErrorCode.OUTCOME_UNKNOWN:
            settlement.doubtful = True
        self._loop.call_later(settlement.pause, self._send, settlement, False)
        settlement.pause = min(settlement.pause * 2, _LONGEST_PAUSE)

    def _give_up(self, settlement: _Settlement, error: GatewayError) -> None:
        """Give back the job of an answer that can never be stored, as if its holder had vanished."""
        if settlement.is_last or error.code is ErrorCode.SHUTTING_DOWN:
            self._end(settlement, error)
        else:
            log.error("the answer for job %s of %s: %s", settlement.lease.id, self._queue.name, error.message)
            self._give_back(settlement.lease, lambda _: settlement.done(error))

    def _refused(self, settlement: _Settlement, code: int) -> None:
        lease = settlement.lease
        if code == _NO_LOCK:
            lease.consumer.lock_is_gone()
        if settlement.doubtful and lease.state is not OVERTAKEN and code in _NOT_OURS:
            self._find_out(settlement, code)
        elif code in (_PENDING, _FAILED_CHILD):
            # As Node's worker: a job whose children do not allow its answer fails with the reason, for good when a
            # child has failed. Its lock is still ours: nothing else would end it.
            error = self._error(settlement, code)
            self.fail(lease, Failed(error.message, unrecoverable=code == _FAILED_CHILD), settlement.done)
        else:
            self._end_lost(settlement, code)

    def _find_out(self, settlement: _Settlement, code: int) -> None:
        """Find out whether an earlier try whose reply was lost has taken the lock that is not ours any more.

        What else takes a lock away is its end, and then the stalled check, which counts. So an earlier try has
        succeeded if the job was not stalled meanwhile, and is charged one more attempt where the try was to charge one.
        A lease that was overtaken is not ours either way.
        """
        lease = settlement.lease
        if code == _MISSING:  # nobody can remove a locked job but the finishing itself (`removeOnComplete`)
            self._end(settlement, settlement.move)
            return

        def found(reply: Any) -> None:
            if isinstance(reply, Exception):
                error = reply_error(reply)
                if will_pass(error):
                    self._loop.call_later(settlement.pause, self._find_out, settlement, code)
                else:
                    self._end(settlement, error)
                return
            attempts, stalled = (parse_int(value) or 0 for value in reply)
            charged = attempts > lease.attempts_made
            succeeded = stalled == lease.stalled and (charged or not settlement.move.charges)
            if succeeded:
                self._end(settlement, settlement.move)
            else:
                self._end_lost(settlement, code)

        self._queue.link.send(pack_command("HMGET", self._queue.key(lease.id), "atm", "stc"), found)

    def _error(self, settlement: _Settlement, code: int) -> GatewayError:
        return finished_error(code, command=settlement.move.script, job_id=settlement.lease.id, state="active")

    def _end_lost(self, settlement: _Settlement, code: int) -> None:
        if code in _NOT_OURS:
            settlement.lease.consumer.count_lost()
        self._end(settlement, self._error(settlement, code))

    def _end(self, settlement: _Settlement, outcome: Outcome, reply: Any = None) -> None:
        lease = settlement.lease
        if settlement.move.script == "moveJobFromActiveToWait" and lease.priority:
            self._queue.wake()
        if settlement.move.script == "moveToFinished" and settlement.fetched and reply == 0:
            reply = _FOUND_NOTHING  # this script has two ways to say so; without it the feed would look once more
        lease.consumer.end(lease)
        if isinstance(outcome, Move):
            self._queue.counts.end(outcome.state)
        tell(settlement.done, outcome)
        lease.consumer.ended(lease, reply, fetched=settlement.fetched)


def _note_count(lease: Lease, reply: Any) -> None:
    """Note how often the holders of a job have vanished, as `countVanished` says."""
    if isinstance(reply, list):
        lease.stalled = reply[0]


def _log_outcome(lease: Lease) -> Done:
    def done(outcome: Outcome) -> None:
        if isinstance(outcome, GatewayError):
            log.info("job %s of a vanished worker: %s", lease.id, outcome.message)

    return done


def _ignore(reply: Any) -> None:
    """Expect no reply: a job that stays first in line runs all the same."""
