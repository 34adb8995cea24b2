"""Proxies in front of us, and the client that one speaks for: by the PROXY protocol, or by a header of the request.

Only those that are trusted are believed, and only the last hop that is not one of them counts: the client itself may
have written what stands before it in a header.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from collections.abc import Iterable
from typing import Any, Final

from websockets.datastructures import Headers

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.net.front import Front
from bullmq_proxy.gateway.value_types import parse_address

UNIX: Final = "unix"
"""Stands among the trusted proxies for whoever connects by a Unix socket."""

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""The first bytes of the PROXY protocol, version 2 (haproxy.org, proxy-protocol.txt §2.2)."""

_HOPS: Final = 32  # of a header that are looked at
_FIXED: Final = 16  # bytes of a PROXY header before the addresses
_LONGEST: Final = 2048  # bytes of one, with what is told beside the addresses
_LOCAL, _PROXY = 0x20, 0x21  # version and command: the proxy speaks for itself, or for a client
_SIZES: Final = {0x11: 4, 0x21: 16}  # bytes of an address, by family and protocol: TCP over IPv4, and over IPv6


class TrustedProxies:
    """The proxies that are believed."""

    def __init__(self, places: Iterable[str]) -> None:
        """Make the set; `places` are addresses, networks and `unix`."""
        self._trusts_unix = UNIX in places
        self._networks = tuple(ipaddress.ip_network(place) for place in places if place != UNIX)

    def __contains__(self, address: object) -> bool:
        """Return whether an address is that of a trusted proxy; it is empty on a Unix socket."""
        if not address:
            return self._trusts_unix
        found = parse_address(str(address))
        return found is not None and any(found in network for network in self._networks)

    def client(self, peer: str, headers: Headers) -> str:
        """Return the address of the client for which a request was sent.

        Args:
            peer: the address that it came from.
            headers: of the request.

        Raises:
            GatewayError: two headers name different clients, one of which no proxy has written.
        """
        if not (self._networks or self._trusts_unix) or peer not in self:
            return peer
        listed = _items(headers, "X-Forwarded-For")
        told = [_node(element) for element in _items(headers, "Forwarded")]
        found = {self._last_hop(peer, hops) for hops in (listed, told) if hops}
        if len(found) > 1:
            raise GatewayError(
                ErrorCode.INVALID_MESSAGE,
                "X-Forwarded-For and Forwarded name different clients: the proxy has to remove the one that it does not"
                " write",
            )
        return found.pop() if found else peer

    def _last_hop(self, peer: str, hops: list[str]) -> str:
        for hop in reversed(hops[-_HOPS:]):
            address = parse_address(_without_port(hop))
            if address is None:  # `unknown`, or a name that the proxy has made up (RFC 7239 §6)
                break
            peer = sys.intern(str(address))
            if peer not in self:
                break
        return peer


def _items(headers: Headers, name: str) -> list[str]:
    # Commas in quotes count, too: a quote that a client leaves open must not hide what the proxy writes behind it.
    return [item.strip() for value in headers.get_all(name) for item in value.split(",")]


def _node(element: str) -> str:
    """Return the client in an element of `Forwarded` (RFC 7239 §4)."""
    for pair in element.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.lower() == "for":
            return value.strip('"')
    return ""


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


class ProxyHeader(asyncio.Protocol):
    """The beginning of a socket on which the PROXY protocol may be spoken; then whoever comes next has the socket."""

    def __init__(self, proxies: TrustedProxies, front: Front, following: asyncio.Protocol) -> None:
        """Make one for a socket that will be accepted.

        Args:
            proxies: those that send a header; nobody else may.
            front: is told of the client.
            following: has the socket behind the header.
        """
        self._proxies = proxies
        self._front = front
        self._following = following
        self._head = bytearray()
        self._socket: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        """Count the client from now on; one that is no proxy has the socket at once."""
        self._socket = transport
        self._following.connection_made(transport)
        if self._front.address not in self._proxies:
            transport.set_protocol(self._following)

    def data_received(self, data: bytes) -> None:
        """Collect the header."""
        self._head += data
        try:
            found = read_header(self._head)
        except ValueError as error:
            LogEvent.PROXY_HEADER.log(address=self._front.address or UNIX, reason=error)
            self._socket.abort()
            return
        if found is None:
            return
        size, address = found
        if address:
            self._front.come_from(address)
        self._socket.set_protocol(self._following)
        if len(self._head) > size:
            self._following.data_received(bytes(self._head[size:]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._following.connection_lost(exc)


def read_header(head: bytes | bytearray) -> tuple[int, str] | None:
    """Read a header of the PROXY protocol, version 2.

    Args:
        head: what has come.

    Returns:
        The size of the header, and the address of the client, empty where the proxy speaks for itself; None while it is
        not whole.

    Raises:
        ValueError: it is none.
    """
    if not head.startswith(SIGNATURE[: len(head)]):
        raise ValueError("it begins with no PROXY header of version 2")
    if len(head) < _FIXED:
        return None
    command, family, size = head[12], head[13], _FIXED + int.from_bytes(head[14:16], "big")
    if command not in (_LOCAL, _PROXY) or size > _LONGEST:
        raise ValueError("its PROXY header has another version, or is too long")
    if len(head) < size:
        return None
    length = _SIZES.get(family, 0)
    if command == _LOCAL or not length:
        return size, ""
    if size < _FIXED + 2 * length + 4:
        raise ValueError("its PROXY header is too short for its addresses")
    return size, sys.intern(str(parse_address(str(ipaddress.ip_address(bytes(head[_FIXED : _FIXED + length]))))))
