"""Leases, each a job that a client holds with BullMQ's lock under our token, and the consumers that hold them."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from bullmq_proxy.gateway.broker.consuming.tokens import Identity, parse_token
from bullmq_proxy.gateway.broker.jobs.moves import ScriptOptions
from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.rules.stored_options import StoredOptions, stored_options
from bullmq_proxy.gateway.values.numbers import parse_int
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions

log = logging.getLogger(__name__)


@enum.unique
class LeaseState(enum.Enum):
    """The states of a lease; its methods in `Consumer` and `Lease` are the only ones that change it."""

    PENDING = "the client is to get the job when that of its scheduler's next iteration stands"
    HELD = "the client works on the job"
    SETTLING = "a final answer is on its way to Redis"
    OVERTAKEN = "as SETTLING, but somebody has moved the job by its token meanwhile: the answer comes too late"
    ENDED = "settled or lost: nothing more is ours"


PENDING, HELD, SETTLING, OVERTAKEN, ENDED = LeaseState

_NO_OPTIONS: Final = stored_options(None)


class Lease:
    """One job in one client's hands. Holds what finishing the job needs; the payload has gone out and is not kept."""

    __slots__ = (
        "attempts_made",
        "consumer",
        "id",
        "line",
        "number",
        "options",
        "priority",
        "renew_at",
        "renews",
        "since",
        "stacktrace",
        "stalled",
        "state",
        "token",
    )

    def __init__(self, id: str, consumer: Consumer, token: str, now: float) -> None:
        """Take over the job `id`, just moved to active under `token`; `now` in loop time."""
        self.id = id
        self.token = token
        self.consumer = consumer
        self.options: StoredOptions = _NO_OPTIONS
        self.attempts_made = 0
        self.priority = 0
        self.stalled = 0
        self.stacktrace: bytes | None = None
        self.number = -1  # of the message that pushed it; the session's business
        self.state = HELD
        self.line: dict[Lease, None] | None = None  # where it waits for the renewal of its lock
        self.renew_at = 0.0
        self.renews = True  # its lock is kept alive
        self.since = now  # loop time
        self.extended(now)

    def read(self, fields: Hash) -> None:
        """Take from the job's hash what finishing it needs."""
        self.options = stored_options(fields.get(b"opts"))
        self.attempts_made = parse_int(fields.get(b"atm")) or 0
        self.priority = parse_int(fields.get(b"priority")) or 0
        self.stalled = parse_int(fields.get(b"stc")) or 0
        self.stacktrace = fields.get(b"stacktrace")

    @property
    def scripts(self) -> ScriptOptions:
        """What the scripts are told of its holder."""
        return self.consumer.scripts

    def extended(self, now: float) -> None:
        """Note that the lock was set at `now`; it is renewed at half of `lockDuration`, as in BullMQ."""
        self.renew_at = now + self.consumer.options.lock_duration / 2000

    def leave_alone(self) -> None:
        """Let the lock expire, unless somebody else extends it."""
        self.renews = False
        self.leave_line()

    def leave_line(self) -> None:
        """Wait for no renewal of the lock any more."""
        if self.line is not None:
            self.line.pop(self, None)
            self.line = None

    def hold_back(self) -> None:
        """Note that the client does not get the job yet."""
        self.state = PENDING

    def hand_out(self) -> bool:
        """Return whether the client may get a job that was held back; not so when it was lost meanwhile."""
        if self.state is not PENDING:
            return False
        self.state = HELD
        return True

    def begin_settling(self) -> None:
        """Note that a final answer is on its way; one that was overtaken stays so."""
        if self.state is HELD or self.state is PENDING:
            self.state = SETTLING

    def go_on(self) -> None:
        """Note that the final answer changed nothing: the client works on."""
        self.state = HELD


class Leases:
    """All leases of a shard by their tokens: no two leases have one token at a time.

    Attributes:
        identity: of the shard.
        on_lock_gone: is told the name of a queue in which one of them has lost its lock: its job may still be active.
        lost: how many ended with no answer stored, since somebody else has the job.
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.on_lock_gone: Callable[[str], object] = lambda queue: None
        self.lost = 0
        self._leases: dict[str, Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def new_consumer_token(self, key: str) -> str:
        """Return the start of a consumer's tokens, as `Identity.new_consumer_token`."""
        return self.identity.new_consumer_token(key)

    def add(self, lease: Lease) -> None:
        """Take a new lease in."""
        self._leases[lease.token] = lease

    def remove(self, lease: Lease) -> None:
        """Forget a lease that has ended."""
        if self._leases.get(lease.token) is lease:
            del self._leases[lease.token]

    def find(self, token: str, id: str) -> Lease | None:
        """Return the lease of a job under a token, or None."""
        lease = self._leases.get(token)
        return lease if lease is not None and lease.id == id else None

    def is_lost(self, token: str, id: str) -> bool:
        """Return whether a lock is of a fetch whose reply was lost: it is ours, but no lease knows of the job."""
        parsed = parse_token(token)
        return parsed is not None and parsed.identity == self.identity and self.find(token, id) is None


class Holder(Protocol):
    """The client's side of a consumer: gets the leases and is told how they end."""

    def take(self, lease: Lease, fields: Hash) -> None:
        """Take a new lease, with the job's hash; one that raises cannot show the job, which then fails."""

    def cancel(self, lease: Lease, reason: str) -> bool:
        """Stop working on a job: its lease was lost. Returns whether a client was told."""

    def forget(self, lease: Lease) -> None:
        """Drop a lease without a word to the client: somebody has moved the job by its token."""


class Source(Protocol):
    """The queue's side of a consumer: the feed that brings its jobs."""

    def may_fetch(self, consumer: Consumer) -> bool:
        """Return whether the end of a job should bring the consumer its next one."""

    def ended(self, lease: Lease, reply: Any, *, fetched: bool) -> None:
        """Give the consumer of a lease that has ended its next job.

        Args:
            lease: whose consumer has room now.
            reply: what the script said that ended it; may hold the next job. None when it was no script of ours.
            fetched: whether that script looked for the next job.
        """


class Consumer:
    """One who takes jobs: a Worker connection, or a caller who wants one job."""

    def __init__(
        self,
        queue: str,
        options: WorkerOptions,
        leases: Leases,
        holder: Holder,
        source: Source | None,
        *,
        by_hand: bool = False,
        key: str = "",
    ) -> None:
        """Describe a consumer.

        Args:
            queue: whose jobs it takes, by its name.
            options: of its connection.
            leases: of the shard.
            holder: gets its leases.
            source: brings its jobs; None for one that fetches by itself.
            by_hand: a caller who wants one job.
            key: the name of its client's key, for its tokens; a caller never sees these.
        """
        self.queue = queue
        self.options = options
        self.token = leases.new_consumer_token(key)
        self.holder = holder
        self.by_hand = by_hand
        self.scripts = ScriptOptions(options)
        self.free = options.concurrency  # jobs that it may still be given
        self.taking = True  # wants new jobs: neither paused nor silent nor draining
        self.open = True
        self.leases: set[Lease] = set()
        self._shard_leases = leases
        self._source = source
        self._fetches = 0

    @property
    def hungry(self) -> bool:
        """Whether it should get a job."""
        return self.open and self.taking and self.free > 0

    @property
    def may_fetch(self) -> bool:
        """Whether the end of a job should bring the next one along."""
        return self.open and self.taking and self._source is not None and self._source.may_fetch(self)

    def new_token(self) -> str:
        """Return a token for one fetch.

        The jobs that follow it by `fetchNext` have the same one, each when the one before has ended:
        moveToFinished-14.lua locks the next job with the token of the last. So no two leases have one at a time, and
        an answer that is sent again can never hit a later lease of the same job.
        """
        self._fetches += 1
        return f"{self.token}:{self._fetches}"

    def add_lease(self, id: str, token: str, now: float) -> Lease:
        """Return the lease of a job that was fetched for this consumer under `token`, unread; `now` in loop time."""
        lease = Lease(id, self, token, now)
        self.leases.add(lease)
        self._shard_leases.add(lease)
        return lease

    # How a lease ends

    def end(self, lease: Lease) -> None:
        """Forget a lease that is settled or lost; `ended` is to follow."""
        lease.state = ENDED
        self.leases.discard(lease)
        self._shard_leases.remove(lease)
        lease.leave_line()

    def ended(self, lease: Lease, reply: Any = None, *, fetched: bool = False) -> None:
        """Get the next job in place of one whose lease has ended; arguments as in `Source.ended`."""
        if self._source is not None:
            self._source.ended(lease, reply, fetched=fetched)

    def lose(self, lease: Lease, reason: str) -> None:
        """Tell the client that a job is not its any more, and make room for another one."""
        self.count_lost()
        is_known = lease.state is not PENDING
        self.lock_is_gone()
        self.end(lease)
        if is_known:
            tell(self.holder.cancel, lease, reason)
        self.ended(lease)

    def count_lost(self) -> None:
        """Count a lease that ends without an answer, or whose answer comes too late: somebody else has the job."""
        self._shard_leases.lost += 1

    def lock_is_gone(self) -> None:
        """Note that the lock of a lease is not ours any more."""
        self._shard_leases.on_lock_gone(self.queue)

    def overtake(self, lease: Lease, reason: str | None = None) -> bool:
        """End a lease whose job somebody has moved by its token; a final answer under way finds out by itself.

        Args:
            lease: of the job.
            reason: that the client is told; None tells it nothing, since it is its own key that has moved the job.

        Returns:
            Whether the client was told.
        """
        if lease.state is not HELD and lease.state is not PENDING:
            lease.state = OVERTAKEN
            return False
        is_known = lease.state is HELD
        self._shard_leases.lost += reason is not None
        self.end(lease)
        if reason is None:
            told = False
            tell(self.holder.forget, lease)
        else:
            told = is_known and bool(tell(self.holder.cancel, lease, reason))
        self.ended(lease)
        return told


def tell(client: Callable[..., Any], *what: Any) -> Any:
    """Call the client's side and return its answer; log if it fails: the queue's side has to go on."""
    try:
        return client(*what)
    except Exception:
        log.exception("a client could not be told")
        return None
