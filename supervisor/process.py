"""The process of a shard as its parent sees it: how it is started, and the messages to and from it."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.start_message import StartMessage
from bullmq_proxy.supervisor.signals import WATCHED

log = logging.getLogger(__name__)

# A shard's message is one line, the longest the reason of a failed start; more without a line end is none of ours.
_LONGEST_LINE = 4 << 20
_CHUNK = 64 * 1024
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@dataclass(slots=True)
class ShardProcess:
    """The parent's view of one shard process."""

    slot: int
    pid: int
    control: socket.socket
    settings: Settings = field(repr=False)
    """Those that it was started with."""
    shares: tuple[int, ...] = ()
    """Slots whose sockets it was told to serve, too."""
    _unread: bytes = field(default=b"", repr=False)
    _unsent: bytearray = field(default_factory=bytearray, repr=False)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message to the shard; what its socket does not take at once is left for `flush`."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what its socket takes now."""
        try:
            del self._unsent[: self.control.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is dead, as SIGCHLD will say, too
            self._unsent.clear()

    @property
    def has_unsent(self) -> bool:
        """Whether `flush` has to be called when the socket can take more."""
        return bool(self._unsent)

    def messages(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the shard's messages since the last call, and whether it can send more."""
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
            log.warning("shard %d sends a line of more than %d bytes, dropped: %r", self.slot, _LONGEST_LINE, begin)
            self._unread = b""
        return [message for line in lines if (message := _parsed(line)) is not None], open_still


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if isinstance(message, dict):
        return message
    log.warning("a shard has sent a line that is no message: %.200r", line)
    return None


def start_shards(messages: Sequence[StartMessage], held: Sequence[int] = ()) -> list[ShardProcess]:
    """Start a shard for each message.

    They run the code that is installed now: a forked child becomes a new interpreter, which inherits the listeners and
    the shared memory and nothing else. It imports the gateway once, and forks the other shards, whose parent we become;
    until such a shard reports a process of its own, `pid` is that of the interpreter. Settings and keys go over the
    control sockets: everybody can read a process' arguments.

    Args:
        messages: one for each shard.
        held: further descriptors that they inherit and do not know of.

    Raises:
        OSError: the system cannot fork.
    """
    if len(messages) > 1 and not _adopts_orphans():
        return [shard for message in messages for shard in start_shards([message], held)]
    with ExitStack() as undo:
        pairs = [socket.socketpair() for _ in messages]
        for ours, theirs in pairs:
            undo.enter_context(ours)
            undo.enter_context(theirs)
        # A shard gets no signal before it can answer: the mask outlives the change of program.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        try:
            pid = os.fork()
            if pid == 0:
                inherited = [*messages[0].listeners, messages[0].memory, *messages[0].lines, *held]  # the same for all
                _become_shards([theirs for _, theirs in pairs], inherited)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        undo.pop_all()
    shards = []
    for message, (ours, theirs) in zip(messages, pairs, strict=True):
        theirs.close()
        ours.setblocking(False)
        shards.append(ShardProcess(message.slot, pid, ours, message.settings))
        shards[-1].send(message.to_json())
    return shards


def _become_shards(controls: Sequence[socket.socket], inherited: Sequence[int]) -> NoReturn:
    try:
        # Ctrl-C and a closed terminal reach the whole process group; the parent turns them into SIGTERM.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # of a whole process group, too
        descriptors = [control.fileno() for control in controls]
        for fd in (*descriptors, *inherited):
            os.set_inheritable(fd, True)
        # -P: neither the working directory nor that of a script is a place to import from.
        arguments = ["-P", "-m", "bullmq_proxy.gateway.shard_process", *map(str, descriptors)]
        os.execv(sys.executable, [sys.executable, *arguments])
    except OSError as error:
        reason = f"cannot run {sys.executable}: {error.strerror}"
        controls[0].sendall(json.dumps({"event": "failed", "message": reason}).encode() + b"\n")
    finally:
        os._exit(Exit.FAILED)


def occupy_standard_streams() -> None:
    """Open what was closed of stdin, stdout and stderr: a shard would take a socket of that number for its stderr."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _adopts_orphans(*, wanted: bool = True) -> bool:
    """Become the parent of processes below this one whose parent ends, or do not; returns whether the system can."""
    if sys.platform != "linux":
        return False
    failed: int = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)
    return not failed


@contextmanager
def leaving_orphans() -> Iterator[None]:
    """Leave processes below this one whose parent ends meanwhile to init; no shard may be one: see `are_own`."""
    _adopts_orphans(wanted=False)
    try:
        yield
    finally:
        _adopts_orphans()


def are_own(shards: Iterable[ShardProcess]) -> bool:
    """Return whether each shard is a child of this process by now, and will not become one when its parent ends."""
    pids = [shard.pid for shard in shards]
    if sys.platform == "linux":
        try:
            for pid in pids:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
    return len({*pids}) == len(pids)
