"""Socket activation: systemd's LISTEN_FDS in, the listening sockets that it has opened for us out (sd_listen_fds(3)).

Its sockets take the place of those that `slots` opens. systemd keeps them open while the service restarts, so that
clients wait instead of being refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from bullmq_proxy.supervisor.slots import StartError, authority
from bullmq_proxy.supervisor.sources import DEFAULT, Resolution, UsageError

LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
FIRST_FD = 3
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def handed_sockets(environ: MutableMapping[str, str], first_fd: int = FIRST_FD) -> list[socket.socket]:
    """Return the sockets that systemd hands over; none where it has not started us, or not through a socket unit.

    Args:
        environ: the process environment; the variables are taken out, so that no child takes them for its own.
        first_fd: descriptor of the first socket.

    Raises StartError for what is no listening stream socket, and for sockets of different addresses.
    """
    pid, count, *_ = (environ.pop(name, "") for name in LISTEN_VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    with ExitStack() as undo:
        sockets = [undo.enter_context(_opened(first_fd + index)) for index in range(int(count))]
        places = {place_of(each) for each in sockets}
        if len(places) > 1:
            raise StartError(
                f"systemd hands over sockets of different addresses ({', '.join(sorted(places))}), and a shard has only"
                " one: keep one address in the socket unit, such as ListenStream=[::]:8080 for IPv4 and IPv6"
            )
        undo.pop_all()
        return sockets


def adopt(resolution: Resolution, sockets: Sequence[socket.socket], giver: str = "systemd") -> Resolution:
    """Return the resolution with the sockets' address and with a number of shards that fits them.

    Args:
        resolution: of the settings.
        sockets: none where nobody has handed over any.
        giver: who has, for messages.

    Raises UsageError when `procs` is given and fits neither one socket for all nor one for each.
    """
    if not sockets:
        return resolution
    settings, places, count = resolution.settings, resolution.places, len(sockets)
    procs = settings.procs
    if count not in (1, procs):
        if places["procs"] != DEFAULT:
            raise UsageError(
                f"procs: {procs} shards cannot share the {count} sockets that {giver} hands over"
                f" ({places['procs'].words}): set it to {count}, or let the socket unit have one ListenStream= line for"
                f" all shards, or {procs} equal ones and ReusePort=yes"
            )
        procs = count
    ignored = [
        f"{name} ({places[name].words}) is overruled: {giver} hands over the socket {place_of(sockets[0])}"
        for name in ("host", "port")
        if places[name] != DEFAULT
    ]
    if sockets[0].family == socket.AF_UNIX:
        host, port = "127.0.0.1", settings.port  # as far away as a unix socket can be reached from
    else:
        host, port = sockets[0].getsockname()[:2]
    settings = replace(settings, procs=procs, host=host, port=port)
    return Resolution(settings, places, (*resolution.remarks, *ignored))


def one_per_slot(sockets: Sequence[socket.socket], slots: int) -> list[socket.socket]:
    """Return a socket for each slot: its own one, or its own descriptor of the one that all share."""
    return [*sockets, *(sockets[0].dup() for _ in range(slots - len(sockets)))]


def place_of(listener: socket.socket) -> str:
    """Return where a socket listens, in words: `host:port`, or the path of a unix socket."""
    name = listener.getsockname()
    if listener.family != socket.AF_UNIX:
        return authority(*name[:2])
    path = name if isinstance(name, str) else os.fsdecode(name)
    return "@" + path[1:] if path.startswith("\0") else path


def _opened(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
    except OSError:
        raise StartError(f"systemd hands over descriptor {fd}, which is no socket: {_REMEDY}") from None
    try:
        if listener.family not in _FAMILIES or listener.type != socket.SOCK_STREAM:
            raise StartError(f"systemd hands over descriptor {fd}, which is no TCP or unix stream socket: {_REMEDY}")
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise StartError(f"systemd hands over descriptor {fd}, which does not listen: {_REMEDY}, with Accept=no")
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


_REMEDY = "let the socket unit have ListenStream= lines only"
