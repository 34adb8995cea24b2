"""`floods`: a neighbour who adds and one who works, first undisturbed, then beside hostile clients."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import Final

from benchmarks.load.drivers import RoundTrips
from benchmarks.load.histogram import Histogram
from benchmarks.load.stage import measure
from benchmarks.load.task import Outcome

_PROBE: Final = 0.005  # s between two questions to Redis


class Neighbours(RoundTrips):
    """Round trips of the neighbours; in `extra` are those before the flood, and what the flood does to Redis."""

    async def measure(self, seconds: float) -> Outcome:
        """Measure twice; the outcome is that beside the flood."""
        before = await measure(self, self._meter, seconds)
        command = (sys.executable, "-m", "benchmarks.load.flooder", str(self._task.port), self._task.key)
        flooder = await asyncio.create_subprocess_exec(
            *command,
            self._load.flood,
            str(self._task.deadline),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert flooder.stdin is not None and flooder.stdout is not None
        try:
            await flooder.stdout.readline()  # it is ready
            probe = Probe(self._task.redis_port)
            probing = asyncio.create_task(probe.run())
            outcome = await measure(self, self._meter, seconds)
            probing.cancel()
            await asyncio.wait((probing,))
            memory = await probe.memory()
        finally:
            flooder.stdin.close()
            with suppress(ProcessLookupError):
                flooder.kill()
            await flooder.wait()
        outcome.before = before.operations
        outcome.extra = {
            "p50_ms_before": _quantile(before, 0.5),
            "p99_ms_before": _quantile(before, 0.99),
            "worst_ms": _quantile(outcome, 1.0),
            "redis_silent_ms": probe.longest * 1000,
            "redis_mib": memory / 2**20,
        }
        return outcome


class Probe:
    """Asks Redis over and over, and keeps the longest time without an answer."""

    def __init__(self, port: int) -> None:
        self.longest = 0.0
        self._port = port

    async def run(self) -> None:
        """Ask until cancelled."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                asked = time.perf_counter()
                writer.write(b"PING\r\n")
                await reader.readline()
                self.longest = max(self.longest, time.perf_counter() - asked)
                await asyncio.sleep(_PROBE)
        finally:
            writer.close()

    async def memory(self) -> int:
        """Return the bytes that Redis has used at most."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"INFO memory\r\n")
        line = b""
        while not line.startswith(b"used_memory_peak:"):
            line = await reader.readline()
        writer.close()
        return int(line.partition(b":")[2])


def _quantile(outcome: Outcome, share: float) -> float:
    return Histogram(outcome.latency).quantile(share) or 0.0
