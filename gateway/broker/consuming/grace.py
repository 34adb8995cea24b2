"""Grace: the leases of a client whose connection broke are kept for a while, and taken up where it comes back.

Leases move by their locks: the shard to which the client comes back gives each lock a token of its own, in one script.
So a lock is always under the token of a shard that has a lease for it, whatever is lost on the way between the two; and
when the shard that kept the leases gives the jobs back at that moment, one of the two is first.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from msgspec import Struct

from bullmq_proxy.gateway.broker.consuming.feed import Feed
from bullmq_proxy.gateway.broker.consuming.leases import Consumer, Lease
from bullmq_proxy.gateway.broker.redis.errors import reply_error
from bullmq_proxy.gateway.broker.redis.socket import resolve
from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.values.text import bytes_of

_FIELDS: Final = ("opts", "atm", "priority", "stc", "stacktrace")  # what `Lease.read` reads


class KeptLease(Struct, frozen=True, array_like=True):
    """A lease that its shard keeps.

    Attributes:
        id: of the job.
        token: of its lock.
        number: of the message that pushed it.
    """

    id: str
    token: str
    number: int


class Kept(Struct, frozen=True):
    """What a shard keeps for a client.

    Attributes:
        next_number: of the next message on its connection.
        moved_to: the secret of a later connection that has taken up leases; empty when there was none.
        leases: those that it holds.
    """

    next_number: int
    moved_to: str
    leases: list[KeptLease]


def new_secret(id: str) -> str:
    """Return the secret of a worker with an id in the roster: whoever shows it takes up what the worker held."""
    return f"{id}:{secrets.token_urlsafe(16)}"


def worker_of(secret: str) -> str:
    """Return the id of the worker whose secret this is, or pretends to be."""
    return secret.rpartition(":")[0]


def is_secret(shown: str, secret: str) -> bool:
    """Return whether a client shows a secret; takes as long for any other one."""
    return hmac.compare_digest(bytes_of(shown), bytes_of(secret))


async def take_up(feed: Feed, consumer: Consumer, kept: Sequence[KeptLease]) -> list[Lease]:
    """Hold leases of another shard, or of this one, from now on.

    Args:
        feed: of their queue.
        consumer: that is to hold them.
        kept: the leases.

    Returns:
        Those that were taken up, with their old numbers. The others have ended meanwhile.

    Raises:
        GatewayError: Redis is not reachable; a lock may be under a token of ours then, without a lease.
    """
    queue, loop = feed.queue, asyncio.get_running_loop()
    taken: list[Lease] = []

    def handed(each: KeptLease, token: str, fields: Hash, done: asyncio.Future[None], reply: Any) -> None:
        """Right when the reply comes: a search for orphans must find the lease."""
        if reply == 1:
            lease = feed.adopt(consumer, each.id, token, fields)
            lease.number = each.number
            taken.append(lease)
            if not consumer.open:  # its connection was given up meanwhile, and nobody else would end the lease
                feed.settler.release(lease, _ignore)
        resolve(done, reply_error(reply) if isinstance(reply, Exception) else None)

    async def take(each: KeptLease) -> None:
        values = await queue.link.call("HMGET", queue.key(each.id), *_FIELDS, decode=False)
        named = zip(_FIELDS, values, strict=True)
        fields = {name.encode(): value for name, value in named if value is not None}
        token, done = consumer.new_token(), loop.create_future()
        args = [each.token, token, consumer.options.lock_duration]
        queue.scripts["handOver"].send(queue.keys(f"{each.id}:lock"), args, partial(handed, each, token, fields, done))
        await done

    await asyncio.gather(*map(take, kept))
    return taken


def _ignore(outcome: object) -> None:
    """Expect no word on what became of a job whose client has gone."""
