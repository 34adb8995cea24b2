"""The authenticator: from a client's key to its account. Keys are compared in constant time."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from typing import Final

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.access.grants import EVERYTHING, Grant, Permission
from bullmq_proxy.gateway.access.keys_file import Key, digest
from bullmq_proxy.gateway.access.tokens import Tokens, has_form
from bullmq_proxy.gateway.access.usage import Usage
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.shared_memory import ShardMemory

_BY_NAME: Final = b""


class Authenticator:
    """The keys that are let in; only their digests are kept.

    Attributes:
        nobody: the account of requests that show no key, where none is needed: it has no rights.
    """

    def __init__(
        self,
        auth_keys: Iterable[str],
        keys: Iterable[Key],
        memory: ShardMemory,
        *,
        no_auth: bool,
        tokens: Tokens | None = None,
    ) -> None:
        """Make an authenticator; without any key nobody is let in.

        Args:
            auth_keys: keys that may do everything.
            keys: those of the keys file.
            memory: where this shard counts the connections of `keys`.
            no_auth: let everybody do everything.
            tokens: that are let in, beside keys.
        """
        self.nobody = Account(Grant(""), Usage(memory))
        self._memory = memory
        self._no_auth = no_auth
        self._tokens = tokens
        self._unlimited = Account(EVERYTHING, Usage(memory))
        self._holders = Account(Grant("", frozenset({Permission.CONSUME}), ("*",)), Usage(memory))
        self._digests = [digest(key) for key in auth_keys]
        # By the key's name and the digest of each of its secrets, or none: of those who show a certificate instead.
        self._accounts: dict[tuple[str, bytes], Account] = {}
        self._by_digest: dict[bytes, Account] = {}
        self.replace(keys)

    def authenticate(self, key: str | None, address: str) -> Account:
        """Return the account of a key. A wrong key takes the same time, however near it is to a right one.

        Args:
            key: the secret that the client at `address` has shown.
            address: of the client; empty on a Unix socket.

        Raises:
            GatewayError: UNAUTHORIZED; FORBIDDEN where the key is not for this address; KEYS_UNAVAILABLE where a token
                cannot be verified yet.
        """
        if self._no_auth:
            return self._unlimited
        if not key:
            raise GatewayError(ErrorCode.UNAUTHORIZED, "A key is needed: Authorization: Bearer KEY, or ?token=KEY")
        shown = digest(key)
        # No short cut at the first match: the time must not tell which key it was.
        if sum(hmac.compare_digest(shown, known) for known in self._digests) > 0:
            return self._unlimited
        # A look-up compares whole hashes, salted by the process: its time tells nothing about parts of a digest.
        account = self._by_digest.get(shown)
        if account is None and self._tokens is not None and has_form(key):
            return self._tokens.authenticate(key)
        if account is None:
            raise GatewayError(ErrorCode.UNAUTHORIZED, "This key is not known")
        account.check_validity(time.time())
        account.check_address(address)
        return account

    def authenticate_by_name(self, names: Iterable[str], address: str) -> Account:
        """Return the account of the first key that has one of these names.

        Args:
            names: in the certificate of the client at `address`.
            address: of the client; empty on a Unix socket.

        Raises:
            GatewayError: as `authenticate` does.
        """
        if self._no_auth:
            return self._unlimited
        account = next((self._accounts[name, _BY_NAME] for name in names if (name, _BY_NAME) in self._accounts), None)
        if account is None:
            raise GatewayError(ErrorCode.UNAUTHORIZED, "No key has the name of this certificate, and none is shown")
        account.check_validity(time.time())
        account.check_address(address)
        return account

    def hear(self, token: str) -> Account:
        """Return the account of whoever shows the token of a job's lock, which its function has to check.

        Raises:
            GatewayError: UNAUTHORIZED, there is no token.
        """
        if not token:
            raise GatewayError(
                ErrorCode.UNAUTHORIZED, "The token of the job's lock is needed: Authorization: Bearer TOKEN"
            )
        return self._holders

    def replace(self, keys: Iterable[Key]) -> None:
        """Put the keys of a keys file in force, also for open connections."""
        before, self._accounts = self._accounts, {}
        for key in keys:
            for of in (*key.digests, _BY_NAME):
                account = self._accounts[key.name, of] = before.get((key.name, of)) or Account(key, Usage(self._memory))
                account.change(key)
        self._by_digest = {of: account for (_, of), account in self._accounts.items() if of != _BY_NAME}
        for place in before.keys() - self._accounts.keys():
            before[place].revoke()

    def tick(self, now: float) -> None:
        """Bring every account up to date, once a second; `now` in Unix time."""
        for account in self._accounts.values():
            account.tick(now)
        if self._tokens is not None:
            self._tokens.tick(now)

    async def start(self) -> None:
        """Read the keys that tokens are signed with, where they are at a URL."""
        if self._tokens is not None:
            await self._tokens.source.start()

    async def close(self) -> None:
        """Read them no more."""
        if self._tokens is not None:
            await self._tokens.source.close()

    def read_token_keys(self) -> None:
        """Read them again.

        Raises:
            TokenKeysError: the file cannot be used; the keys that were read before stay in force.
        """
        if self._tokens is not None:
            self._tokens.source.read_again()
