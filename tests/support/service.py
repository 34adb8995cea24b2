"""`bullmq-proxy` as its users run it: in a process of its own, with an environment that the test chooses."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from bullmq_proxy.gateway.settings import options
from bullmq_proxy.supervisor.activation import LISTEN_VARIABLES
from bullmq_proxy.supervisor.cli import main
from bullmq_proxy.supervisor.notify import NOTIFY_VARIABLES
from bullmq_proxy.supervisor.sources import CONFIG_VARIABLE, REDIS_PARTS
from tests.support.processes import ending_with_us
from tests.support.waiting import TIMEOUT, wait_for

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "bullmq_proxy.supervisor")


def clean_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without anything that the service would read, and with a home of its own."""
    ours = {name for option in options() for name in option.environment}
    ours |= {CONFIG_VARIABLE, "STATE_DIRECTORY", "XDG_DATA_HOME", *REDIS_PARTS, *LISTEN_VARIABLES, *NOTIFY_VARIABLES}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return inherited | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | dict(extra or {})


def run_cli(home: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=clean_environment(home, env),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def run_here(home: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end in this process, which is faster; for commands that start nothing."""
    output, errors = io.StringIO(), io.StringIO()
    inherited = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(clean_environment(home, env))
        with chdir(home), redirect_stdout(output), redirect_stderr(errors):
            code = main(arguments)
    finally:
        os.environ.clear()
        os.environ.update(inherited)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


class Service:
    """`bullmq-proxy serve` with the given flags on a free port; `start` waits until it serves.

    Args:
        home: HOME and working directory; output is kept there.
        arguments: flags; `--port 0` comes first, so that a later one wins.
        env: variables beside the inherited ones.
        launcher: a command that ends by becoming the service, whose command follows it.
        pass_fds: descriptors that the launcher inherits.
        port: flags that choose the port.
    """

    def __init__(
        self,
        home: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        port: Sequence[str] = ("--port", "0"),
    ) -> None:
        self.home = home
        """HOME and working directory."""
        self._command = [*launcher, *COMMAND, "serve", *port, *arguments]
        self._pass_fds = pass_fds
        self._env = clean_environment(home, env)
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> Service:
        """Start the process without waiting for anything."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=ending_with_us(signal.SIGTERM),  # noqa: PLW1509 - only the main thread starts services
                pass_fds=self._pass_fds,
            )
        return self

    def start(self) -> Service:
        """Start and wait for the printed URL, or fail with what the process said when it died."""
        self.launch()
        wait_for(self._serves, "the service prints its URL", timeout=30)
        return self

    def _serves(self) -> bool:
        assert self._process is not None, "launched"
        if self._process.poll() is not None:
            raise AssertionError(f"the service ended with {self._process.returncode}:\n{self.errors}")
        return "/queue/welcome" in self.output and self.output.endswith("\n")

    @property
    def _stdout(self) -> Path:
        return self.home / "stdout.txt"

    @property
    def _stderr(self) -> Path:
        return self.home / "stderr.txt"

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._stdout.read_text()

    @property
    def errors(self) -> str:
        """What it logged so far."""
        return self._stderr.read_text()

    @property
    def url(self) -> str:
        """The printed URL."""
        return self.output.split("\n", 1)[0]

    @property
    def token(self) -> str:
        """The key in the printed URL; empty if there is none."""
        return parse_qs(urlsplit(self.url).query).get("token", [""])[0]

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None, self.url
        return port

    def address(self, path: str, **query: str) -> str:
        """A WebSocket URL on this service, with the key made for the run."""
        pairs = ({"token": self.token} if self.token else {}) | query
        tail = "&".join(f"{name}={value}" for name, value in pairs.items())
        return f"ws://127.0.0.1:{self.port}{path}" + (f"?{tail}" if tail else "")

    @property
    def pid(self) -> int:
        assert self._process is not None, "launched"
        return self._process.pid

    def shards(self) -> list[int]:
        """The pids of the shards that live now."""
        return [pid for pid in children(self.pid) if "shard_process" in command_of(pid)]

    def servers(self) -> list[int]:
        """The pids of the embedded Valkey servers that live now."""
        return [pid for pid in children(self.pid) if "valkey-server" in command_of(pid)]

    def signal(self, signum: signal.Signals) -> None:
        os.kill(self.pid, signum)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None, "launched"
        return self._process.wait(timeout)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """End it if it still runs, with whatever it has started."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in [*children(self.pid), self.pid]:
                os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def children(pid: int) -> list[int]:
    """The pids whose parent is `pid` (Linux), without the dead that nobody has waited for."""
    found: set[int] = set()
    for _ in range(2):  # a child that ends meanwhile may hide its neighbours in the list (proc(5))
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                found.update(map(int, listed.read_text().split()))
    return sorted(filter(lives, found))


def command_of(pid: int) -> str:
    """The command line of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def lives(pid: int) -> bool:
    """Is there such a process, and not only its entry in the table?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
