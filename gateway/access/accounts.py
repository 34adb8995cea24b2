"""Accounts: a key as one shard knows it, with its rights, its open connections and what it has used up."""

from __future__ import annotations

import time
from typing import Final, Protocol

from bullmq_proxy.gateway.access.grants import EVERYTHING, Grant, Permission, Rights
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.access.token_bucket import Bucket
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.shared_memory import ShardMemory
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.routes import Endpoint

_NEEDS: Final = {
    Endpoint.WORKER: (Permission.CONSUME, "process jobs"),
    Endpoint.EVENTS: (Permission.OBSERVE, "watch events"),
}
_OF_ONE_QUEUE: Final = (Endpoint.QUEUE, Endpoint.WORKER, Endpoint.EVENTS)


class AdmittedConnection(Protocol):
    """A connection, as those see it who let it in."""

    def dismiss(self, code: CloseCode, reason: str) -> None:
        """Close the connection; jobs that its client holds go back and are not held against it."""


class Account:
    """One key of the keys file, or all of those that may do everything.

    Attributes:
        rights: of all its connections.
    """

    def __init__(self, key: Key | None, row: ShardMemory) -> None:
        """Make an account; `row` is where its connections are counted, `key` None for keys that may do everything."""
        self.rights = Rights(EVERYTHING) if key is None else Rights(key.grant, self._spend)
        self._key = key
        self._row = row
        self._revoked = False
        self._bucket = Bucket()
        self._connections: dict[AdmittedConnection, tuple[Endpoint, str]] = {}

    @property
    def digest(self) -> bytes:
        """Of its secret; empty for keys that may do everything."""
        return b"" if self._key is None else self._key.digest

    def check_validity(self, now: float) -> None:
        """Refuse a key that is over; `now` in Unix time.

        Raises:
            GatewayError: UNAUTHORIZED.
        """
        if self._revoked:
            raise GatewayError(ErrorCode.UNAUTHORIZED, "This key is not valid any more")
        if self._key is not None and self._key.expires is not None and self._key.expires <= now:
            raise GatewayError(ErrorCode.UNAUTHORIZED, f"The key {self._key.name} has expired")

    def check(self, kind: Endpoint, queue: str) -> None:
        """Refuse a connection that the key is not for.

        Raises:
            GatewayError: UNAUTHORIZED for a key that is over, FORBIDDEN with what is missing.
        """
        self.check_validity(time.time())
        check_entry(self.rights.grant, kind, queue)

    def enter(self, connection: AdmittedConnection, kind: Endpoint, queue: str) -> None:
        """Count a connection in, until it leaves.

        Raises:
            GatewayError: TOO_MANY_REQUESTS; then it is not counted.
        """
        key = self._key
        if key is None:
            return
        # First counted, then compared: of two shards at once both may refuse, but never does one too many come in.
        self._row.add(key.column, 1)
        if key.connections is not None and self._row.total(key.column) > key.connections:
            self._row.add(key.column, -1)
            raise GatewayError(
                ErrorCode.TOO_MANY_REQUESTS,
                f"The key {key.name} has all its connections open (connections = {key.connections}): close one first",
            )
        self._connections[connection] = (kind, queue)

    def leave(self, connection: AdmittedConnection) -> None:
        """The connection is gone; nothing happens if it was not counted."""
        if self._connections.pop(connection, None) is not None and self._key is not None:
            self._row.add(self._key.column, -1)

    def change(self, key: Key) -> None:
        """Take over what the file says now of the same name and secret: for calls at once, and for connections.

        Lower limits end no connection that is open.
        """
        self._key = key
        self.rights.change(key.grant)
        for connection, (kind, queue) in list(self._connections.items()):
            try:
                self.check(kind, queue)
            except GatewayError as error:
                connection.dismiss(CloseCode.INVALID_AUTHENTICATION, error.message)

    def revoke(self) -> None:
        """The key is gone: nothing is allowed any more, and its connections are closed."""
        self._revoked = True
        self.rights.change(Grant(self.rights.grant.key))
        self._dismiss_all("the key is not valid any more")

    def expire(self, now: float) -> None:
        """Close its connections if the key has expired; `now` in Unix time.

        Called every second: often enough for the bucket, too, to know what the key spends elsewhere.
        """
        key = self._key
        if key is not None and key.messages_per_second is not None:
            self._bucket.look(key.messages_per_second, time.monotonic(), self._row.spent(key.column))
        if self._connections and self._key is not None and self._key.expires is not None and self._key.expires <= now:
            self._dismiss_all("the key has expired")

    def _dismiss_all(self, reason: str) -> None:
        for connection in list(self._connections):
            connection.dismiss(CloseCode.INVALID_AUTHENTICATION, reason)

    def _spend(self) -> bool:
        """Let a call through, if the key has one left in the whole gateway."""
        key = self._key
        if key is None or key.messages_per_second is None:
            return True
        if not self._bucket.take(key.messages_per_second, time.monotonic(), self._row.spent(key.column)):
            return False
        self._row.spend(key.column)
        return True


def check_entry(grant: Grant, kind: Endpoint, queue: str) -> None:
    """Refuse a kind of connection, or a queue, that a key is not for.

    Raises:
        GatewayError: FORBIDDEN, saying what is missing.
    """
    if kind in _OF_ONE_QUEUE:
        grant.check_queue(queue)
    if kind in _NEEDS:
        grant.check_permission(*_NEEDS[kind])
    elif not grant.everything and not grant.permissions:
        raise GatewayError(ErrorCode.FORBIDDEN, f"The key {grant.key} may not call anything: it has no permissions")
