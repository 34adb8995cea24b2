"""What a queue needs of a link to Redis, whoever gives it one: a single server, sentinels, or a cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from bullmq_proxy.gateway.broker.redis.socket import Chunk, OnPush, Setup, Sink
from bullmq_proxy.gateway.errors import GatewayError

if TYPE_CHECKING:
    from bullmq_proxy.gateway.broker.redis.link import Link


class LinkOptions(Struct, frozen=True, kw_only=True):
    """The limits of a shard's links.

    Attributes:
        name: for CLIENT SETNAME.
        deadline: seconds; a connection on which a command waits and no reply comes for this long is given up.
        silence: seconds; the same for the system, which notices on each connection when nothing arrives any more.
        backlog: the most commands that are kept while Redis is away.
        backlog_size: the most bytes of them.
        backlog_timeout: seconds that they are kept for; later ones fail at once until Redis is back.
        seats: how many queues may wait for jobs on a link of their own, and as many for events.
        min_replicas: that must have what is written before it is confirmed; 0 asks none.
        replica_timeout: seconds that they have for it.
    """

    name: str
    deadline: float
    silence: float
    backlog: int
    backlog_size: int
    backlog_timeout: float
    seats: int
    min_replicas: int = 0
    replica_timeout: float = 1.0


class Links(Protocol):
    """What gives each queue its link."""

    def of(self, base: str) -> CommandLink:
        """Return the link for the queue whose keys begin with `base`, on a cluster that of its slot.

        Raises:
            GatewayError: INVALID_ARGUMENTS, a cluster has no single slot for such keys.
        """


class CommandLink(Links, Protocol):
    """A `Link`, or in a cluster the `Route` of a slot."""

    @property
    def is_up(self) -> bool:
        """Whether commands are sent at once."""

    @property
    def db(self) -> int:
        """The number of the database."""

    @property
    def last_error(self) -> GatewayError:
        """The reason for the last outage, as a new exception each time."""

    def send(self, command: bytes | list[Chunk], sink: Sink, *, decode: bool = False, replies: int = 1) -> None:
        """Send packed commands, in order with all others; see `Link.send`."""

    def call(self, *args: Any, decode: bool = True) -> asyncio.Future[Any]:
        """Send one command and get a future of its reply; error replies raise GatewayError."""

    def executors(self) -> tuple[Link, ...]:
        """Return the links to the masters that may have executed what was answered in this moment."""

    async def wait_up(self) -> None:
        """Wait until there is a connection."""

    def sibling(self, options: LinkOptions, setup: Setup | None = None, on_push: OnPush | None = None) -> Link:
        """Make a further link to the same server, for commands that block; wherever the server goes, it follows."""
