"""Who may come in: keys, compared in constant time, and the origins of browsers."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from websockets.datastructures import Headers

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.access.keys_file import Key, digest
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.shared_memory import ShardMemory, SharedMemory

SUBPROTOCOL: Final = "bullmq-proxy.v1"
_BEARER: Final = "bearer."


class Keyring:
    """The keys that are let in; only their digests are kept."""

    def __init__(
        self,
        auth_keys: Iterable[str] = (),
        keys: Iterable[Key] = (),
        *,
        row: ShardMemory | None = None,
        everybody: bool = False,
    ) -> None:
        """Make a keyring; without any key nobody is let in.

        Args:
            auth_keys: keys that may do everything.
            keys: those of the keys file.
            row: where the connections of `keys` are counted; None where nobody else looks.
            everybody: no key is asked for.
        """
        self._row = row or SharedMemory(1).row(0)
        self._everybody = everybody
        self._unlimited = Account(None, self._row)
        self._digests = [digest(key) for key in auth_keys]
        self._accounts: dict[str, Account] = {}  # by name
        self._by_digest: dict[bytes, Account] = {}
        self.replace(keys)

    def admit(self, key: str | None) -> Account:
        """The account of a key; a wrong one takes the same time however near to a right one.

        Raises:
            GatewayError: UNAUTHORIZED.
        """
        if self._everybody:
            return self._unlimited
        if key:
            shown = digest(key)
            # No short cut at the first match: the time must not tell which key it was.
            if sum(hmac.compare_digest(shown, known) for known in self._digests) > 0:
                return self._unlimited
            # A look-up compares whole hashes, salted by the process: nothing in its time tells of a digest's parts.
            if account := self._by_digest.get(shown):
                account.check_validity(time.time())
                return account
            raise GatewayError(ErrorCode.UNAUTHORIZED, "This key is not known")
        raise GatewayError(ErrorCode.UNAUTHORIZED, "A key is needed: Authorization: Bearer KEY, or ?token=KEY")

    def replace(self, keys: Iterable[Key]) -> None:
        """Put what the keys file says now in force, for open connections, too."""
        before, self._accounts = self._accounts, {}
        for key in keys:
            account = before.get(key.name)
            if account is None or account.digest != key.digest:
                account = Account(key, self._row)
            self._accounts[key.name] = account
            account.change(key)
        self._by_digest = {account.digest: account for account in self._accounts.values()}
        for name, account in before.items():
            if self._accounts.get(name) is not account:
                account.revoke()

    def expire(self, now: float) -> None:
        """Close the connections of keys that have expired; `now` in Unix time."""
        for account in self._accounts.values():
            account.expire(now)


def presented_key(headers: Headers, token: str | None) -> str | None:
    """The key that a client shows: in the Authorization header, as a subprotocol, or in the query string.

    Args:
        headers: of the request.
        token: the query string's `token`, for clients that can set neither.
    """
    for value in headers.get_all("Authorization"):
        scheme, _, key = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            return key.strip()
    for name in offered_subprotocols(headers):
        if name.startswith(_BEARER):
            return name.removeprefix(_BEARER)
    return token


def offered_subprotocols(headers: Headers) -> list[str]:
    """All names in the Sec-WebSocket-Protocol headers."""
    values = headers.get_all("Sec-WebSocket-Protocol")
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def is_origin_allowed(headers: Headers, allowed: Iterable[str]) -> bool:
    """Whether a browser's page may connect: one on the list, or, without a list, one from this very host.

    No Origin header means that it is no browser, which is no subject of this check.
    """
    origins = headers.get_all("Origin")
    if not origins:
        return True
    if len(origins) > 1:
        return False
    origin, listed = origins[0], list(allowed)
    if listed:
        return origin in listed or "*" in listed
    return [_host_of(origin)] == [host.lower() for host in headers.get_all("Host")]


def _host_of(origin: str) -> str | None:
    """The host and port of an origin; None where there are none, as in `null`."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:  # brackets that hold no IPv6 address
        return None
