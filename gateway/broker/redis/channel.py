"""The channel between the shards of all gateways: questions with a short deadline, and the answers to them.

It is Redis' pub/sub, on a cluster that of one slot: whoever does not listen then misses a message for good. So
nothing travels here that must not be lost; what has to be true stands in Redis before somebody is told of it.

Each shard listens to two names, one of all shards and one of its own, on the connection of its tracker. They begin as
the keys of the shards' presence do, with one hash tag. They name the database, too: pub/sub knows none, and the same
prefix in another one is another set of queues.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from bullmq_proxy.gateway.broker.redis.command_link import CommandLink
from bullmq_proxy.gateway.broker.redis.tracker import Tracker
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

log = logging.getLogger(__name__)

LARGEST: Final = 2**16
"""Bytes of a message."""

_PIECE: Final = LARGEST // 2  # bytes of entries in one message

DEADLINE: Final = 1.0
"""Seconds that an answer may take; one that comes later is not heard."""

_NO_ANSWER: Final = 0  # the number of what is no question

Answer = Callable[[bytes], Sequence[bytes]]
"""Answers a question; both are JSON text, the answer in one piece or several."""


class _Message(Struct, frozen=True, omit_defaults=True):
    """One message.

    Attributes:
        sender: the address of the shard that asks or answers.
        number: of the question, as the one who asks counts them; `_NO_ANSWER` for what is only told.
        question: JSON text; not in an answer.
        answer: JSON text; not in a question.
        left: pieces of the answer that are still to come.
    """

    sender: str
    number: int
    question: Raw | UnsetType = UNSET
    answer: Raw | UnsetType = UNSET
    left: int = 0


class Answers(Struct):
    """The answers to one question.

    Attributes:
        pieces: in the order in which they came.
        silent: shards that were there to hear the question, and have not answered all of it in time.
    """

    pieces: list[bytes] = field(default_factory=list)
    silent: int = 0


class _Inquiry:
    """One question of ours that is not answered by all yet."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.answered = 0
        self.asked: int | None = None  # how many shards have got the question, once Redis has said so
        self.ended = asyncio.get_running_loop().create_future()

    def take(self, piece: bytes, left: int) -> None:
        self.pieces.append(piece)
        self.answered += not left
        self.check()

    def check(self) -> None:
        if self.asked is not None and self.answered >= self.asked and not self.ended.done():
            self.ended.set_result(None)


class Channel:
    """One shard's end of the channel."""

    def __init__(self, link: CommandLink, tracker: Tracker, prefix: str, address: str, answer: Answer) -> None:
        """Make an end; it listens once the tracker is open.

        Args:
            link: for commands.
            tracker: on whose connection messages come.
            prefix: of the queues' keys.
            address: of this shard.
            answer: to the questions of others; one that raises is not answered.
        """
        self.address = address
        self._link = link
        self._answer = answer
        self._everybody = f"{prefix}:{{gateways}}:channel@{link.db}"
        self._inquiries: dict[int, _Inquiry] = {}
        self._numbers = itertools.count(1)
        self._publishing = "SPUBLISH" if tracker.has_slots else "PUBLISH"
        for name in (self._everybody, self._name_of(address)):
            tracker.listen(name, self._hear)

    def _name_of(self, address: str) -> str:
        return f"{self._everybody}:{address}"

    async def ask(self, question: bytes, to: str | None = None) -> Answers:
        """Ask one shard, or all that listen, this one among them; return what was answered within `DEADLINE`.

        Args:
            question: JSON text.
            to: the address of the one to ask; None asks all.

        Raises:
            GatewayError: Redis is not reachable, or the question is too long.
        """
        if to == self.address:
            return Answers(list(self._answer(question)))
        if not self._link.is_up:  # a question that waits for Redis could be carried out when nobody expects it any more
            raise self._link.last_error
        number = next(self._numbers)
        inquiry = self._inquiries[number] = _Inquiry()
        if to is None:
            inquiry.pieces += self._answer(question)
        try:
            async with asyncio.timeout(DEADLINE):
                inquiry.asked = await self._publish(to, _Message(self.address, number, Raw(question)))
                inquiry.check()
                await inquiry.ended
        except TimeoutError:
            return Answers(inquiry.pieces, max(1, (inquiry.asked or 0) - inquiry.answered))
        finally:
            del self._inquiries[number]
        return Answers(inquiry.pieces)

    def tell(self, news: bytes, to: str | None = None) -> None:
        """Tell one shard, or all that listen, and this one at once; nobody answers. `news` is JSON text."""
        if to is None or to == self.address:
            self._answer(news)
        if to != self.address:
            self._send(to, _Message(self.address, _NO_ANSWER, Raw(news)))

    def _publish(self, to: str | None, message: _Message) -> asyncio.Future[int]:
        """Send a message; the future has the number of shards that get it. A GatewayError says that it is too long."""
        name = self._everybody if to is None else self._name_of(to)
        text = msgspec.json.encode(message)
        if len(text) > LARGEST:  # it names a job with an enormous id
            raise GatewayError(ErrorCode.INVALID_ARGUMENTS, f"Other gateways are told at most {LARGEST >> 10} KiB")
        return self._link.call(self._publishing, name, text)

    def _send(self, to: str | None, message: _Message) -> None:
        try:
            self._publish(to, message).add_done_callback(_note)
        except GatewayError as error:
            log.debug("a message to other gateways was not sent: %s", error)

    def _hear(self, text: bytes) -> None:
        try:
            message = _reader.decode(text) if len(text) <= LARGEST else None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            message = None
        if message is None:
            log.warning("a message of %d bytes from another gateway cannot be read", len(text))
        elif message.question is not UNSET:
            self._take_question(message, bytes(message.question))
        elif message.answer is not UNSET and (inquiry := self._inquiries.get(message.number)) is not None:
            inquiry.take(bytes(message.answer), message.left)

    def _take_question(self, message: _Message, question: bytes) -> None:
        if message.sender == self.address:  # it has answered already, and is one of those who got the question
            if (inquiry := self._inquiries.get(message.number)) is not None:
                inquiry.answered += 1
                inquiry.check()
            return
        pieces = self._answer(question)
        if message.number != _NO_ANSWER:
            for left, piece in zip(reversed(range(len(pieces))), pieces, strict=True):
                self._send(message.sender, _Message(self.address, message.number, answer=Raw(piece), left=left))


def in_pieces(entries: Iterable[Any]) -> Iterator[list[Raw]]:
    """Divide entries among messages, one at least, each as JSON text; an entry that fits into none is left out."""
    piece: list[Raw] = []
    size = 0
    for entry in entries:
        text = msgspec.json.encode(entry)
        if len(text) > _PIECE:
            continue
        if size + len(text) > _PIECE:
            yield piece
            piece, size = [], 0
        piece.append(Raw(text))
        size += len(text) + 1
    yield piece


_reader: Final = msgspec.json.Decoder(_Message)


def _note(published: asyncio.Future[int]) -> None:
    """Expect no word of what became of a message: it may be lost."""
    if not published.cancelled() and isinstance(error := published.exception(), GatewayError):
        log.debug("a message to other gateways was not sent: %s", error)
