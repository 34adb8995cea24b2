"""The benchmark's own Valkey, and what it says about its work. TCP on the loopback address: every peer speaks that."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import hiredis

from benchmarks.lab.processes import LabError, Process
from bullmq_proxy.supervisor.embedded import find_server
from tests.support.ports import free_port

_START: Final = 10.0  # s
_ANSWER: Final = 30.0  # s
_CLIENTS: Final = 15_000  # more than the largest scenario opens


@dataclass(frozen=True, slots=True)
class Work:
    """Counters of the server. Commands count those inside scripts, too; `scripts` are EVALSHA, EVAL and EXEC.

    `added` and `completed` are jobs, by the queue itself: the client counts at another moment.
    """

    commands: int = 0
    scripts: int = 0
    reads: int = 0
    writes: int = 0
    added: int = 0
    completed: int = 0

    def __sub__(self, other: Work) -> Work:
        return Work(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(self)))


class Valkey:
    """A running server without persistence."""

    def __init__(self, directory: Path) -> None:
        """Start it; its socket and log go into `directory`."""
        self.port = free_port()
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(directory / "valkey.sock"),
            "dir": str(directory),
            "save": "",
            "appendonly": "no",
            "maxclients": str(_CLIENTS),
            "tcp-backlog": "4096",
            "logfile": str(directory / "valkey.log"),
        }
        words: list[str | Path] = [
            find_server(),
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ]
        self._process = Process("valkey", words, directory / "valkey.log", os.environ)
        try:
            self._control = Control(self.port, _START)
        except BaseException:
            self._process.close()
            raise

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    @property
    def version(self) -> str:
        """Of the server."""
        info = self.info("server")
        return info.get("valkey_version") or info["redis_version"]

    def forget(self) -> None:
        """Remove all keys, and wait until their memory is free."""
        self._control.ask("FLUSHALL", "SYNC")

    def has(self, key: str) -> bool:
        """Whether there is such a key: a list that has run empty is none."""
        return bool(self._control.ask("EXISTS", key))

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO."""
        return _members(self._control.ask("INFO", section))

    def work(self, queue: str) -> Work:
        """Read its counters, and those of the queue whose keys begin with `queue`, all at one moment."""
        asked: tuple[tuple[Any, ...], ...] = (
            ("INFO", "stats", "commandstats"),
            ("GET", f"{queue}:id"),
            ("ZCARD", f"{queue}:completed"),
        )
        self._control.tell(b"".join(hiredis.pack_command(words) for words in asked))
        info, added, completed = (self._control.reply() for _ in asked)
        stats = _members(info)
        return Work(
            commands=int(stats["total_commands_processed"]),
            scripts=sum(_calls(stats, name) for name in ("evalsha", "eval", "exec")),
            reads=int(stats.get("total_reads_processed", 0)),
            writes=int(stats.get("total_writes_processed", 0)),
            added=int(added or 0),
            completed=completed,
        )

    def clients(self) -> int:
        """Connections of others."""
        return int(self._control.ask("CLIENT", "LIST").count(b"\n")) - 1

    def ask(self, *words: Any) -> Any:
        """Send one command."""
        return self._control.ask(*words)

    def close(self) -> None:
        """Stop it."""
        self._control.close()
        self._process.close()

    def __enter__(self) -> Valkey:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Control:
    """A blocking connection for a few commands."""

    def __init__(self, port: int, timeout: float) -> None:
        """Connect; `timeout` in seconds for the server to come up."""
        self._reader = hiredis.Reader()
        until = time.monotonic() + timeout
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port), _ANSWER)
                return
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise LabError(f"Valkey did not start within {timeout:g} s") from None
                time.sleep(0.02)

    def ask(self, *words: Any) -> Any:
        """Send one command and return its reply; an error reply raises LabError."""
        self.tell(hiredis.pack_command(words))
        reply = self.reply()
        if isinstance(reply, hiredis.ReplyError):
            raise LabError(str(reply))
        return reply

    def tell(self, packed: bytes) -> None:
        """Send commands without waiting."""
        self._socket.sendall(packed)

    def reply(self) -> Any:
        """The next reply."""
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(1 << 20)
            if not data:
                raise LabError("Valkey closed the connection")
            self._reader.feed(data)
        return reply

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()


def _members(info: bytes) -> dict[str, str]:
    """Return the members of an INFO, by name."""
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


def _calls(commands: dict[str, str], name: str) -> int:
    """`calls=12,usec=…` of one command."""
    return int(commands.get(f"cmdstat_{name}", "calls=0,").removeprefix("calls=").partition(",")[0])
