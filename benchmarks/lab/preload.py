"""Jobs in the queue before a run: BullMQ's own script, called with everything in one pipeline."""

from __future__ import annotations

from typing import Final

from benchmarks.lab.processes import LabError
from benchmarks.lab.valkey import Control
from benchmarks.load.task import job_data
from benchmarks.peers.pipeline import Scripts

_BATCH: Final = 500  # commands before their replies are read


def preload(port: int, prefix: str, queue: str, count: int, payload: int) -> None:
    """Add `count` jobs with `payload` bytes of data each."""
    scripts = Scripts(prefix, queue)
    control = Control(port, 1.0)
    try:
        control.ask("SCRIPT", "LOAD", scripts.texts["addStandardJob"])
        add = scripts.add(job_data(payload))
        for start in range(0, count, _BATCH):
            size = min(_BATCH, count - start)
            control.tell(add * size)
            if any(isinstance(control.reply(), Exception) for _ in range(size)):
                raise LabError("a job could not be added beforehand")
    finally:
        control.close()
