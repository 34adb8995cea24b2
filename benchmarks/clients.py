"""`python -m benchmarks.clients [JOBS] [REPEATS]`: what the Python and the JavaScript client cost for each job.

Beside each of them stands a program that does the same by WebSocket messages alone, as the worked examples do: it
neither connects again, nor repeats a call, nor hands in a result twice. One shard; the processor time is the program's
own, counted from when it is connected until all jobs are added, or done.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from websockets.sync.client import connect

from benchmarks.lab import npm
from benchmarks.lab.accounting import cpu_seconds
from benchmarks.lab.bench import PREFIX, Bench
from benchmarks.lab.cores import Cores
from benchmarks.lab.processes import Process
from benchmarks.lab.valkey import Valkey
from benchmarks.peers.client_cost import DATA, NAME
from benchmarks.scenarios import chosen

_LONGEST: Final = 120.0  # s
_BULK: Final = 500
_LOOKS: Final = 0.005  # s between two looks whether all jobs are done


def _words(language: str, way: str, task: str, port: int, key: str, jobs: int) -> list[str | Path]:
    rest = [way, task, str(port), key, str(jobs)]
    if language == "python":
        return [sys.executable, "-m", "benchmarks.peers.client_cost", *rest]
    return [npm.node(), "--experimental-websocket", "--no-warnings", npm.PEERS / "client-cost.mjs", *rest]


def _fill(port: int, key: str, jobs: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/queue/{NAME}?token={key}") as socket:
        for start in range(0, jobs, _BULK):
            bulk = [{"name": "welcome", "data": DATA}] * min(_BULK, jobs - start)
            socket.send(json.dumps({"id": 0, "data": {"fn": "addBulk", "args": [bulk]}}))
            assert "ok" in json.loads(socket.recv())["data"]


def measure(valkey: Valkey, bench: Bench, directory: Path, language: str, way: str, task: str, jobs: int) -> float:
    """Run one program over a new gateway and an empty Redis; return its µs of processor time for each job."""
    valkey.forget()
    (scenario,) = chosen(("add-1x1",))
    with ExitStack() as stack:
        proxy = bench.proxy("gateway", scenario, stack)
        words = _words(language, way, task, proxy.ports[0], proxy.key, jobs)
        log = directory / f"{language}-{way}-{task}.log"
        program = stack.enter_context(Process(f"{language} {way} {task}", words, log, bench.environment))
        assert program.line(_LONGEST) == "ready"
        before = cpu_seconds([program.pid])
        if task == "add":
            program.tell("go")
            assert program.line(_LONGEST) == "done"
        else:
            _fill(proxy.ports[0], proxy.key, jobs)
            until = time.monotonic() + _LONGEST
            while valkey.ask("ZCARD", f"{PREFIX}:{NAME}:completed") < jobs:
                assert time.monotonic() < until, program.last_words()
                time.sleep(_LOOKS)
        return (cpu_seconds([program.pid]) - before) / jobs * 1e6


def main() -> None:
    """Measure each client beside the program without one, in pairs."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Valkey(Path(name)) as valkey:
        directory = Path(name)
        bench = Bench(valkey.port, directory, 1, Cores.shared())
        for language in ("python", "javascript"):
            for task in ("add", "work"):
                pairs = []
                for number in range(repeats):
                    ways = ("client", "raw") if number % 2 else ("raw", "client")
                    costs = {way: measure(valkey, bench, directory, language, way, task, jobs) for way in ways}
                    pairs.append((costs["client"], costs["raw"]))
                client, raw = (statistics.median(side) for side in zip(*pairs, strict=True))
                ratio = statistics.median(mine / other for mine, other in pairs)
                print(f"{language} {task}: {client:.0f} µs a job, without a client {raw:.0f}: {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
