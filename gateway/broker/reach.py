"""Reaching the clients of other shards: what shards ask each other over the channel, and what they answer."""

from __future__ import annotations

import logging
from typing import Final, assert_never

import msgspec
from msgspec import Struct

from bullmq_proxy.gateway.broker.consuming.leases import Leases
from bullmq_proxy.gateway.broker.consuming.tokens import parse_token
from bullmq_proxy.gateway.broker.redis.channel import Channel
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.tracker import Tracker
from bullmq_proxy.gateway.errors import GatewayError

log = logging.getLogger(__name__)


class Overtaken(Struct, frozen=True, tag="overtaken"):
    """A job was taken from its holder by its token; was the client told?"""

    job: str
    token: str
    reason: str


Question = Overtaken

_NO, _YES = b"false", b"true"


class Reach:
    """One shard's way to the clients of all shards, its own among them."""

    def __init__(self, link: Link, tracker: Tracker, prefix: str, leases: Leases) -> None:
        """Make one.

        Args:
            link: for commands.
            tracker: on whose connection messages come.
            prefix: of the queues' keys.
            leases: of the shard.
        """
        self._leases = leases
        self._channel = Channel(link, tracker, prefix, leases.address, self._answer)

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

    def _answer(self, text: bytes) -> list[bytes]:
        """Answer a question of another shard; one that this version does not know gets no answer."""
        try:
            question = _reader.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.debug("another gateway asks what this version does not know: %.200r", text)
            return []
        match question:
            case Overtaken(job, token, reason):
                lease = self._leases.find(token, job)
                return [_YES if lease is not None and lease.consumer.overtake(lease, reason) else _NO]
            case _:
                assert_never(question)


_reader: Final = msgspec.json.Decoder(Question)
