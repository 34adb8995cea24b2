"""A real Valkey server for tests, which can be stopped, killed and frozen."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bullmq_proxy.supervisor.embedded import find_server
from tests.support.ports import free_port
from tests.support.processes import ending_with_us
from tests.support.relay import RelayThread
from tests.support.waiting import TIMEOUT, wait_for

# A replica gets a copy of the data at once; by default its master waits 5 seconds for others that want one, too.
_SERVER: Final = ["--appendonly", "yes", "--save", "", "--repl-diskless-sync-delay", "0"]


class ValkeyProcess:
    """One server, not started yet.

    Args:
        tmp_path: for its data and log; a server that is started again finds its data there.
        tcp: listen on a free port of 127.0.0.1 instead of a unix socket.
        password: of the default user.
        extra_args: further arguments for valkey-server.
        conf: its configuration file, into which it writes: that of a sentinel or of a node of a cluster.
        users: the lines of its ACL file, in which it keeps later changes, too.
        relays: put a relay before it, whose port it names to others as its own.
    """

    def __init__(
        self,
        tmp_path: Path,
        *,
        tcp: bool = False,
        password: str | None = None,
        extra_args: Sequence[str] = (),
        conf: Path | None = None,
        users: str | None = None,
        relays: RelayThread | None = None,
    ) -> None:
        self._data = tmp_path
        self._tcp = tcp
        self._password = password
        self._extra = list(extra_args)
        self._conf = conf
        self._users = users
        # pytest's directories are too deep for a socket's path.
        self._short = Path(tempfile.mkdtemp(prefix="redis-"))
        self._socket = self._short / "s"
        self.port = free_port() if tcp else 0
        self.relay = None if relays is None else relays.before(self)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For redis-py and for --redis-url."""
        credentials = "" if self._password is None else f":{quote(self._password, safe='')}@"
        return f"redis://{credentials}127.0.0.1:{self.port}" if self._tcp else f"unix://{credentials}{self._socket}"

    @property
    def shown_port(self) -> int:
        """The port that others are to use: that of its relay, where there is one."""
        return self.port if self.relay is None else self.relay.port

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> ValkeyProcess:
        """Start the server and wait until it answers."""
        assert self._process is None, "the server is running"
        self._data.mkdir(parents=True, exist_ok=True)
        arguments = [] if self._conf is None else [str(self._conf)]
        arguments += ["--port", str(self.port), "--dir", str(self._data)]
        arguments += [] if "--sentinel" in self._extra else _SERVER
        arguments += ["--bind", "127.0.0.1"] if self._tcp else ["--unixsocket", str(self._socket)]
        arguments += [] if self._password is None else ["--requirepass", self._password]
        if self._users is not None:
            arguments += ["--aclfile", str(self._acl_file())]
        if self.relay is not None:
            port = str(self.relay.port)
            arguments += ["--replica-announce-port", port, "--cluster-announce-port", port]
        log = self._data / "valkey.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [find_server(), *arguments, *self._extra],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=ending_with_us(signal.SIGKILL),  # noqa: PLW1509 - only the main thread starts servers
            )
        wait_for(self._answers, "Valkey answers")
        return self

    def _acl_file(self) -> Path:
        path = self._data / "users.acl"
        if not path.exists():
            path.write_text(self._users or "")
        return path

    def empty(self) -> None:
        """Remove all keys."""
        with self._connect() as sock:
            sock.sendall(b"FLUSHALL\r\n")
            reply = sock.recv(64)
        assert reply.startswith(b"+OK"), reply

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to it."""
        if self._tcp:
            return await asyncio.open_connection("127.0.0.1", self.port)
        return await asyncio.open_unix_connection(self._socket)

    def stop(self) -> None:
        """Stop it in good order; it keeps its data."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop it as a crash does."""
        self._end(signal.SIGKILL)

    def lose_file(self) -> None:
        """Remove its append-only file, while it does not run."""
        assert self._process is None, "the server is running"
        shutil.rmtree(self._data / "appendonlydir")

    def freeze(self) -> None:
        """Let it answer nothing while its connections stay open."""
        assert self._process is not None, "the server is not running"
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None, "the server is not running"
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it if it runs, and remove its socket's directory."""
        if self._process is not None:
            self.thaw()
            self.kill()
        shutil.rmtree(self._short, ignore_errors=True)

    def __enter__(self) -> ValkeyProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signum)
            self._process.wait(timeout=30)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None, "the server is not running"
        if self._process.poll() is not None:
            raise AssertionError(f"Valkey died: {(self._data / 'valkey.log').read_text()}")
        try:
            with self._connect() as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET if self._tcp else socket.AF_UNIX)
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(("127.0.0.1", self.port) if self._tcp else str(self._socket))
        except OSError:
            sock.close()
            raise
        return sock
