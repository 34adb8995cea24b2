"""Tokens: JSON Web Tokens that let clients in for a while (RFC 7519), with their rights and limits as claims.

PyJWT verifies them. An account is made for each token, and one more for each connection that lasts, since a fresh token
can be handed in on it. All tokens of one `sub` share their limits on this shard.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakValueDictionary

from bullmq_proxy.gateway.access.accounts import Account, AuthenticatedConnection
from bullmq_proxy.gateway.access.grants import Effect
from bullmq_proxy.gateway.access.keys_file import InvalidFieldError, Key, digest, read_key
from bullmq_proxy.gateway.access.token_keys import TokenKey
from bullmq_proxy.gateway.access.token_source import TokenSource
from bullmq_proxy.gateway.access.usage import OwnCounts, Usage
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.endpoints import Endpoint

LONGEST: Final = 8192
"""Characters of a token."""
CACHED: Final = 4096
"""Tokens whose signature is not looked at again; of more, those that were shown last."""
WARNING: Final = 30.0
"""Seconds before its end at which a connection is told so; a third of what is left, for tokens that are short-lived."""
TICK: Final = 1.0
"""Seconds between two looks at who is to be told, or closed."""
PREFIX: Final = "jwt/"
"""Begins the names of tokens' accounts: no key of a keys file can have such a name, whatever a `sub` says."""

_FORM: Final = re.compile(r"e[w-z][\w-]*\.[\w-]+\.[\w-]*", re.ASCII)  # `{` in base64url, as every header begins
_LONGEST_NAME: Final = 128
_SAFE: Final = "!$&'()+,;=@|/~"  # of the rest, `:` is what parts the tokens of locks
_REQUIRED: Final = ["exp", "iss", "aud", "sub"]
_TIMES: Final = ("exp", "nbf", "iat")


def has_form(secret: str) -> bool:
    """Return whether what a client shows is a token by its form."""
    return _FORM.fullmatch(secret) is not None


class TokenAccount(Account):
    """The account of one token: of its HTTP requests, or of one connection, which can renew it.

    Attributes:
        signed_with: fingerprint of the key that has signed it.
    """

    def __init__(self, tokens: Tokens, key: Key, signed_with: bytes, usage: Usage) -> None:
        """Make an account of a token that was verified; `key` has what its claims say."""
        super().__init__(key, usage)
        self.signed_with = signed_with
        self._tokens = tokens
        self._token = key
        self._set_end()

    def _set_end(self) -> None:
        assert self._token.expires is not None
        left = self._token.expires - time.time()
        self._warn_at = self._token.expires - min(WARNING, left / 3) - TICK

    def check_validity(self, now: float) -> None:
        """Refuse a token that has expired, or whose signature does not count any more."""
        if not self._tokens.knows(self.signed_with):
            raise _refused("is signed with a key that is not valid any more")
        assert self._token.expires is not None
        if now >= self._token.expires:
            raise _refused("has expired: get a fresh one")

    def of_connection(self) -> TokenAccount:
        """Return an account of one connection's own."""
        account = TokenAccount(self._tokens, self._token, self.signed_with, self._usage)
        account.rights.renew = account._renew
        return account

    def enter(
        self, connection: AuthenticatedConnection, endpoint: Endpoint, queue: str, effects: Sequence[Effect]
    ) -> None:
        """Count a connection until it leaves."""
        super().enter(connection, endpoint, queue, effects)
        self._tokens.open.add(self)

    def leave(self, connection: AuthenticatedConnection) -> None:
        """Count a connection no more."""
        super().leave(connection)
        if not self._connections:
            self._tokens.open.discard(self)

    def tick(self, now: float) -> None:
        """Tell the connections that the token ends soon, and close them when it has ended."""
        expires = self._token.expires
        assert expires is not None
        if now >= expires:
            self.end("the token has expired")
        elif now >= self._warn_at:
            self._warn_at = math.inf
            for connection in list(self._connections):
                connection.tell_expiry(expires - now)

    def end(self, reason: str) -> None:
        """Close the connections: their clients come back with a fresh token."""
        self._close_all(reason, CloseCode.TOKEN_EXPIRED)

    def _renew(self, secret: str) -> None:
        """Put a fresh token of the same `sub` in force, with whatever rights it has.

        Raises:
            GatewayError: UNAUTHORIZED, it is none, or another's; FORBIDDEN, it is not for this connection.
        """
        fresh = self._tokens.authenticate(secret)
        key = fresh._token
        if key.name != self._token.name:
            raise GatewayError(ErrorCode.UNAUTHORIZED, f"This token is of {key.name}, not of {self._token.name}")
        for place in self._connections.values():
            fresh.check(*place)
        self._token, self.signed_with = key, fresh.signed_with
        self._set_end()
        self.change(key)


class Tokens:
    """The tokens that are let in.

    Attributes:
        open: accounts of connections.
    """

    def __init__(self, place: str, *, issuer: str, audience: str, leeway: float, lifetime: float) -> None:
        """Make it.

        Args:
            place: file or URL of the keys that tokens are signed with.
            issuer: that the tokens are of.
            audience: that they are for.
            leeway: seconds by which clocks may differ.
            lifetime: seconds that a token may be valid, at most.

        Raises:
            TokenKeysError: the file cannot be used, or a package is missing.
        """
        self.open: set[TokenAccount] = set()
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._lifetime = lifetime
        self._cached: dict[bytes, TokenAccount] = {}
        self._usages: WeakValueDictionary[str, Usage] = WeakValueDictionary()
        self.source = TokenSource(place, self._keys_gone)

    def authenticate(self, secret: str) -> TokenAccount:
        """Return the account of a token.

        Raises:
            GatewayError: UNAUTHORIZED with what is wrong; KEYS_UNAVAILABLE where that is not known yet.
        """
        shown = digest(secret)
        account = self._cached.pop(shown, None)
        if account is None or not self.knows(account.signed_with):
            account = self._verify(secret, shown)
        account.check_validity(time.time())
        self._cached[shown] = account
        if len(self._cached) > CACHED:
            del self._cached[next(iter(self._cached))]
        return account

    def tick(self, now: float) -> None:
        """Bring every account that has connections up to date, once a second; `now` in Unix time."""
        self.source.tick()
        for account in list(self.open):
            account.tick(now)

    def knows(self, fingerprint: bytes) -> bool:
        """Return whether a key is in force."""
        return self.source.keys is not None and fingerprint in self.source.keys.fingerprints

    def _keys_gone(self) -> None:
        """Close the connections whose token was signed with a key that is gone."""
        for account in list(self.open):
            if not self.knows(account.signed_with):
                account.end("the key that has signed the token is not valid any more")

    def _verify(self, secret: str, shown: bytes) -> TokenAccount:
        if len(secret) > LONGEST:
            raise _refused(f"has more than {LONGEST} characters")
        if not has_form(secret):
            raise _refused("is malformed")
        signed_with, claims = self._decode(secret)
        key = self._read(claims, shown)
        usage = self._usages.get(key.name)
        if usage is None:
            usage = self._usages[key.name] = Usage(OwnCounts())
        return TokenAccount(self, key, signed_with.fingerprint, usage)

    def _decode(self, secret: str) -> tuple[TokenKey, Mapping[str, Any]]:
        """Return the claims of a token whose signature is right, and who has signed it."""
        import jwt  # noqa: PLC0415 - only whoever lets tokens in has it

        try:
            signed_with = self._find(jwt.get_unverified_header(secret).get("kid"))
            claims = jwt.decode(
                secret,
                signed_with.verifier,
                algorithms=[signed_with.algorithm],  # the key's: what the token says must be the same
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise _refused("has expired: get a fresh one") from None
        except jwt.ImmatureSignatureError:
            raise _refused("is not valid yet, by its nbf or iat: is a clock wrong?") from None
        except jwt.InvalidAudienceError:
            raise _refused(f"is for somebody else: its aud is not {self._audience}") from None
        except jwt.InvalidIssuerError:
            raise _refused(f"is of somebody else: its iss is not {self._issuer}") from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"has no {error.claim}") from None
        except jwt.InvalidAlgorithmError:
            raise _refused("is signed by another algorithm than its key is for") from None
        except jwt.InvalidSignatureError:
            raise _refused("has a wrong signature") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise _refused("is malformed") from None
        return signed_with, claims

    def _find(self, id: Any) -> TokenKey:
        keys = self.source.keys
        key = keys.find(id) if keys is not None else None
        if key is None:
            if self.source.may_become_known(id):
                raise GatewayError(
                    ErrorCode.KEYS_UNAVAILABLE,
                    "The keys that tokens are signed with are being read: try again in a second",
                )
            raise _refused("is signed with a key that is not known, by its kid")
        return key

    def _read(self, claims: Mapping[str, Any], shown: bytes) -> Key:
        """Return what the claims grant."""
        for name in _TIMES:
            if name in claims and not _is_time(claims[name]):
                raise _refused(f"cannot be used: {name}: expected a number of seconds")
        now = time.time()
        if claims["exp"] - min(now, claims.get("iat", now)) > self._lifetime:
            raise _refused(f"is valid for longer than {self._lifetime:g} s (token_lifetime)")
        name = PREFIX + quote(claims["sub"], safe=_SAFE, errors="surrogatepass")
        if not len(PREFIX) < len(name) <= _LONGEST_NAME:
            raise _refused("cannot be used: sub: expected a name that is not empty, and not that long")
        try:
            return read_key(name, claims, (shown,), float(claims["exp"]) + self._leeway)
        except InvalidFieldError as error:
            raise _refused(f"cannot be used: {error.field}: {error.problem}") from None


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refused(what: str) -> GatewayError:
    return GatewayError(ErrorCode.UNAUTHORIZED, f"This token {what}")
