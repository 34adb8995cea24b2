"""Reaching the clients of other shards: what shards ask each other over the channel, and what they answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Set
from operator import itemgetter
from typing import Any, Final, Protocol, TypeVar, assert_never

import msgspec
from msgspec import Raw, Struct

from bullmq_proxy.gateway.access.grants import Grant
from bullmq_proxy.gateway.broker.consuming.grace import Kept, KeptLease, worker_of
from bullmq_proxy.gateway.broker.consuming.leases import Leases
from bullmq_proxy.gateway.broker.consuming.roster import Roster, address_of
from bullmq_proxy.gateway.broker.consuming.tokens import parse_token
from bullmq_proxy.gateway.broker.redis.channel import Channel, in_pieces
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink
from bullmq_proxy.gateway.broker.redis.tracker import Tracker
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.shapes import ConnectionKind, ShownConnection

log = logging.getLogger(__name__)


class Overtaken(Struct, frozen=True, tag="overtaken"):
    """A job was taken from its holder by its token; was the client told?"""

    job: str
    token: str
    reason: str


class WhoWorks(Struct, frozen=True, tag="whoWorks"):
    """Who works on a queue?"""

    queue: str


class Retire(Struct, frozen=True, tag="retire"):
    """A worker is to take no new jobs; is it there?"""

    queue: str
    worker: str


class SendAway(Struct, frozen=True, tag="sendAway"):
    """A worker is to be disconnected; is it there?"""

    queue: str
    worker: str


class LookAgain(Struct, frozen=True, tag="lookAgain"):
    """Something about a queue has changed of which Redis tells nobody: a limit is gone, or jobs are."""

    queue: str


class TakeUp(Struct, frozen=True, tag="takeUp"):
    """A client has come back on another connection; what is kept for it?"""

    queue: str
    worker: str
    secret: str
    key: str
    taker: str


class Moved(Struct, frozen=True, tag="moved"):
    """These jobs were moved by their tokens, or their locks are under others now; ids and tokens."""

    jobs: list[Raw]


class WhoIsConnected(Struct, frozen=True, tag="whoIsConnected"):
    """Who is connected to the queues of a grant; `queue`, `kind` and `limit` are those of `ConnectionsQuery`."""

    grant: Grant
    queue: str | None
    kind: ConnectionKind | None
    limit: int


class Dismiss(Struct, frozen=True, tag="dismiss"):
    """A connection on a queue of a grant is to be closed, or its worker to finish; is it there?"""

    grant: Grant
    connection: str
    closes: bool


Question = Overtaken | WhoWorks | Retire | SendAway | LookAgain | TakeUp | Moved | WhoIsConnected | Dismiss

MOST_SHOWN: Final = 1000
"""Workers of a queue that a shard shows."""

_HOPS: Final = 8  # connections that a client may have lost one after the other before the first one that it got used
_PATIENCE: Final = 3.0  # s in which a shard that lives must be heard: after an outage it may need 2 for its links
_PAUSE: Final = 0.1  # s before it is asked again
_NO, _YES = b"false", b"true"


class _Shown(Struct, frozen=True):
    """A piece of the answer to `WhoWorks`."""

    workers: list[Raw]
    omitted: int = 0


class _Listed(Struct, frozen=True):
    """A piece of the answer to `WhoIsConnected`."""

    connections: list[ShownConnection]
    omitted: int = 0


class Connected(Protocol):
    """The connections of a shard; `net.directory` implements it, and says what the arguments are."""

    def show(
        self, grant: Grant, queue: str | None, kind: ConnectionKind | None, most: int
    ) -> tuple[list[ShownConnection], int]:
        """Return connections on the queues of a grant, and how many more there are."""

    def dismiss(self, grant: Grant, id: str, *, closes: bool) -> bool:
        """Let a worker finish, or close its connection; return whether it is there, on a queue of the grant."""


class Reach:
    """One shard's way to the clients of all shards, its own among them.

    Attributes:
        connected: the connections of this shard; None where it has no listener.
    """

    def __init__(
        self,
        link: CommandLink,
        tracker: Tracker,
        prefix: str,
        leases: Leases,
        roster: Roster,
        look_again: Callable[[str], None],
    ) -> None:
        """Make one.

        Args:
            link: for commands.
            tracker: on whose connection messages come.
            prefix: of the queues' keys.
            leases: of the shard.
            roster: of the shard.
            look_again: lets those who wait for something of a queue look for it.
        """
        self.connected: Connected | None = None
        self._look_again = look_again
        self._leases = leases
        self._roster = roster
        self._link = link
        self._signs = f"{prefix}:{{gateways}}:signs"
        self._channel = Channel(link, tracker, prefix, leases.identity.address, self._answer)

    async def tell_holder(self, job: str, token: str, reason: str) -> bool:
        """Tell the client that holds a job that it was taken away: return whether it was told.

        Where it cannot be reached it learns of it when its lock is to be renewed, or when it answers.

        Args:
            job: the id.
            token: under which the client held it.
            reason: for the client.
        """
        parsed = parse_token(token)
        if parsed is None:  # taken by hand, or by another program
            return False
        try:
            question = msgspec.json.encode(Overtaken(job, token, reason))
            answers = await self._channel.ask(question, to=parsed.identity.address)
        except GatewayError:
            return False
        return answers.pieces == [_YES]

    async def workers(self, queue: str) -> tuple[list[Raw], int, int]:
        """Return the workers of a queue on all shards, as `ShownConsumer`.

        Returns:
            Them, how many more there are, and how many shards have not answered in time.

        Raises:
            GatewayError: Redis is not reachable.
        """
        answers = await self._channel.ask(msgspec.json.encode(WhoWorks(queue)))
        pieces = [shown for piece in answers.pieces if (shown := _read(_shown, piece)) is not None]
        workers = [worker for piece in pieces for worker in piece.workers]
        unread = len(answers.pieces) - len(pieces)
        return workers, sum(piece.omitted for piece in pieces), answers.silent + unread

    async def act_on(self, question: Retire | SendAway) -> None:
        """Have something done to a worker, on whatever shard it is.

        Raises:
            GatewayError: NOT_FOUND; OUTCOME_UNKNOWN, its shard has not answered; or Redis is not reachable.
        """
        answers = await self._channel.ask(msgspec.json.encode(question), to=address_of(question.worker))
        if answers.silent:
            raise _unanswered(question.worker)
        if answers.pieces != [_YES]:
            raise GatewayError(ErrorCode.NOT_FOUND, f"There is no Worker connection {question.worker} of this queue")

    async def connections(self, question: WhoIsConnected) -> tuple[list[ShownConnection], int, int]:
        """Return connections on all shards, the oldest ones first; as many as were asked for.

        Returns:
            Them, how many more there are, and how many shards have not answered in time.

        Raises:
            GatewayError: Redis is not reachable, or the grant has too many patterns to tell others.
        """
        answers = await self._channel.ask(msgspec.json.encode(question))
        pieces = [listed for piece in answers.pieces if (listed := _read(_listed, piece)) is not None]
        found = sorted((each for piece in pieces for each in piece.connections), key=itemgetter("since"))
        omitted = sum(piece.omitted for piece in pieces) + max(0, len(found) - question.limit)
        return found[: question.limit], omitted, answers.silent + len(answers.pieces) - len(pieces)

    async def dismiss(self, question: Dismiss) -> bool:
        """Let a worker finish, or close its connection, on whatever shard it is; return whether it is there.

        Raises:
            GatewayError: OUTCOME_UNKNOWN, its shard has not answered; or as `connections`.
        """
        answers = await self._channel.ask(msgspec.json.encode(question), to=address_of(question.connection))
        if answers.silent:
            raise _unanswered(question.connection)
        return answers.pieces == [_YES]

    def moved(self, job: str, token: str) -> None:
        """Tell the shard whose client held a job that it was moved by its token; else it finds that out by its lock."""
        if (parsed := parse_token(token)) is not None and parsed.identity != self._leases.identity:
            news = Moved([Raw(msgspec.json.encode((job, token)))])
            self._channel.tell(msgspec.json.encode(news), to=parsed.identity.address)

    def look_again(self, queue: str) -> None:
        """Let those who wait for something of a queue look for it at once, on all shards; else they would by and by."""
        self._channel.tell(msgspec.json.encode(LookAgain(queue)))

    async def take_up(self, queue: str, secret: str, key: str, taker: str) -> AsyncIterator[tuple[str, Kept]]:
        """Yield what is kept for a client that shows a secret, and of the connections on which it came back since.

        Each comes with the secret of its connection: what was taken up of it is to be told by `taken_up`.

        Args:
            queue: the name of the queue.
            secret: of an earlier connection.
            key: the name of the client's key.
            taker: the secret of its new connection.

        Raises:
            GatewayError: Redis is not reachable, or the shard that keeps it lives and does not answer.
        """
        until = asyncio.get_running_loop().time() + _PATIENCE
        for _ in range(_HOPS):
            answer = await self._ask_keeper(TakeUp(queue, worker_of(secret), secret, key, taker), until)
            if not answer or answer == [_NO]:
                return
            pieces = [kept for piece in answer if (kept := _read(_kept, piece)) is not None]
            if len(pieces) < len(answer):
                raise _silent()
            first = pieces[0]
            yield (
                secret,
                Kept(first.next_number, first.moved_to, [lease for piece in pieces for lease in piece.leases]),
            )
            secret = first.moved_to
            if not secret or secret == taker:
                return

    async def _ask_keeper(self, question: TakeUp, until: float) -> list[bytes]:
        """Ask the shard that a secret names: again until `until` where it lives and yet is not heard.

        After an outage its connection for messages may be made later than ours. A second question does no harm. One
        that goes on giving signs of life holds the jobs, and knows the number of the next message: without that the
        client is refused.
        """
        address, text = address_of(question.worker), msgspec.json.encode(question)
        first = sign = None
        while True:
            answers = await self._channel.ask(text, to=address)
            if answers.pieces and not answers.silent:
                return answers.pieces
            sign = await self._link.call("HGET", self._signs, address)
            first = first or sign
            if sign is None:
                return []
            if asyncio.get_running_loop().time() >= until:
                if sign != first:
                    raise _silent()
                return []
            await asyncio.sleep(_PAUSE)

    def taken_up(self, secret: str, leases: Iterable[KeptLease], numbers: Set[int]) -> None:
        """Tell the shard that kept leases which of them are held elsewhere; else it finds that out by their locks.

        Args:
            secret: of the connection for which they were kept.
            leases: those that were kept.
            numbers: of those that were taken up.
        """
        taken = ((lease.id, lease.token) for lease in leases if lease.number in numbers)
        for piece in in_pieces(taken):
            self._channel.tell(msgspec.json.encode(Moved(piece)), to=address_of(worker_of(secret)))

    # For others

    def _answer(self, text: bytes) -> list[bytes]:
        """Answer a question of another shard; one that this version does not know gets no answer."""
        try:
            question = _reader.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # Not what it asks: a later version's question may hold a secret.
            log.debug("another gateway asks what this version does not know, in %d bytes", len(text))
            return []
        match question:
            case Overtaken(job, token, reason):
                lease = self._leases.find(token, job)
                return [_YES if lease is not None and lease.consumer.overtake(lease, reason) else _NO]
            case WhoWorks(queue):
                return self._show(queue)
            case Retire(queue, id):
                if (worker := self._roster.find(queue, id)) is not None:
                    worker.retire()
                return [_NO if worker is None else _YES]
            case SendAway(queue, id):
                if (worker := self._roster.find(queue, id)) is not None:
                    worker.send_away()
                return [_NO if worker is None else _YES]
            case TakeUp():
                return self._hand_over(question) or [_NO]
            case Moved(jobs):
                for id, token in filter(None, (_read(_pair, job) for job in jobs)):
                    if (lease := self._leases.find(token, id)) is not None:
                        lease.consumer.overtake(lease)
                return []
            case LookAgain(queue):
                self._look_again(queue)
                return []
            case WhoIsConnected():
                return self._list(question)
            case Dismiss(grant, id, closes):
                connected = self.connected
                return [_YES if connected is not None and connected.dismiss(grant, id, closes=closes) else _NO]
            case _:
                assert_never(question)

    def _show(self, queue: str) -> list[bytes]:
        workers = list(self._roster.of(queue))
        pieces = [_Shown(piece) for piece in in_pieces(worker.show(id) for id, worker in workers[:MOST_SHOWN])]
        pieces.append(_Shown([], max(0, len(workers) - MOST_SHOWN)))
        return [msgspec.json.encode(piece) for piece in pieces]

    def _list(self, question: WhoIsConnected) -> list[bytes]:
        shown: list[ShownConnection] = []
        omitted = 0
        if self.connected is not None:
            shown, omitted = self.connected.show(question.grant, question.queue, question.kind, question.limit)
        pieces: list[Any] = [{"connections": piece} for piece in in_pieces(shown)]
        pieces.append({"connections": [], "omitted": omitted})
        return [msgspec.json.encode(piece) for piece in pieces]

    def _hand_over(self, question: TakeUp) -> list[bytes]:
        worker = self._roster.find(question.queue, question.worker)
        kept = None if worker is None else worker.hand_over(question.secret, question.key, question.taker)
        if kept is None:
            return []
        return [
            msgspec.json.encode({"next_number": kept.next_number, "moved_to": kept.moved_to, "leases": piece})
            for piece in in_pieces(kept.leases)
        ]


T = TypeVar("T")


def _read(decoder: msgspec.json.Decoder[T], text: bytes | Raw) -> T | None:
    """Return what another gateway has written; None, with a line in the log, where it is nothing that one writes."""
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        log.warning("another gateway says what cannot be read, in %d bytes", len(text))
        return None


def _unanswered(id: str) -> GatewayError:
    return GatewayError(ErrorCode.OUTCOME_UNKNOWN, f"The gateway of {id} does not answer: try again, or see there")


def _silent() -> GatewayError:
    return GatewayError(
        ErrorCode.REDIS_UNAVAILABLE, "The gateway that keeps the jobs of this client does not answer: try again"
    )


_reader: Final = msgspec.json.Decoder(Question)
_kept: Final = msgspec.json.Decoder(Kept)
_pair: Final = msgspec.json.Decoder(tuple[str, str])
_shown: Final = msgspec.json.Decoder(_Shown)
_listed: Final = msgspec.json.Decoder(_Listed)
