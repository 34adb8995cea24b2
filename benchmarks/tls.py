"""`python -m benchmarks.tls [SECONDS] [PAIRS]`: what TLS costs the gateway, beside a plain port.

Two services of one shard each, one of which speaks TLS with a key on the curve P-256, do the same work in turns: jobs
are added over a few connections, large jobs are added and come back, and clients connect and leave. Of each the
processor time of the shard is shown, as the median of the pairs, and how many of them would fill a core.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.lab.accounting import cpu_seconds
from tests.support.certificates import make_certificate
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess

_CONNECTIONS: Final = 8
_WINDOW: Final = 16  # calls under way on each
_BIG: Final = 900_000  # bytes of a large job

Measure = Callable[["Side", float], Awaitable[int]]


class Side:
    """One of the two services.

    Attributes:
        tls: what its clients trust; None for a plain port.
    """

    def __init__(self, service: Service, tls: ssl.SSLContext | None) -> None:
        """Make it of a service that runs."""
        self._service = service
        self.tls = tls
        scheme = "ws" if tls is None else "wss"
        self._url = f"{scheme}://localhost:{service.port}/queue/load?token={service.token}"

    def connect(self) -> Any:
        """Connect a client."""
        return connect(self._url, ssl=self.tls, compression=None, ping_interval=None, max_size=None)

    async def cost(self, measure: Measure, seconds: float) -> float:
        """Return the seconds of the shard for each operation."""
        shards = self._service.shards()
        before = cpu_seconds(shards)
        count = await measure(self, seconds)
        return (cpu_seconds(shards) - before) / count


async def _many(socket: ClientConnection, call: str, window: int, ends: float) -> int:
    count = 0
    while time.monotonic() < ends:
        for _ in range(window):
            await socket.send(call)
        for _ in range(window):
            assert "ok" in json.loads(await socket.recv())["data"]
        count += window
    return count


async def _add(
    side: Side, seconds: float, size: int = 20, connections: int = _CONNECTIONS, window: int = _WINDOW
) -> int:
    call = json.dumps({"id": 1, "data": {"fn": "add", "args": ["n", "x" * size, {"jobId": "one"}]}})
    sockets = [await side.connect() for _ in range(connections)]
    ends = time.monotonic() + seconds
    counts = await asyncio.gather(*(_many(socket, call, window, ends) for socket in sockets))
    for socket in sockets:
        await socket.close()
    return sum(counts)


async def _add_large(side: Side, seconds: float) -> int:
    return await _add(side, seconds, _BIG, 2, 1)


async def _come_and_go(side: Side, seconds: float) -> int:
    ends = time.monotonic() + seconds

    async def come_and_go() -> int:
        count = 0
        while time.monotonic() < ends:
            async with side.connect():
                count += 1
        return count

    return sum(await asyncio.gather(*(come_and_go() for _ in range(_CONNECTIONS))))


async def run(home: Path, seconds: float, pairs: int) -> None:
    """Measure, and print a table."""
    with ExitStack() as stack:
        valkey = stack.enter_context(closing(ValkeyProcess(home / "valkey").start()))
        certificate = make_certificate(home, "localhost")
        paths = ("--tls-cert", str(certificate), "--tls-key", str(certificate.with_suffix(".key")))
        trust = ssl.create_default_context(cafile=str(certificate))
        sides = []
        kinds: list[tuple[str, tuple[str, ...], ssl.SSLContext | None]] = [("plain", (), None), ("tls", paths, trust)]
        for name, flags, tls in kinds:
            words = ("--procs", "1", "--redis-url", valkey.url, *flags)
            sides.append(Side(stack.enter_context(Service(home / name, *words)), tls))
        print(f"load of the machine: {os.getloadavg()[0]:.1f}; {pairs} pairs of {seconds:g} s; {ssl.OPENSSL_VERSION}")
        print("| operation | plain: µs of the shard | TLS | plain: a second of a core | TLS |\n|---|---|---|---|---|")
        for name, measure in (
            ("`add` of a job of 20 bytes", _add),
            ("`add` of a job of 900 kB, which comes back", _add_large),
            ("connect and close", _come_and_go),
        ):
            costs = [[await side.cost(measure, seconds) for side in sides] for _ in range(pairs)]
            plain, secure = (statistics.median(pair[side] for pair in costs) for side in (0, 1))
            print(
                f"| {name} | {plain * 1e6:.0f} | {secure * 1e6:.0f} | {1 / plain:.0f} | {1 / secure:.0f} |", flush=True
            )


def main() -> None:
    """Read the arguments, and run."""
    seconds = min(float(sys.argv[1]), 60.0) if len(sys.argv) > 1 else 2.0
    pairs = min(int(sys.argv[2]), 20) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(run(Path(home), seconds, pairs))


if __name__ == "__main__":
    main()
