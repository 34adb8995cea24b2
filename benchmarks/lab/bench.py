"""The peers as processes: how each one is started, and which of its processes are the proxy."""

from __future__ import annotations

import os
import re
import secrets
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.lab import npm
from benchmarks.lab.cores import Cores, on
from benchmarks.lab.processes import LabError, Process, children
from benchmarks.load.task import Task
from benchmarks.scenarios import Scenario
from bullmq_proxy.gateway.settings import options
from bullmq_proxy.supervisor.sources import CONFIG_VARIABLE, REDIS_PARTS

ROOT: Final = Path(__file__).parents[2]
PREFIX: Final = "bench"
# glibc gives the memory of each large message back to the system and asks for it again, page by page: 1.3 ms of our own
# processor time for 1 MB. What only measures does not.
_CHEAP: Final = {"MALLOC_TRIM_THRESHOLD_": "268435456", "MALLOC_MMAP_THRESHOLD_": "33554432"}
_START: Final = 20.0  # s until a proxy listens


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy, or several with one key: where each listens, their shards, and the parents apart."""

    ports: tuple[int, ...] = (0,)
    key: str = ""
    shards: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()


class Bench:
    """Starts peers against one Valkey; what was started in a `with` block's stack ends with it."""

    def __init__(self, redis_port: int, directory: Path, procs: int, cores: Cores) -> None:
        """Make a bench.

        Args:
            redis_port: of the Valkey on the loopback address.
            directory: for logs.
            procs: shards of the gateway.
            cores: for what is measured, and for the rest.
        """
        self._redis_port = redis_port
        self._directory = directory
        self._procs = procs
        self._cores = cores
        self.environment = _environment()

    def proxy(self, peer: str, scenario: Scenario, stack: ExitStack) -> Proxy:
        """Start the proxy of a peer; an empty one for the peers that have none.

        Raises:
            Missing: its runtime is not here.
            LabError: it does not start.
        """
        with on(self._cores.subject):
            match peer:
                case "gateway":
                    return self._gateway(scenario, self._procs, stack)
                case "one-shard":
                    return self._gateway(scenario, 1, stack)
                case "bun-proxy":
                    return self._of_npm(peer, [npm.bun(), "run", _beside(npm.modules())], stack)
                case "fastify":
                    return self._of_npm(peer, [npm.node(), npm.PEERS / "fastify.cjs"], stack)
        return Proxy()

    def clients(self, peer: str, task: Task, stack: ExitStack) -> list[Process]:
        """Start the client of a peer, which for some is all there is of it; `raw-procs` has one for each shard."""
        if task.load.kind == "sleep":  # twice as many connections as one process may have descriptors
            return [self._client(peer, replace(task, load=load).to_json(), stack) for load in task.load.split(2)]
        if peer == "raw-procs":
            tasks = [replace(task, load=load) for load in task.load.split(self._procs)]
            return [self._client("raw", each.to_json(), stack) for each in tasks]
        return [self._client(peer, task.to_json(), stack)]

    def _client(self, peer: str, task: str, stack: ExitStack) -> Process:
        environment = self.environment
        match peer:
            case "node":
                program, modules = npm.node(), npm.modules()
                words: list[str | Path] = [program, npm.PEERS / "node.cjs", task]
                environment = {**environment, "NODE_PATH": str(modules)}
            case "raw":
                words, environment = [sys.executable, "-m", "benchmarks.peers.raw", task], environment | _CHEAP
            case "python":
                words = [sys.executable, "-m", "benchmarks.peers.package", task]
            case _:
                words, environment = [sys.executable, "-m", "benchmarks.load", task], environment | _CHEAP
        with on(self._cores.subject if peer in ("node", "raw", "python") else self._cores.rest):
            return stack.enter_context(self._process(f"client of {peer}", words, environment))

    def _gateway(self, scenario: Scenario, procs: int, stack: ExitStack) -> Proxy:
        key = secrets.token_hex(8)
        url = f"redis://127.0.0.1:{self._redis_port}"
        flags = ["--port", "0", "--procs", str(procs), "--redis-url", url, "--prefix", PREFIX]
        flags += ["--log-level", "error", *scenario.flags]
        words: list[str | Path] = [sys.executable, "-m", "bullmq_proxy.supervisor", "serve", *flags]
        # Nobody reads its stdout after the first line; it prints a few.
        environment = {**self.environment, "AUTH_KEYS": key}
        names = [f"gateway{number or ''}" for number in range(scenario.gateways)]
        gateways = [stack.enter_context(self._process(name, words, environment)) for name in names]
        ports = tuple(_port(gateway.line(_START), r"^ws://[^/]*:(\d+)") for gateway in gateways)
        parents = tuple(gateway.pid for gateway in gateways)
        return Proxy(ports, key, tuple(pid for parent in parents for pid in children(parent)), parents)

    def _of_npm(self, peer: str, words: list[str | Path], stack: ExitStack) -> Proxy:
        key = secrets.token_hex(8)
        environment = {"REDIS_PORT": str(self._redis_port), "KEY": key, "PREFIX": PREFIX, "NODE_ENV": "production"}
        environment = {**self.environment, **environment, "NODE_PATH": str(npm.modules())}
        process = stack.enter_context(self._process(peer, words, environment))
        return Proxy((_port(process.line(_START), r"listening (\d+)$"),), key, (process.pid,))

    def _process(self, name: str, words: list[str | Path], environment: dict[str, str]) -> Process:
        return Process(name, words, self._directory / f"{name.replace(' ', '-')}.log", environment)


def missing(peer: str) -> str | None:
    """Why a peer cannot take part here; None when it can."""
    try:
        if peer in ("node", "bun-proxy", "fastify"):
            npm.modules()
        if peer in ("node", "fastify"):
            npm.node()
        elif peer == "bun-proxy":
            npm.bun()
    except npm.Missing as reason:
        return str(reason)
    return None


def _beside(modules: Path) -> Path:
    """The Bun proxy beside its packages: ES modules are looked for from the importing file on, not by a variable."""
    source, there = npm.PEERS / "bun-proxy" / "proxy.mjs", modules.parent / "proxy.mjs"
    if not there.exists() or there.read_bytes() != source.read_bytes():
        there.write_bytes(source.read_bytes())
    return there


def _port(line: str, pattern: str) -> int:
    match = re.search(pattern, line)
    if match is None:
        raise LabError(f"expected the proxy's address, got {line!r}")
    return int(match[1])


def _environment() -> dict[str, str]:
    """Ours, without anything that would set the gateway up in another way."""
    settings = {name for option in options() for name in option.environment} | {CONFIG_VARIABLE, *REDIS_PARTS}
    return {name: value for name, value in os.environ.items() if name not in settings} | {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
