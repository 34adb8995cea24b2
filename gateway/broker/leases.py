"""A lease: a job that a client holds, with BullMQ's lock under our token. A consumer: one worker connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.wire.jobs import Hash, read_options
from gateway.wire.numbers import parse_int
from gateway.wire.options import pack
from gateway.wire.routes import WorkerOptions


class Lease:
    """One job in one client's hands. Holds what finishing it needs; the payload has gone out and is not kept."""

    __slots__ = (
        "attempts_made",
        "consumer",
        "id",
        "line",
        "number",
        "options",
        "over",
        "priority",
        "renew_at",
        "settling",
        "stacktrace",
        "stalled",
        "token",
    )

    def __init__(self, id: str, fields: Hash, consumer: Consumer, token: str, now: float) -> None:
        """Take over the job `id`, just moved to active under `token`; `now` in loop time."""
        self.id = id
        self.token = token
        self.consumer = consumer
        self.options = read_options(fields.get(b"opts"))
        self.attempts_made = parse_int(fields.get(b"atm")) or 0
        self.priority = parse_int(fields.get(b"priority")) or 0
        self.stalled = parse_int(fields.get(b"stc")) or 0
        self.stacktrace = fields.get(b"stacktrace")
        self.number = -1  # of the message that pushed it; the session's business
        self.settling = False  # a final answer is on its way to Redis
        self.over = False  # settled or lost: nothing more is ours
        self.line: dict[Lease, None] | None = None  # where it waits for the renewal of its lock
        self.renew_at = 0.0
        self.extended(now)

    def extended(self, now: float) -> None:
        """The lock was set at `now`: it lives for `lockDuration`, and is renewed at half of it, as in BullMQ."""
        self.renew_at = now + self.consumer.options.lock_duration / 2000


class Consumer:
    """What the broker knows of one worker connection."""

    def __init__(
        self,
        options: WorkerOptions,
        token: str,
        take: Callable[[Lease, Hash], None],
        cancel: Callable[[Lease, str], None],
    ) -> None:
        """Describe a worker connection.

        Args:
            options: from its query string.
            token: with which those of its leases begin; unique over all connections that ever were.
            take: gets a new lease and the job's hash.
            cancel: is told that a lease is no longer the client's, and why.
        """
        self.options = options
        self.token = token
        self.take = take
        self.cancel = cancel
        self.free = options.concurrency  # jobs that it may still be given
        self.taking = True  # wants new jobs: neither paused nor silent nor draining
        self.open = True
        self.leases: set[Lease] = set()
        self.on_free: Callable[[], None] = _nothing  # set by the feed: there is room for a job again
        self.on_gone: Callable[[], None] = _nothing  # set by the broker: it has left, and its last lease is over
        limiter = options.limiter
        self._limits = {"max": limiter[0], "duration": limiter[1]} if limiter else None
        self._fetches = 0
        self._fetch_options = _open_map(lockDuration=options.lock_duration, limiter=self._limits, name=options.name)
        self._finish_options: dict[Any, bytes] = {}

    @property
    def hungry(self) -> bool:
        """Whether it should get a job."""
        return self.open and self.taking and self.free > 0

    def new_token(self) -> str:
        """A token for one fetch.

        The jobs that follow it by `fetchNext` have the same one, each when the one before is over:
        moveToFinished-14.lua locks the next job with the token of the last. So no two leases have one at a time, and
        an answer that is sent again can never hit a later lease of the same job.
        """
        self._fetches += 1
        return f"{self.token}:{self._fetches}"

    def fetch_options(self, token: str) -> bytes:
        """The packed options of moveToActive-11.lua."""
        return with_token(token, self._fetch_options)

    def lose(self, lease: Lease, reason: str) -> None:
        """The job is no longer the client's: tell it, and make room for another one."""
        self.end(lease)
        self.free += 1
        self.cancel(lease, reason)
        self.on_free()

    def end(self, lease: Lease) -> None:
        """A lease is settled or lost."""
        lease.over = True
        self.leases.discard(lease)
        if lease.line is not None:
            lease.line.pop(lease, None)
            lease.line = None
        if not self.open and not self.leases:
            self.on_gone()

    def finish_options(self, lease: Lease, target: str) -> bytes:
        """The packed options of moveToFinished-14.lua; but for the token, nearly all jobs of a consumer share them.

        Args:
            lease: the job to finish.
            target: `completed` or `failed`.
        """
        options = lease.options
        remove = options.get("removeOnComplete" if target == "completed" else "removeOnFail")
        flags = tuple(bool(options.get(flag)) for flag in _FLAGS)
        key = (target, repr(remove), repr(options.get("attempts")), flags)
        packed = self._finish_options.get(key)
        if packed is None:
            if len(self._finish_options) >= 64:
                self._finish_options.clear()
            packed = self._finish_options[key] = self._pack_finish(remove, target, options, flags)
        return with_token(lease.token, packed)

    def _pack_finish(self, remove: Any, target: str, options: dict[str, Any], flags: tuple[bool, ...]) -> bytes:
        own = self.options.remove_on_complete if target == "completed" else self.options.remove_on_fail
        return _open_map(
            name=self.options.name,
            keepJobs=keep_jobs(own if remove is None else remove),
            limiter=self._limits,
            lockDuration=self.options.lock_duration,
            attempts=attempts if isinstance(attempts := options.get("attempts"), int) else 0,
            maxMetricsSize=self.options.max_data_points or "",
            **dict(zip(_FLAGS, flags, strict=True)),
        )


def _nothing() -> None:
    """Until a feed takes the consumer in."""


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
    """A msgpack map of the options that are set, with a place for a token at its end left open.

    Its first byte counts the entries: a fixmap, 0x80 + n, since there are never 15 of them.
    """
    given = {name: value for name, value in options.items() if value is not None}
    assert len(given) < 15
    return bytes((0x80 + len(given) + 1,)) + pack(given)[1:] + _TOKEN


def with_token(token: str, open_map: bytes) -> bytes:
    """The map with its token: cheaper than packing all of it for each job."""
    return open_map + pack(token)
