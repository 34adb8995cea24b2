"""Who may come in: keys, compared in constant time, and the origins of browsers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from websockets.datastructures import Headers

from gateway.wire.grants import EVERYTHING, Grant

SUBPROTOCOL: Final = "bullmq-proxy.v1"
_BEARER: Final = "bearer."


class Keyring:
    """The keys that are let in; only their digests are kept."""

    def __init__(self, keys: Iterable[str]) -> None:
        """No keys at all lets everybody in: that is what `--no-auth` asks for, and the supervisor sees to the rest."""
        self._digests = [_digest(key) for key in keys]

    def grant(self, key: str | None) -> Grant | None:
        """What `key` may do, None if it is not ours. A wrong one takes the same time however near to a right one."""
        if not self._digests:
            return EVERYTHING
        if key is None:
            return None
        digest = _digest(key)
        # No short cut at the first match: the time must not tell which key it was.
        known = sum(hmac.compare_digest(digest, known) for known in self._digests) > 0
        return EVERYTHING if known else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


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
