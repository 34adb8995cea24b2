"""What fails in the background: exceptions that nobody retrieved, and those that the program only logged."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # The event loop's own complaints ("Task exception was never retrieved"), and whatever has a traceback.
        if record.name == "asyncio" or record.exc_info:
            self.found.append(self.format(record))


@contextmanager
def nothing_fails_in_the_background() -> Iterator[list[str]]:
    """Fail if an exception was lost in a task, a future or a callback meanwhile; yields what was found so far."""
    collector = _Collector()
    root = logging.getLogger()
    root.addHandler(collector)
    try:
        yield collector.found
        gc.collect()  # tasks and futures complain when they are collected
        gc.freeze()  # what is left stays, and the next collection need not look at it
    finally:
        root.removeHandler(collector)
    assert not collector.found, "\n\n".join(collector.found)
