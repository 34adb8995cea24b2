"""The port: an address in, one listening SO_REUSEPORT socket per slot out, held for the life of the service.

Every incarnation of a slot's shard inherits the slot's socket. A socket that is closed while the port is
served resets the connections that the kernel has already queued on it, so a shard never owns one.
"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import cast

# What one shard may let wait while it is replaced. The kernel cuts it down to net.core.somaxconn.
BACKLOG = 4096

Address = tuple[str, int] | tuple[str, int, int, int]


class StartError(Exception):
    """The service cannot start (or go on); one line that says why and what to do. Exit code 1."""


def open_slots(host: str, port: int, count: int) -> list[socket.socket]:
    """Open one listening socket per slot, all on one port.

    Args:
        host: name or address to listen on.
        port: 0 picks a free one, the same for all slots.
        count: number of slots.

    Raises StartError when the address is unknown or the port is taken.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise StartError("this platform has no SO_REUSEPORT, which lets several processes share one port")
    family, address = _address(host, port)
    try:
        if port:
            _probe(family, address)
        with ExitStack() as undo:
            slots = []
            for _ in range(count):
                slot = undo.enter_context(_bound(family, address, share=True))
                slot.listen(BACKLOG)
                slot.setblocking(False)
                slots.append(slot)
                address = cast(Address, (address[0], slot.getsockname()[1], *address[2:]))
            undo.pop_all()
            return slots
    except OSError as error:
        raise StartError(f"cannot listen on {authority(host, port)}: {_reason(error)}") from None


def authority(host: str, port: int) -> str:
    """Return `host:port` as a URL writes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable_host(host: str) -> str:
    """Return an address that a client on this machine can use when the service listens on all of them."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _address(host: str, port: int) -> tuple[socket.AddressFamily, Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise StartError(f"cannot listen on {authority(host, port)}: {reason}") from None
    # A name such as localhost may have both; clients that try one address only try IPv4.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, _, _, _, address = found[0]
    return family, cast(Address, address)


def _probe(family: socket.AddressFamily, address: Address) -> None:
    """Raise OSError when somebody listens already.

    SO_REUSEPORT would let a second service of the same user join the port in silence and take a share of the
    connections. Without it, bind tells the truth.
    """
    _bound(family, address, share=False).close()


def _bound(family: socket.AddressFamily, address: Address, *, share: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of an earlier run in TIME_WAIT do not block the port; a listener still does.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


_REASONS = {
    errno.EADDRINUSE: "the port is taken by another process; choose another --port",
    errno.EACCES: "no permission for this port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)
