"""Where requests may go: not to this machine, nor to its network, unless `webhook_allow` names it.

The address is looked at when the socket to it is made, whatever has led there: a name that resolves to something else
than a moment ago, a number in hexadecimal, or an address of IPv4 in one of IPv6.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# IPv4 within IPv6 of which `ipaddress` does not know.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")

# Special addresses that all or some versions of `ipaddress` take for public ones.
_SPECIAL: Final = (
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's agents and metadata, at an address of the public network
    ipaddress.IPv4Network("192.0.0.0/24"),  # RFC 6890 §2.2.2; metadata of Oracle's classic cloud at 192.0.0.192
    ipaddress.IPv4Network("192.88.99.0/24"),  # RFC 7526: relays that are no more
    ipaddress.IPv6Network("3fff::/20"),  # RFC 9637: for documents
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # RFC 8215: IPv4 behind a translator of the local network
)


class ForbiddenAddressError(OSError):
    """A request would go where it must not."""

    def __init__(self, address: str) -> None:
        super().__init__(f"requests to {address} are refused: webhook_allow does not name it")


class Guard:
    """What is allowed beside the public network."""

    def __init__(self, allowed: Iterable[str]) -> None:
        """Make a guard; `allowed` are addresses, networks such as `10.0.0.0/8`, and names of hosts."""
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._names: set[str] = set()
        for each in allowed:
            try:
                self._networks.append(ipaddress.ip_network(each, strict=False))
            except ValueError:
                self._names.add(each.lower().rstrip("."))

    def check(self, host: str, address: str) -> None:
        """Refuse an address that a host has resolved to.

        Args:
            host: in the URL.
            address: that is about to be connected to.

        Raises:
            ForbiddenAddressError: it is not public, and not allowed.
        """
        if host.lower().rstrip(".") in self._names:
            return
        reached = ipaddress.ip_address(address.partition("%")[0])
        within = _within(reached)
        if any(each in network for network in self._networks for each in (reached, within)):
            return
        if not _is_public(within):
            raise ForbiddenAddressError(address)

    def check_literal(self, url: str) -> None:
        """Refuse a URL whose host is an address that no request may go to; names are looked at when they resolve."""
        host = urlsplit(url).hostname or ""
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return
        self.check(host, host)


def _within(address: Address) -> Address:
    """Return the address of IPv4 that one of IPv6 stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64 or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo is not None else address)


def _is_public(address: Address) -> bool:
    """Return whether an address is one of the public network; those of metadata services are none."""
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_private
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    is_listed = any(address in network for network in _SPECIAL)
    return address.is_global and not (is_special or is_site_local or is_listed)
