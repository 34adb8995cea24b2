"""The credentials in a request's headers: the client's key, and the origin and host of a browser's page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from websockets.datastructures import Headers

from bullmq_proxy.gateway.value_types import is_loopback

SUBPROTOCOL: Final = "bullmq-proxy.v1"
_BEARER: Final = "bearer."
_VERSION: Final = re.compile(r"bullmq-proxy\.v[0-9]{1,4}")


def presented_key(headers: Headers, token: str | None) -> str | None:
    """Return the key of a request: from the Authorization header, a subprotocol, or the query string, in this order.

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


def bearer(headers: Headers) -> str:
    """Return the key of a request in the ancestor's form: between the first `Bearer ` and the next; empty for none."""
    _, *rest = ", ".join(headers.get_all("Authorization")).split("Bearer ")
    return rest[0] if rest else ""


def offered_subprotocols(headers: Headers) -> list[str]:
    """Return all names in the Sec-WebSocket-Protocol headers."""
    values = headers.get_all("Sec-WebSocket-Protocol")
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def offered_version(headers: Headers) -> str | None:
    """Return the name of the version of our protocol that a client has offered: the one that is spoken here, if it can.

    None for a client that has offered none: it may know nothing of our close codes.
    """
    names = offered_subprotocols(headers)
    return SUBPROTOCOL if SUBPROTOCOL in names else next(filter(_VERSION.fullmatch, names), None)


def is_origin_allowed(headers: Headers, allowed: Iterable[str]) -> bool:
    """Return whether a browser's page may connect: its origin is on the list, or, without a list, is this very host.

    A request without an Origin header comes from no browser, and is allowed.
    """
    origins = headers.get_all("Origin")
    if not origins:
        return True
    if len(origins) > 1:
        return False
    origin, listed = origins[0], list(allowed)
    if listed:
        return origin in listed or "*" in listed
    scheme, host = _parts_of(origin)
    port = _DEFAULT_PORTS.get(scheme, "")  # some clients write it, others leave it out
    host = host.removesuffix(port)
    return bool(host) and [each.lower().removesuffix(port) for each in headers.get_all("Host")] == [host]


_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}


def is_host_allowed(headers: Headers, allowed: Iterable[str]) -> bool:
    """Return whether the `Host` of a request is on the list, or is this machine itself.

    A page in somebody's browser can make its own host name lead to a loopback address and then speak to what listens
    there as to its own server (DNS rebinding); its name stays in this header. Programs that send none are no browsers.
    """
    return all(is_loopback(name) or name in allowed for name in map(_name_of, headers.get_all("Host")))


def _name_of(host: str) -> str:
    """Return the name or address in a `Host` header, without port, brackets, and the dot of a full name."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.removesuffix(".").lower()


def _parts_of(origin: str) -> tuple[str, str]:
    """Return the scheme of an origin, and its host with the port; nothing where it has none, as `null`."""
    try:
        parts = urlsplit(origin)
    except ValueError:  # brackets that hold no IPv6 address
        return "", ""
    return parts.scheme, parts.netloc.lower()
