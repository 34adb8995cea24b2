"""The directory of a shard: its open connections, for those who manage their queues, and the way to send them off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from operator import attrgetter
from typing import Protocol

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.access.grants import Grant
from bullmq_proxy.gateway.rules.shapes import ConnectionKind, ShownConnection
from bullmq_proxy.gateway.sessions.interfaces import CallSession, Session


class Listed(Protocol):
    """A connection, whatever it speaks."""

    @property
    def number(self) -> int:
        """In microseconds since 1970, when it was made; no other one of the shard has it."""

    @property
    def kind(self) -> ConnectionKind:
        """What the client has connected to."""

    @property
    def queue(self) -> str:
        """The name of the queue; empty for none."""

    @property
    def address(self) -> str:
        """The address of the client."""

    @property
    def account(self) -> Account | None:
        """The account of its key, once it was let in."""

    @property
    def session(self) -> Session | CallSession | None:
        """The session, while there is one."""

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to close it."""

    @property
    def write_buffer_size(self) -> int:
        """Bytes that the client has not read."""

    def retire(self) -> None:
        """Let a worker finish what it has, and give it nothing new; close the connection of any other client."""

    def send_away(self) -> None:
        """Close it."""


class Directory:
    """The connections of one shard. It is made up when somebody asks: connections do nothing for it."""

    def __init__(
        self, clients: Callable[[], Iterable[Listed]], address: str, *, host: str, gateway: str, shard: int
    ) -> None:
        """Make one.

        Args:
            clients: returns all connections.
            address: of the shard, with which the ids of its connections begin.
            host: the name of the machine.
            gateway: the name of its run.
            shard: the slot.
        """
        self._clients = clients
        self._address = address
        self._host = host
        self._gateway = gateway
        self._shard = shard

    def show(
        self, grant: Grant, queue: str | None, kind: ConnectionKind | None, most: int
    ) -> tuple[list[ShownConnection], int]:
        """Return connections on the queues that a grant covers, the oldest ones first, and how many more there are.

        Args:
            grant: of whoever asks. Those of no queue are shown only to one who has all queues.
            queue: the name of the only queue to show; None for all.
            kind: the only kind to show; None for all.
            most: how many to show.
        """
        found = [each for each in self._covered(grant) if queue in (None, each.queue) and kind in (None, each.kind)]
        found.sort(key=attrgetter("number"))
        return [self._shown(each) for each in found[:most]], max(0, len(found) - most)

    def dismiss(self, grant: Grant, id: str, *, closes: bool) -> bool:
        """Let the worker on a connection finish what it has, or close the connection.

        Args:
            grant: of whoever asks.
            id: of the connection.
            closes: close it; else only those without a worker are closed.

        Returns:
            Whether there is such a connection on a queue that the grant covers.
        """
        for each in self._covered(grant):
            if self._id(each) == id:
                each.send_away() if closes else each.retire()
                return True
        return False

    def _covered(self, grant: Grant) -> Iterator[Listed]:
        covers = cache(grant.covers)
        return (each for each in self._clients() if each.session is not None and each.is_open and covers(each.queue))

    def _id(self, connection: Listed) -> str:
        return f"{self._address}:{connection.number}"

    def _shown(self, connection: Listed) -> ShownConnection:
        session, account = connection.session, connection.account
        assert session is not None
        work = session.work
        return {
            "id": self._id(connection),
            "kind": connection.kind,
            "queue": connection.queue or None,
            "key": "" if account is None else account.rights.grant.key,
            "host": self._host,
            "gateway": self._gateway,
            "shard": self._shard,
            "address": connection.address,
            "since": connection.number // 1000,
            "inHand": work.jobs,
            "concurrency": work.concurrency,
            "calls": work.calls,
            "lag": connection.write_buffer_size,
        }
