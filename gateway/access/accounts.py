"""Accounts: a secret of a key as one shard knows it: rights, open connections and its share of the limits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from bullmq_proxy.gateway.access.grants import Effect, Grant, Rights
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.access.usage import Usage
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.wire.closing import CloseCode, Refusal, RefusedError
from bullmq_proxy.gateway.wire.endpoints import Endpoint


class AuthenticatedConnection(Protocol):
    """A connection that was opened with a key."""

    @property
    def address(self) -> str:
        """The address of the client; empty on a Unix socket."""

    def close_unauthorized(self, reason: str, code: CloseCode = CloseCode.INVALID_AUTHENTICATION) -> None:
        """Close the connection; jobs that its client holds go back to wait, and no attempt is counted."""

    def tell_expiry(self, left: float) -> None:
        """Tell the client that its token expires in so many seconds."""


class Account:
    """One secret of a key of the keys file, or all clients that share one grant and have no limits.

    Attributes:
        rights: of all its connections.
    """

    def __init__(self, of: Key | Grant, usage: Usage) -> None:
        """Make an account.

        Args:
            of: a key of the keys file, or the grant of clients whose connections and calls are not counted.
            usage: of all who share the limits.
        """
        self._key = of if isinstance(of, Key) else None
        self.rights = Rights(of.grant, self._spend) if isinstance(of, Key) else Rights(of)
        self._usage = usage
        self._revoked = False
        self._connections: dict[AuthenticatedConnection, tuple[Endpoint, str, Sequence[Effect]]] = {}

    def check_validity(self, now: float) -> None:
        """Refuse a key that was removed or has expired; `now` in Unix time.

        Raises:
            GatewayError: UNAUTHORIZED.
        """
        if self._revoked:
            raise RefusedError(Refusal.KEY_GONE, "This key is not valid any more")
        if self._key is not None and self._key.expires is not None and self._key.expires <= now:
            raise RefusedError(Refusal.KEY_GONE, f"The key {self._key.name} has expired")

    def check_address(self, address: str) -> None:
        """Refuse a client from where the key is not used.

        Raises:
            GatewayError: FORBIDDEN.
        """
        if self._key is not None and not self._key.admits(address):
            raise GatewayError(ErrorCode.FORBIDDEN, f"The key {self._key.name} may not be used from this address")

    def check(self, endpoint: Endpoint, queue: str, effects: Sequence[Effect]) -> None:
        """Refuse an endpoint, its queue, or options with `effects`, that the key is not for.

        Raises:
            GatewayError: UNAUTHORIZED for a key that is not valid any more, FORBIDDEN with what is missing.
        """
        self.check_validity(time.time())
        row = endpoint.value
        if row.is_of_one_queue:
            self.rights.grant.check_queue(queue)
        if row.permissions is not None:
            self.rights.grant.check_any_permission(row.permissions, row.action)
        self.rights.grant.check_effects(effects, "?")

    def of_connection(self) -> Account:
        """Return the account of a connection that lasts: that of a token is its own, since it can be renewed."""
        return self

    def enter(
        self, connection: AuthenticatedConnection, endpoint: Endpoint, queue: str, effects: Sequence[Effect]
    ) -> None:
        """Count a connection until it leaves; arguments as for `check`.

        Raises:
            GatewayError: TOO_MANY_REQUESTS; then it is not counted.
        """
        key = self._key
        if key is None:
            return
        if not self._usage.enter(key.column, key.connections):
            raise GatewayError(
                ErrorCode.TOO_MANY_REQUESTS,
                f"The key {key.name} has all its connections open (connections = {key.connections}): close one first",
            )
        self._connections[connection] = (endpoint, queue, effects)

    def leave(self, connection: AuthenticatedConnection) -> None:
        """Count a connection no more; one that was not counted changes nothing."""
        if self._connections.pop(connection, None) is not None and self._key is not None:
            self._usage.leave(self._key.column)

    def change(self, key: Key) -> None:
        """Put new fields of the same key in force: for calls at once, and for open connections.

        Lower limits close no connection.
        """
        self._key = key
        self.rights.change(key.grant)
        for connection, place in list(self._connections.items()):
            try:
                self.check(*place)
                self.check_address(connection.address)
            except GatewayError as error:
                connection.close_unauthorized(error.message)

    def revoke(self) -> None:
        """Take all rights from a key that was removed, and close its connections."""
        self._revoked = True
        self.rights.change(Grant(self.rights.grant.key))
        self._close_all("the key is not valid any more")

    def tick(self, now: float) -> None:
        """Close the connections of an expired key, and learn what the key spends on other shards.

        Called once a second; `now` in Unix time.
        """
        key = self._key
        if key is None:
            return
        if key.messages_per_second is not None:
            self._usage.learn(key.column, key.messages_per_second)
        if key.expires is not None and key.expires <= now:
            self._close_all("the key has expired")

    def _close_all(self, reason: str, code: CloseCode = CloseCode.INVALID_AUTHENTICATION) -> None:
        for connection in list(self._connections):
            connection.close_unauthorized(reason, code)

    def _spend(self, count: int) -> bool:
        """Let calls through, or jobs, if the key has so many left in the whole gateway."""
        key = self._key
        if key is None or key.messages_per_second is None:
            return True
        if not self._usage.spend(key.column, key.messages_per_second, count):
            LogEvent.RATE_REACHED.log(key=key.name, rate=key.messages_per_second)
            return False
        return True
