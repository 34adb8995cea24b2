"""`python -m benchmarks.cluster [SECONDS] [SHARDS] [REPEATS]`: adds per second on a single server and on clusters.

Six clients add to a queue each; the queues are spread evenly over the masters. With fewer cores than processes this
shows what masters cost, and not what they are good for: so the processor time of each side stands beside it. In each
repeat everything runs once, one after the other; ratios are made inside of a repeat.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Final

from benchmarks.lab.accounting import cpu_seconds
from benchmarks.lab.processes import Process
from benchmarks.load.task import Load, Outcome, Task
from bullmq_proxy.gateway.values.slots import SLOTS, slot_of
from tests.support.cluster import Cluster
from tests.support.service import Service, clean_environment
from tests.support.valkey import ValkeyProcess

_CLIENTS: Final = 6
_LOAD: Final = Load(kind="add", connections=2, window=32)  # of each client
_WARM: Final = 1.0  # s
_LONGEST: Final = 60.0  # s
_SERVERS: Final = ("single", 1, 2, 3)
"""A single server, and clusters of so many masters."""


@dataclass(frozen=True)
class Figures:
    """Figures of one run: adds per second, and microseconds of processor time for each add."""

    per_second: float
    shards: float
    redis: float
    clients: float


def _queues(masters: int) -> list[str]:
    """Return names that are spread evenly over the masters."""
    found: list[str] = []
    number = 0
    while len(found) < _CLIENTS:
        name = f"{{q{number}}}"
        if slot_of(f"bull:{name}:") * masters // SLOTS == len(found) % masters:
            found.append(name)
        number += 1
    return found


@contextmanager
def _servers(path: Path, kind: str | int) -> Iterator[tuple[str, list[int]]]:
    """Start Redis, without a file; gives its URL and its processes."""
    if isinstance(kind, int):
        with Cluster(path, masters=kind) as cluster:
            yield cluster.url, [node.process.pid for node in cluster.nodes]
    else:
        with ValkeyProcess(path, tcp=True, extra_args=("--appendonly", "no")) as server:
            yield server.url, [server.pid]


def measure(kind: str | int, seconds: float, shards: int) -> Figures:
    """Let all clients add for so long, through so many shards."""
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, servers = stack.enter_context(_servers(path, kind))
        flags = ("--no-auth", "--redis-url", url, "--procs", str(shards), "--log-level", "error")
        gateway = stack.enter_context(Service(path / "gateway", *flags))
        clients = []
        for number, queue in enumerate(_queues(kind if isinstance(kind, int) else 1)):
            task = Task(
                load=_LOAD,
                warmup=_WARM,
                duration=seconds,
                deadline=_LONGEST + 2 * seconds,
                redis_port=0,
                port=gateway.port,
                key="none",
                queue=queue,
            )
            words = [sys.executable, "-m", "benchmarks.load", task.to_json()]
            made = Process(f"client {number}", words, path / f"client-{number}.log", clean_environment(path))
            clients.append(stack.enter_context(made))
        for client in clients:
            client.message(_LONGEST)
        sides = (gateway.shards(), servers, [client.pid for client in clients])
        before = [cpu_seconds(side) for side in sides]
        for client in clients:
            client.tell("go")
        outcome = reduce(add, [Outcome.from_members(client.message(_LONGEST + seconds)) for client in clients])
        spent = [(cpu_seconds(side) - first) * 1e6 for side, first in zip(sides, before, strict=True)]
        assert not outcome.errors, clients[0].last_words()
        for client in clients:
            client.tell("end")
        return Figures(outcome.operations / outcome.seconds, *(each / outcome.operations for each in spent))


def main() -> None:
    """Measure each size."""
    arguments = [float(argument) for argument in sys.argv[1:]]
    seconds, shards, repeats = (*arguments, *(3.0, float(os.cpu_count() or 1), 5.0)[len(arguments) :])
    print(f"{shards:g} shards, {_CLIENTS} clients, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    found: dict[str | int, list[Figures]] = {kind: [] for kind in _SERVERS}
    for _ in range(int(repeats)):
        for kind in _SERVERS:
            found[kind].append(measure(kind, seconds, int(shards)))
    for kind, runs in found.items():
        ratios = [run.shards / single.shards for run, single in zip(runs, found["single"], strict=True)]
        per_second, gateway, redis, clients = (
            statistics.median(getattr(run, name) for run in runs) for name in Figures.__dataclass_fields__
        )
        print(
            f"{kind if kind == 'single' else f'{kind} masters'}: {per_second:,.0f} adds per second; for each add"
            f" {gateway:.1f} µs of the shards ({statistics.median(ratios):.2f} of the single server's, from"
            f" {min(ratios):.2f} to {max(ratios):.2f}), {redis:.1f} of Redis, {clients:.1f} of the clients"
        )


if __name__ == "__main__":
    main()
