"""The process of a shard: `python -m bullmq_proxy.gateway.shard_process FD …`, with its end of a control socket.

The supervisor starts it. Here are its signals, its start message and its exit code; `shard` is what runs in it. With
several descriptors it first imports everything and then forks a shard for each further one: they share that memory.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from bullmq_proxy.gateway import logs
from bullmq_proxy.gateway.exits import Exit

log = logging.getLogger(__name__)

_STDERR: Final = 2
_PR_SET_PDEATHSIG: Final = 1  # prctl(2); a fork does not inherit what it sets
_LEEWAY: Final = 2.0  # s for the end of a drain
_DUMP: Final = 1.0  # s in which the stacks are written
_CHUNK: Final = 64 * 1024


def main(controls: Sequence[socket.socket]) -> NoReturn:
    """Run a shard for each control socket, one of them here, and end the process with its exit code.

    Args:
        controls: the first line on each is a `StartMessage`; its end means that the supervisor has ended.
    """
    code: int = Exit.FAILED
    try:
        _set_signals()
        code = _serve(controls)
    except BaseException:  # the process ends here: nobody else could log it
        log.exception("the shard crashed")
    finally:
        # Not sys.exit: threads of libraries, and taking the heap apart, would only hold up the slot's next shard.
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, AttributeError):  # None where a standard stream was closed
                stream.flush()
        os._exit(code)


def _serve(controls: Sequence[socket.socket]) -> int:
    received = [_first_line(control) for control in controls]
    if not all(line for line, _ in received):
        return Exit.DONE
    messages = [json.loads(line) for line, _ in received]
    _configure_logs(messages[0])
    gc.disable()  # until `tune`: imports leave next to nothing that it could free, and it took a tenth of their time
    from bullmq_proxy.gateway import shard  # noqa: PLC0415 - an error of a library's import is logged as a shard's
    from bullmq_proxy.gateway.memory import die_first, tune  # noqa: PLC0415
    from bullmq_proxy.gateway.shared_memory import LayoutError, SharedMemory  # noqa: PLC0415
    from bullmq_proxy.gateway.start_message import IncompatibleError, StartMessage  # noqa: PLC0415

    die_first()
    shard.load(messages[0]["settings"])
    tune()
    own = _fork_siblings(controls)
    for other in range(len(messages)):
        if other != own:
            controls[other].close()
    _go_on_without_supervisor()
    control, message = controls[own], messages[own]
    _configure_logs(message)
    try:
        start = StartMessage.from_json(message)
        memory = SharedMemory.attach(start.memory)
    except (IncompatibleError, LayoutError) as error:
        reason = error if isinstance(error, IncompatibleError) else IncompatibleError(message.get("version"), error)
        _send(control, event="failed", message=str(reason))
        return Exit.INCOMPATIBLE
    os.close(start.memory)  # it stays mapped
    settings = start.settings
    end_with_supervisor(control, settings.drain_timeout + settings.redis_timeout + _LEEWAY)
    unread = received[own][1]
    listeners = [socket.socket(fileno=fd) for fd in start.listeners]
    return shard.run(start, listeners, control, unread, memory.row(start.slot))


def _fork_siblings(controls: Sequence[socket.socket]) -> int:
    """Fork a shard for each control socket except the first, and return the index of the one that is this process's.

    It forks twice: when the process between has ended, the supervisor is the parent (`PR_SET_CHILD_SUBREAPER`).
    """
    for index, control in enumerate(controls[1:], 1):
        if between := os.fork():
            os.waitpid(between, 0)
            continue
        told, tell = os.pipe()
        if pid := os.fork():
            _send(control, event="process", pid=pid)
            os._exit(Exit.DONE)
        os.close(tell)
        os.read(told, 1)  # ends when the process between has told the supervisor who this is
        os.close(told)
        return index
    return 0


def _configure_logs(message: Mapping[str, Any]) -> None:
    settings = message["settings"]
    logs.configure(settings["log_level"], settings["log_format"], message["slot"])


def _send(control: socket.socket, **message: Any) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


def _set_signals() -> None:
    """Show stacks on SIGUSR1, and before a death by SIGABRT or a crash in C. The supervisor has blocked the signals."""
    if sys.stderr is not None:
        faulthandler.register(signal.SIGUSR1, _STDERR)
        faulthandler.enable(_STDERR)
    else:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _go_on_without_supervisor() -> None:
    """Let the supervisor's death wake this shard, should it be stopped, so that it drains and frees the port."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def end_with_supervisor(control: socket.socket, seconds: float) -> None:
    """Let this process end, with its stacks on stderr, so long after the supervisor's death, whatever it does then.

    It drains by itself. But one whose event loop spins, or that is stopped, would hold the port for ever, since nobody
    looks after it any more. A thread waits for the death, the interpreter's watchdog, which needs no turn of Python,
    for the rest, and the system's timer ends one that is stopped then.

    Args:
        control: to the supervisor.
        seconds: that a drain takes at most, and some more.
    """
    output = _STDERR if sys.stderr is not None else os.open(os.devnull, os.O_WRONLY)

    def wait() -> None:
        death = select.poll()
        death.register(control, 0)  # no event but the end, of which it always tells
        death.poll()
        _kill_later(seconds + _DUMP)
        faulthandler.dump_traceback_later(seconds, exit=True, file=output)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()


def _kill_later(seconds: float) -> None:
    """Let the system send this process SIGKILL, which ends one that is stopped, too (`timer_create(2)`, Linux)."""
    library, timer = ctypes.CDLL(None), ctypes.c_void_p()
    if sys.platform == "linux" and hasattr(library, "timer_create"):  # glibc before 2.34 has it elsewhere
        event = (ctypes.c_int * 16)(0, 0, signal.SIGKILL)  # struct sigevent: a value of 8 bytes, the signal, how (0)
        after = (ctypes.c_long * 4)(0, 0, int(seconds), int(seconds % 1 * 1e9))  # struct itimerspec: period, first time
        if not library.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
            library.timer_settime(timer, 0, ctypes.byref(after), None)


def _first_line(control: socket.socket) -> tuple[bytes, bytes]:
    """Return the first line of a socket and what was read after it; nothing where the socket ends before."""
    heard = b""
    while chunk := control.recv(_CHUNK):
        heard += chunk
        line, end, unread = heard.partition(b"\n")
        if end:
            return line, unread
    return b"", b""


if __name__ == "__main__":
    main([socket.socket(fileno=int(fd)) for fd in sys.argv[1:]])
