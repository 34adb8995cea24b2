"""`python -m benchmarks.tracing [JOBS] [ROUNDS]`: what traces cost the gateway.

Services of one shard each do the same work in turns: jobs are added over a few connections, and then worked on. They
differ in what they trace. Of each the processor time of the shard is shown, its thread that sends spans with it, as the
median of the rounds. The collector takes what comes, and looks at nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.lab.accounting import cpu_seconds
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess

_CONNECTIONS: Final = 8
_WINDOW: Final = 16  # calls under way on each, and jobs in hand
_SAMPLED: Final = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
_SIDES: Final[tuple[tuple[str, tuple[str, ...], dict[str, str]], ...]] = (
    ("off", (), {}),
    ("one trace in ten", ("--tracing",), _SAMPLED),
    ("all traces", ("--tracing",), {}),
)
_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Side:
    """One of the services."""

    def __init__(self, service: Service, queue: str) -> None:
        """Make it of a service that runs, with a queue of its own."""
        self._service = service
        self._path = f"/queue/{queue}"

    async def round(self, jobs: int) -> tuple[float, float]:
        """Return the seconds of the shard for each job that is added, and for each that is worked on."""
        shards = self._service.shards()
        started = cpu_seconds(shards)
        sockets = [await self._connect("") for _ in range(_CONNECTIONS)]
        each = jobs // _CONNECTIONS // _WINDOW * _WINDOW
        await asyncio.gather(*(_add(socket, each) for socket in sockets))
        for socket in sockets:
            await socket.close()
        added = cpu_seconds(shards)
        async with self._connect(f"/process/{_WINDOW}") as socket:
            for _ in range(each * _CONNECTIONS):
                number = json.loads(await socket.recv())["id"]
                await socket.send(json.dumps({"id": number, "data": {"result": None}}))
        total = each * _CONNECTIONS
        return (added - started) / total, (cpu_seconds(shards) - added) / total

    def _connect(self, path: str) -> Any:
        url = self._service.address(self._path + path)
        return connect(url, compression=None, ping_interval=None, max_size=None)


async def _add(socket: ClientConnection, count: int) -> None:
    call = json.dumps({"id": 1, "data": {"fn": "add", "args": ["n", {"to": "ada"}, {"removeOnComplete": True}]}})
    for _ in range(count // _WINDOW):
        for _ in range(_WINDOW):
            await socket.send(call)
        for _ in range(_WINDOW):
            assert "ok" in json.loads(await socket.recv())["data"]


async def _collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what is sent on one connection, and say that all is well."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            assert length is not None, head
            await reader.readexactly(int(length[1]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        writer.close()


async def run(home: Path, jobs: int, rounds: int) -> None:
    """Measure, and print a table."""
    with ExitStack() as stack:
        valkey = stack.enter_context(closing(ValkeyProcess(home / "valkey").start()))
        collector = await asyncio.start_server(_collect, "127.0.0.1", 0)
        place = f"http://127.0.0.1:{collector.sockets[0].getsockname()[1]}"
        sides = []
        for number, (_, flags, environment) in enumerate(_SIDES):
            words = ("--procs", "1", "--redis-url", valkey.url, *flags)
            variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": place, **environment}
            service = stack.enter_context(Service(home / str(number), *words, env=variables))
            sides.append(Side(service, f"q{number}"))
        for side in sides:
            await side.round(1000)
        print(f"load of the machine: {os.getloadavg()[0]:.1f}; {rounds} rounds of {jobs} jobs")
        print("| traces | `add`: µs of the shard | a job worked on |\n|---|---|---|")
        costs = [[await side.round(jobs) for side in sides] for _ in range(rounds)]
        for place_of, (name, _, _) in enumerate(_SIDES):
            add, work = (statistics.median(each[place_of][kind] for each in costs) for kind in (0, 1))
            print(f"| {name} | {add * 1e6:.0f} | {work * 1e6:.0f} |", flush=True)
        collector.close()


def main() -> None:
    """Read the arguments, and run."""
    jobs = min(int(sys.argv[1]), 100_000) if len(sys.argv) > 1 else 5000
    rounds = min(int(sys.argv[2]), 50) if len(sys.argv) > 2 else 7
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(run(Path(home), jobs, rounds))


if __name__ == "__main__":
    main()
