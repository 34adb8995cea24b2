"""A lease: a job that a client holds, with BullMQ's lock under our token. A consumer: one worker connection."""

from __future__ import annotations

from collections.abc import Callable

from bullmq_proxy.gateway.broker.jobs.moves import ScriptOptions
from bullmq_proxy.gateway.rules.jobs import Hash, read_options
from bullmq_proxy.gateway.values.numbers import parse_int
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions


class Lease:
    """One job in one client's hands. Holds what finishing it needs; the payload has gone out and is not kept."""

    __slots__ = (
        "attempts_made",
        "consumer",
        "id",
        "line",
        "moved",
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
        self.moved = False  # settled by its token, past its holder
        self.line: dict[Lease, None] | None = None  # where it waits for the renewal of its lock
        self.renew_at = 0.0
        self.extended(now)

    @property
    def scripts(self) -> ScriptOptions:
        """What the scripts are told of its holder."""
        return self.consumer.scripts

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
        forget: Callable[[Lease], None] | None = None,
        *,
        by_hand: bool = False,
    ) -> None:
        """Describe a worker connection.

        Args:
            options: from its query string.
            token: with which those of its leases begin; unique over all connections that ever were.
            take: gets a new lease and the job's hash.
            cancel: is told that a lease is no longer the client's, and why.
            forget: is told that a lease is over because somebody has moved the job by its token.
            by_hand: no connection, but a caller who waits for one job.
        """
        self.options = options
        self.token = token
        self.take = take
        self.cancel = cancel
        self.forget = forget or _nothing_to_forget
        self.by_hand = by_hand
        self.scripts = ScriptOptions(options)
        self.free = options.concurrency  # jobs that it may still be given
        self.taking = True  # wants new jobs: neither paused nor silent nor draining
        self.open = True
        self.leases: set[Lease] = set()
        self.on_free: Callable[[], None] = _nothing  # set by the feed: there is room for a job again
        self.on_moved: Callable[[Lease], None] = _nothing_to_forget  # set by the feed: somebody has moved the job
        self.on_gone: Callable[[], None] = _nothing  # set by the broker: it has left, and its last lease is over
        self._fetches = 0

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


def _nothing() -> None:
    """Until a feed takes the consumer in."""


def _nothing_to_forget(lease: Lease) -> None:
    """For holders that keep no leases."""
