"""The life of a client process: warm up, say so, measure when told to, report, leave when told to.

Lines of JSON go to stdout (`{"at": "warm"}`, `{"at": "done", …}`), single words come from stdin (`go`, `end`). The load
runs from the warm-up until the end, so that what is measured is a steady state; the other side takes its readings of
the operating system and of Redis around `go` and `done`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from benchmarks.load.meter import Meter
from benchmarks.load.task import Outcome, Task


class Driver(Protocol):
    """Drives one kind of load."""

    finished: asyncio.Event
    """Set when there is nothing left to do before the time is over."""

    async def start(self) -> None:
        """Connect and begin; the load runs from here on."""

    async def close(self) -> None:
        """Stop and disconnect."""


class Phased(Driver, Protocol):
    """A driver that measures in its own way."""

    async def measure(self, seconds: float) -> Outcome:
        """Measure for so long."""


MakeDriver = Callable[[Task, Meter], Driver | Phased]


def main(make: MakeDriver, arguments: list[str]) -> None:
    """Run the task in the first argument."""
    import uvloop  # noqa: PLC0415 - only processes that make load pay for it

    task = Task.from_json(arguments[0])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(perform(task, make))


async def perform(task: Task, make: MakeDriver) -> None:
    """Play the part."""
    orders = await _orders()
    meter = Meter()
    async with asyncio.timeout(task.deadline):
        driver = make(task, meter)
        try:
            await driver.start()
            await asyncio.sleep(task.warmup)
            _say({"at": "warm"})
            await _order(orders, "go")
            outcome = await _measured(driver, meter, task.duration)
            _say({"at": "done", **asdict(outcome)})
            await _order(orders, "end")
        finally:
            await driver.close()


async def _measured(driver: Driver | Phased, meter: Meter, seconds: float) -> Outcome:
    if hasattr(driver, "measure"):
        outcome: Outcome = await driver.measure(seconds)
        return outcome
    return await measure(driver, meter, seconds)


async def measure(driver: Driver, meter: Meter, seconds: float) -> Outcome:
    """Count for so long, or until the driver has nothing left to do."""
    meter.start()
    try:
        async with asyncio.timeout(seconds):
            await driver.finished.wait()
    except TimeoutError:
        pass
    return meter.stop()


async def _orders() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _order(orders: asyncio.StreamReader, wanted: str) -> None:
    """Wait for a word; the end of stdin means that nobody is interested any more."""
    word = (await orders.readline()).decode().strip()
    if word != wanted:
        raise SystemExit(f"expected {wanted!r}, got {word!r}")


def _say(members: dict[str, Any]) -> None:
    print(json.dumps(members), flush=True)
