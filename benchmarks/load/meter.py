"""What a client counts, and only while it is asked to: operations, errors, latencies."""

from __future__ import annotations

import sys
import time

from benchmarks.load.histogram import Histogram
from benchmarks.load.task import Outcome

clock = time.perf_counter


class Meter:
    """Counts between `start` and `stop`. Errors count always: a warm-up that fails spoils the run, too."""

    def __init__(self) -> None:
        self.errors = 0
        self.operations = 0
        self._on = False
        self._histogram = Histogram()
        self._started = 0.0

    def start(self) -> None:
        """Count from now, from zero."""
        self.operations = 0
        self._histogram = Histogram()
        self._started = clock()
        self._on = True

    def stop(self) -> Outcome:
        """Count no more, and say what was counted."""
        self._on = False
        return Outcome(self.operations, clock() - self._started, self.errors, dict(self._histogram.counts))

    def error(self, message: str) -> None:
        """Something went wrong; the first message goes to stderr, where the benchmark finds it."""
        self.errors += 1
        if self.errors == 1:
            print(message, file=sys.stderr, flush=True)

    def done(self, operations: int, latency: float | None = None) -> None:
        """Some operations have just ended, all after `latency` seconds."""
        if self._on:
            self.operations += operations
            if latency is not None:
                self._histogram.record(latency, operations)
