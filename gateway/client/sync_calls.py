"""Calls of programs that wait for each reply: they are made in an event loop of another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from bullmq_proxy.gateway.client.calls import EMPTY, jobs_of
from bullmq_proxy.gateway.client.calls import Functions as AsyncFunctions
from bullmq_proxy.gateway.client.errors import ClosedError

__all__ = ["EMPTY", "Functions", "Loop", "LoopThread"]

T = TypeVar("T")


class Loop:
    """An event loop of another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for its result; Ctrl-C cancels it. Once the loop has ended it is CLOSED."""
        if self._loop.is_closed():
            work.close()
            raise ClosedError("This client was closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()


class LoopThread(Loop):
    """An event loop with a thread of its own, until `stop`."""

    def __init__(self) -> None:
        super().__init__(asyncio.new_event_loop())
        self._thread = threading.Thread(target=self._loop.run_forever, name="bullmq_proxy.client", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it has not been stopped."""
        return not self._loop.is_closed()

    def stop(self) -> None:
        """End the thread; a second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class Functions:
    """What the methods for functions share."""

    def __init__(self, loop: Loop, functions: AsyncFunctions) -> None:
        """Bind the functions; `functions` runs in `loop`."""
        self._loop = loop
        self._functions = functions

    def _read(self, fn: str, args: list[Any], *others: Any) -> Any:
        return self._loop.run(self._functions._read(fn, args, *others))

    def _write(self, fn: str, args: list[Any], *others: Any) -> Any:
        return self._loop.run(self._functions._write(fn, args, *others))

    def _jobs(self, shown: Any) -> Any:
        return jobs_of(shown, self._job)

    def _job(self, shown: Any) -> Any:
        """Return an object for the JSON of a job."""
        raise NotImplementedError
