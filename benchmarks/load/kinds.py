"""The drivers by the kind of load that a task asks for."""

from __future__ import annotations

from typing import Final

from benchmarks.load.cancels import Cancels
from benchmarks.load.drivers import Adds, Deliveries, Idle, Processing, RoundTrips, Sleeping, SlowClient
from benchmarks.load.floods import Neighbours
from benchmarks.load.http import HttpAdds, StreamedDeliveries
from benchmarks.load.meter import Meter
from benchmarks.load.stage import Driver, Phased
from benchmarks.load.task import Task
from benchmarks.load.webhook import Webhooks

_KINDS: Final = {
    "add": Adds,
    "http-add": HttpAdds,
    "process": Processing,
    "roundtrip": RoundTrips,
    "events": Deliveries,
    "sse": StreamedDeliveries,
    "idle": Idle,
    "sleep": Sleeping,
    "slow": SlowClient,
    "floods": Neighbours,
    "cancel": Cancels,
    "webhook": Webhooks,
}


def make_driver(task: Task, meter: Meter) -> Driver | Phased:
    """The driver of a task."""
    return _KINDS[task.load.kind](task, meter)
