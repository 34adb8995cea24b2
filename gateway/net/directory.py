"""The directory of a shard: its open connections, for those who manage their queues, and the way to send them off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.access.grants import Grant
from bullmq_proxy.gateway.net.places import Place
from bullmq_proxy.gateway.rules.shapes import ConnectionKind, ShownConnection
from bullmq_proxy.gateway.sessions.interfaces import CallSession, Session, Work


class Listed(Protocol):
    """A connection, whatever it speaks."""

    @property
    def number(self) -> int:
        """In microseconds since 1970, when it was made; no other one of the shard has it."""

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
    def write_buffer_size(self) -> int:
        """Bytes that the client has not read."""

    def retire(self) -> None:
        """Let a worker finish what it has, and give it nothing new; close the connection of any other client."""

    def send_away(self) -> None:
        """Close it."""


Clients = Callable[[], Iterable[tuple[Listed, Place]]]
"""Returns all connections that nobody has begun to close, with their places."""


class Directory:
    """The connections of one shard. It is made up when somebody asks: connections do nothing for it."""

    def __init__(
        self,
        clients: Clients,
        address: str,
        *,
        host: str,
        gateway: str,
        shard: int,
    ) -> None:
        """Make one.

        Args:
            clients: of the shard.
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
        found = list(self._covered(grant, queue, kind))
        # They come as they were opened, except those that speak HTTP: nearly as they are to be shown.
        first = sorted(found[:most] + [each for each in found[most:] if each[1].kind == "http"], key=_age)
        return [self._shown(*each) for each in first[:most]], max(0, len(found) - most)

    def dismiss(self, grant: Grant, id: str, *, closes: bool) -> bool:
        """Let the worker on a connection finish what it has, or close the connection.

        Args:
            grant: of whoever asks.
            id: of the connection.
            closes: close it; else only those without a worker are closed.

        Returns:
            Whether there is such a connection on a queue that the grant covers.
        """
        for each, _ in self._covered(grant):
            if self._id(each) == id:
                each.send_away() if closes else each.retire()
                return True
        return False

    def _covered(
        self, grant: Grant, queue: str | None = None, kind: ConnectionKind | None = None
    ) -> Iterator[tuple[Listed, Place]]:
        """Yield the connections on the queues of a grant; there may be ten thousands of them, and the loop waits."""
        wanted: dict[Place, bool] = {}
        for each in self._clients():
            place = each[1]
            is_wanted = wanted.get(place)
            if is_wanted is None:
                is_wanted = wanted[place] = (
                    (queue is None or place.queue == queue)
                    and (kind is None or place.kind == kind)
                    and grant.covers(place.queue)
                )
            if is_wanted:
                yield each

    def _id(self, connection: Listed) -> str:
        return f"{self._address}:{connection.number}"

    def _shown(self, connection: Listed, place: Place) -> ShownConnection:
        session, account = connection.session, connection.account
        work = Work(0, None, 0) if session is None else session.work
        return {
            "id": self._id(connection),
            "kind": place.kind,
            "queue": place.queue or None,
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


def _age(found: tuple[Listed, Place]) -> int:
    return found[0].number
