"""One shard's process: settings and sockets in, a forked child that runs `shard.py` out.

Fork without exec: the child imports the gateway after the fork, so that the parent stays small and a new
incarnation runs the code that is installed now.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from bullmq_proxy.gateway import logs
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.shared_memory import SharedMemory
from bullmq_proxy.supervisor.signals import WATCHED, show_stacks_of_a_child

log = logging.getLogger(__name__)

# A shard's message is one line, the longest a list of queue names; more without a line end is none of ours.
_LONGEST_LINE = 4 << 20
_CHUNK = 64 * 1024


class Closable(Protocol):
    """What a child closes because it belongs to its parent."""

    def close(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a new shard is told by its parent.

    Attributes:
        settings: complete: port, redis_url and auth_keys are final.
        gateway_id: of this run of the service, the same for all its shards.
        orphaned: queues that the slot's last shard served when it died.
        keys: those of the keys file.
        board: where all shards count the connections and calls of these keys.
    """

    settings: Settings
    slot: int
    incarnation: int
    gateway_id: str
    orphaned: tuple[str, ...]
    keys: tuple[Key, ...]
    board: SharedMemory


@dataclass(slots=True)
class ShardProcess:
    """The parent's view of one shard process."""

    slot: int
    pid: int
    control: socket.socket
    _unread: bytes = field(default=b"", repr=False)
    _unsaid: bytearray = field(default_factory=bytearray, repr=False)

    def tell(self, **message: Any) -> None:
        """Say something to the shard; what it does not take at once is left for `speak`."""
        self._unsaid += json.dumps(message).encode() + b"\n"
        self.speak()

    def speak(self) -> None:
        """Go on with what is still to be said."""
        try:
            del self._unsaid[: self.control.send(self._unsaid)]
        except BlockingIOError:
            pass
        except OSError:  # it is dead, which SIGCHLD says, too
            self._unsaid.clear()

    @property
    def has_more_to_hear(self) -> bool:
        """Whether `speak` is to be called when the shard can take more."""
        return bool(self._unsaid)

    def messages(self) -> tuple[list[dict[str, Any]], bool]:
        """What the shard has said since the last call, and whether it can say more."""
        try:
            while chunk := self.control.recv(_CHUNK):
                self._unread += chunk
            open_still = False
        except BlockingIOError:
            open_still = True
        except OSError:
            open_still = False
        *lines, self._unread = self._unread.split(b"\n")
        if len(self._unread) > _LONGEST_LINE:
            begin = self._unread[:100]
            log.warning("shard %d says a line of more than %d bytes, dropped: %r", self.slot, _LONGEST_LINE, begin)
            self._unread = b""
        return [message for line in lines if (message := _parsed(line)) is not None], open_still


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if isinstance(message, dict):
        return message
    log.warning("a shard said something that is no message: %.200r", line)
    return None


def fork_shard(orders: Orders, listener: socket.socket, inherited: Iterable[Closable]) -> ShardProcess:
    """Fork the shard of one slot.

    Args:
        listener: the slot's listening socket.
        inherited: everything else that the parent has open and the child must not keep.

    Raises OSError when the system cannot fork.
    """
    ours, theirs = socket.socketpair()
    # What is still buffered would come out of both processes.
    _flush()
    # A signal between fork and `_shed_parent` would land in the inbox, which the child shares with us.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        pid = os.fork()
        if pid == 0:
            _become_shard(orders, listener, theirs, [*inherited, ours])
    except OSError:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    ours.setblocking(False)
    return ShardProcess(orders.slot, pid, ours)


def _become_shard(
    orders: Orders,
    listener: socket.socket,
    control: socket.socket,
    inherited: Iterable[Closable],
) -> NoReturn:
    code: int = Exit.FAILED
    try:
        _shed_parent(inherited)
        settings = orders.settings
        logs.configure(settings.log_level, settings.log_format, orders.slot)
        from bullmq_proxy.gateway import shard  # noqa: PLC0415 - only a shard carries asyncio, redis and websockets

        code = shard.run(
            settings,
            slot=orders.slot,
            incarnation=orders.incarnation,
            listener=listener,
            control=control,
            first=orders.incarnation == 0,
            gateway_id=orders.gateway_id,
            orphaned=orders.orphaned,
            keys=orders.keys,
            row=orders.board.row(orders.slot),
        )
    except BaseException:  # this is the end of the process: nobody above could tell the story
        log.exception("the shard crashed")
    finally:
        # Not sys.exit: the parent's frames, with their `finally` and `with`, lie below on this stack.
        logging.shutdown()
        _flush()
        os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a service may be started with its standard streams closed
            with contextlib.suppress(OSError):
                stream.flush()


def _shed_parent(inherited: Iterable[Closable]) -> None:
    """Give back what fork copied: signal handlers, their wakeup descriptor, other slots' sockets."""
    signal.set_wakeup_fd(-1)
    faulthandler.unregister(signal.SIGUSR1)
    for signum in WATCHED:
        signal.signal(signum, signal.SIG_DFL)
    show_stacks_of_a_child()
    # Ctrl-C and a closed terminal reach the whole process group; the parent turns them into SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for thing in inherited:
        thing.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
