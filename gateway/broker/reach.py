"""Reaching the clients of other shards: a shard asks the others over the channel, and answers them."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Set
from operator import itemgetter
from typing import Any, Final, Protocol, assert_never

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from bullmq_proxy.gateway.access.grants import Grant
from bullmq_proxy.gateway.broker.consuming.grace import Kept, KeptLease, worker_of
from bullmq_proxy.gateway.broker.consuming.leases import Leases
from bullmq_proxy.gateway.broker.consuming.roster import Roster, address_of
from bullmq_proxy.gateway.broker.consuming.tokens import parse_token
from bullmq_proxy.gateway.broker.questions import (
    KEPT,
    LISTED,
    MANY,
    NAME,
    PAIR,
    QUESTION,
    SHOWN,
    USERS,
    Dismiss,
    HowMany,
    LookAgain,
    Many,
    Moved,
    Overtaken,
    Retire,
    SendAway,
    Shown,
    TakeUp,
    WhoIsConnected,
    WhoWorks,
    read,
)
from bullmq_proxy.gateway.broker.redis.channel import Channel, in_pieces
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink
from bullmq_proxy.gateway.broker.redis.tracker import Tracker
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.shapes import ConnectionKind, ShownConnection

log = logging.getLogger(__name__)

MOST_SHOWN: Final = 1000
"""Workers of a queue that a shard shows."""

_HOPS: Final = 8  # connections that a client may have lost one after the other before the first one that it got used
_PATIENCE: Final = 3.0  # s in which a shard that lives must be heard: after an outage it may need 2 for its links
_PAUSE: Final = 0.1  # s before it is asked again
_NO, _YES = b"false", b"true"


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
        users: Callable[[str], tuple[int, int]],
    ) -> None:
        """Make one.

        Args:
            link: for commands.
            tracker: on whose connection messages come.
            prefix: of the queues' keys.
            leases: of the shard.
            roster: of the shard.
            look_again: lets those who wait for something of a queue look for it.
            users: returns how many work on a queue here, and how many watch it.
        """
        self.connected: Connected | None = None
        self._look_again = look_again
        self._users = users
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
        pieces = [shown for piece in answers.pieces if (shown := read(SHOWN, piece)) is not None]
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
            GatewayError: Redis is not reachable.
        """
        parts = (msgspec.json.encode(replace(question, grant=grant)) for grant in _parts(question.grant))
        every = await asyncio.gather(*map(self._channel.ask, parts))
        answers = [piece for each in every for piece in each.pieces]
        pieces = [listed for piece in answers if (listed := read(LISTED, piece)) is not None]
        shown = {each["id"]: each for piece in pieces for each in piece.connections}
        found = sorted(shown.values(), key=itemgetter("since"))
        omitted = sum(piece.omitted for piece in pieces) + max(0, len(found) - question.limit)
        silent = max(each.silent for each in every) + len(answers) - len(pieces)
        return found[: question.limit], omitted, silent

    async def users(self, queues: Iterable[str]) -> tuple[dict[str, tuple[int, int]], int]:
        """Return how many work on queues, and how many watch them, on all shards.

        Returns:
            The two numbers by the names of queues, and how many shards have not answered in time; a queue without both
            may be missing.

        Raises:
            GatewayError: Redis is not reachable.
        """
        asked = (self._channel.ask(msgspec.json.encode(HowMany(piece))) for piece in in_pieces(queues))
        every = await asyncio.gather(*asked)
        found: dict[str, tuple[int, int]] = {}
        for many in (read(MANY, piece) for answers in every for piece in answers.pieces):
            for name, workers, watchers in filter(None, (read(USERS, text) for text in (many.queues if many else ()))):
                before = found.get(name, (0, 0))
                found[name] = before[0] + workers, before[1] + watchers
        return found, max(answers.silent for answers in every)

    async def dismiss(self, question: Dismiss) -> bool:
        """Let a worker finish, or close its connection, on whatever shard it is; return whether it is there.

        Raises:
            GatewayError: OUTCOME_UNKNOWN, its shard has not answered; or as `connections`.
        """
        for grant in _parts(question.grant):
            part = msgspec.json.encode(replace(question, grant=grant))
            answers = await self._channel.ask(part, to=address_of(question.connection))
            if answers.silent:
                raise _unanswered(question.connection)
            if answers.pieces == [_YES]:
                return True
        return False

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
            pieces = [kept for piece in answer if (kept := read(KEPT, piece)) is not None]
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
            question = QUESTION.decode(text)
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
                for id, token in filter(None, (read(PAIR, job) for job in jobs)):
                    if (lease := self._leases.find(token, id)) is not None:
                        lease.consumer.overtake(lease)
                return []
            case LookAgain(queue):
                self._look_again(queue)
                return []
            case WhoIsConnected():
                return self._list(question)
            case HowMany(queues):
                return self._count(queues)
            case Dismiss(grant, id, closes):
                connected = self.connected
                return [_YES if connected is not None and connected.dismiss(grant, id, closes=closes) else _NO]
            case _:
                assert_never(question)

    def _show(self, queue: str) -> list[bytes]:
        workers = list(self._roster.of(queue))
        pieces = [Shown(piece) for piece in in_pieces(worker.show(id) for id, worker in workers[:MOST_SHOWN])]
        pieces.append(Shown([], max(0, len(workers) - MOST_SHOWN)))
        return [msgspec.json.encode(piece) for piece in pieces]

    def _list(self, question: WhoIsConnected) -> list[bytes]:
        shown: list[ShownConnection] = []
        omitted = 0
        if self.connected is not None:
            shown, omitted = self.connected.show(question.grant, question.queue, question.kind, question.limit)
        pieces: list[Any] = [{"connections": piece} for piece in in_pieces(shown)]
        pieces.append({"connections": [], "omitted": omitted})
        return [msgspec.json.encode(piece) for piece in pieces]

    def _count(self, queues: list[Raw]) -> list[bytes]:
        names = filter(None, (read(NAME, text) for text in queues))
        counts = ((name, *self._users(name)) for name in names)
        return [msgspec.json.encode(Many(piece)) for piece in in_pieces(each for each in counts if any(each[1:]))]

    def _hand_over(self, question: TakeUp) -> list[bytes]:
        worker = self._roster.find(question.queue, question.worker)
        kept = None if worker is None else worker.hand_over(question.secret, question.key, question.taker)
        if kept is None:
            return []
        return [
            msgspec.json.encode({"next_number": kept.next_number, "moved_to": kept.moved_to, "leases": piece})
            for piece in in_pieces(kept.leases)
        ]


def _parts(grant: Grant) -> Iterator[Grant]:
    """Divide a grant of very many patterns among questions."""
    for piece in in_pieces(grant.queues):
        yield dataclasses.replace(grant, queues=tuple(filter(None, (read(NAME, pattern) for pattern in piece))))


def _unanswered(id: str) -> GatewayError:
    return GatewayError(ErrorCode.OUTCOME_UNKNOWN, f"The gateway of {id} does not answer: try again, or see there")


def _silent() -> GatewayError:
    return GatewayError(
        ErrorCode.REDIS_UNAVAILABLE, "The gateway that keeps the jobs of this client does not answer: try again"
    )
