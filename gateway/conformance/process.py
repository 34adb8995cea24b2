"""The client under test: a process with what it is told by its environment, and what it prints."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

URL, KEY, KEY_FILE = "BULLMQ_URL", "BULLMQ_KEY", "BULLMQ_KEY_FILE"
QUEUE, ROLE = "BULLMQ_QUEUE", "BULLMQ_ROLE"
VARIABLES: Final = (URL, KEY, KEY_FILE, QUEUE, ROLE)
"""Variables by which a client learns of the gateway, its key and queue, and whether to be a worker or a producer."""

MOST_OUTPUT: Final = 4 * 1024 * 1024
"""Bytes of a client's output that are looked at; of what it prints beyond them nothing is known."""
END_TIMEOUT: Final = 2.0
"""Seconds for a process to end that was killed."""
_PIECE: Final = 65536

_groups: set[int] = set()


def kill_all() -> None:
    """Kill what is left of all clients, where nobody has waited for their ends: after a second Ctrl-C."""
    for group in _groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


class Client:
    """A process of the client under test, with whatever it starts.

    Attributes:
        lines: what it has printed to its standard output.
        ended: set when it has ended, and everything that it has printed is here.
    """

    def __init__(self, command: Sequence[str], told: Mapping[str, str], calls: str, changed: asyncio.Event) -> None:
        """Prepare a process.

        Args:
            command: the program and its arguments.
            told: the values of the variables.
            calls: what its standard input has.
            changed: set by whatever it prints, and by its end.
        """
        self.ended = asyncio.Event()
        self._command = command
        self._environment = {**os.environ, **told}
        self._calls = calls.encode()
        self._output = {"out": bytearray(), "err": bytearray()}
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = changed

    async def start(self) -> None:
        """Start the process.

        Raises:
            OSError: there is no such program.
        """
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        _groups.add(self._process.pid)
        self._task = asyncio.create_task(self._follow(self._process))

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs, negative for a signal."""
        return self._process.returncode if self._process else None

    @property
    def lines(self) -> list[str]:
        """The whole lines of its standard output."""
        return self._output["out"].decode(errors="replace").split("\n")[:-1]

    @property
    def output(self) -> str:
        """All that it has printed."""
        return "\n".join(part.decode(errors="replace") for part in self._output.values())

    def terminate(self) -> None:
        """Send SIGTERM to all of its processes, as a service manager does."""
        self._signal(signal.SIGTERM)

    async def close(self) -> None:
        """Kill what is left of it."""
        if self._process is None or self._task is None:
            return
        self._signal(signal.SIGKILL)
        done, _ = await asyncio.wait([self._task], timeout=END_TIMEOUT)
        if not done:  # something of its own session has the pipes
            self._task.cancel()
            await asyncio.wait([self._task])
        _groups.discard(self._process.pid)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin and process.stdout and process.stderr
        try:
            with suppress(ConnectionError):
                process.stdin.write(self._calls)
                process.stdin.close()
            await asyncio.gather(self._read(process.stdout, "out"), self._read(process.stderr, "err"), process.wait())
        finally:
            self.ended.set()
            self._changed.set()

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        while piece := await stream.read(_PIECE):
            if len(self._output[name]) < MOST_OUTPUT:
                self._output[name] += piece
            self._changed.set()
