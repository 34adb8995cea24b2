"""The client for scripts: each call waits for its reply. Names and arguments are those of the client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, Unpack

from bullmq_proxy.gateway.client import events as watching
from bullmq_proxy.gateway.client import held, queue, worker
from bullmq_proxy.gateway.client.errors import ClosedError, ProxyError
from bullmq_proxy.gateway.client.events import Event
from bullmq_proxy.gateway.client.held import UnrecoverableError
from bullmq_proxy.gateway.client.link import URL, Key
from bullmq_proxy.gateway.client.sync_calls import Loop, LoopThread
from bullmq_proxy.gateway.client.sync_functions import FlowFunctions, JobFunctions, QueueFunctions
from bullmq_proxy.gateway.client.types import WorkerOptions

__all__ = ["Event", "FlowProducer", "Job", "ProxyError", "Queue", "QueueEvents", "UnrecoverableError", "Worker"]

Self = TypeVar("Self", bound="_Closing")


class Job(JobFunctions):
    """A job as the gateway has shown it; it does not change by itself."""

    def __init__(self, queue: QueueFunctions, shown: Mapping[str, Any]) -> None:
        """Make an object for the JSON of a job."""
        self._queue = queue
        self.__dict__.update(shown)

    @property
    def queue(self) -> QueueFunctions:
        """The functions of its queue, over the connection that it came by."""
        return self._queue

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name}>"


class _BoundQueue(QueueFunctions):
    def _job(self, shown: Any) -> Job:
        return Job(self, shown)


class _Closing:
    """What has a thread and a connection that end with `close`."""

    _thread: LoopThread
    _client: Any

    def close(self) -> None:
        """Close the connection, and end the thread behind it."""
        if not self._client.isClosed:
            self._thread.run(self._client.close())
        self._thread.stop()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Queue(_Closing, _BoundQueue):
    """A queue: `Queue("mails").add("welcome", {"to": "ada@example.org"})`."""

    def __init__(self, name: str, *, url: str = URL, key: Key | None = None, ca: str | None = None) -> None:
        """Prepare a queue; see the one for asyncio."""
        self.name = name
        self._thread, self._client = LoopThread(), queue.Queue(name, url=url, key=key, ca=ca)
        _BoundQueue.__init__(self, self._thread, self._client)


class FlowProducer(_Closing, FlowFunctions):
    """Adds and reads flows, which are trees of jobs; they are shown as JSON."""

    def __init__(self, *, url: str = URL, key: Key | None = None, ca: str | None = None) -> None:
        """Prepare a producer; see the one for asyncio."""
        self._thread, self._client = LoopThread(), queue.FlowProducer(url=url, key=key, ca=ca)
        FlowFunctions.__init__(self, self._thread, self._client)


class QueueEvents(_Closing):
    """The events of a queue, for a loop: `for event in QueueEvents("mails")`."""

    def __init__(
        self,
        name: str,
        *,
        url: str = URL,
        key: Key | None = None,
        ca: str | None = None,
        events: Iterable[str] = ("*",),
        lastEventId: str | None = None,
    ) -> None:
        """Watch a queue from now on; see the one for asyncio."""
        self._thread = LoopThread()
        watcher = watching.QueueEvents(name, url=url, key=key, ca=ca, events=events, lastEventId=lastEventId)
        self._client = aiter(watcher)
        try:
            self._thread.run(self._client.start())
        except BaseException:
            self.close()
            raise

    @property
    def lastEventId(self) -> str | None:
        """The id of the last event that has come."""
        last: str | None = self._client.lastEventId
        return last

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                event: Event = self._thread.run(self._client.__anext__())
            except StopAsyncIteration:
                return
            except ClosedError:
                if self._thread.is_running:
                    raise
                return
            yield event


class WorkerJob(Job):
    """A job in this worker's hands.

    Attributes:
        isCancelled: whether it is not this worker's any more; a handler that takes long looks at it now and then.
    """

    def __init__(self, loop: Loop, job: held.WorkerJob) -> None:
        """Make an object for a job of the worker that runs in `loop`."""
        shown = {name: value for name, value in vars(job).items() if not name.startswith("_")}
        super().__init__(_BoundQueue(loop, job.queue), shown)
        self._loop, self._job = loop, job
        self.isCancelled = False

    def updateProgress(self, progress: Any) -> None:
        """Say how far the job is, by any JSON."""
        self._loop.run(self._job.updateProgress(progress))

    def log(self, logRow: str, keepLogs: int | None = None) -> None:  # type: ignore[override]
        """Add a row to the job's log."""
        self._loop.run(self._job.log(logRow, keepLogs))

    def release(self) -> None:
        """Give the job back: first in line, no attempt is charged. The handler then returns."""
        self._loop.run(self._job.release())

    def delayFor(self, milliseconds: int) -> None:
        """Give the job back, to run after this delay; no attempt is charged. The handler then returns."""
        self._loop.run(self._job.delayFor(milliseconds))

    def waitChildren(self) -> bool:
        """Let the job wait for its children; after True the handler returns, after False none is pending."""
        return self._loop.run(self._job.waitChildren())


class Worker:
    """Processes jobs with a plain function, in as many threads as jobs: `Worker("mails", send_mail).run()`."""

    def __init__(
        self,
        name: str,
        handler: Callable[[WorkerJob], Any],
        /,
        *,
        url: str = URL,
        key: Key | None = None,
        ca: str | None = None,
        concurrency: int = 1,
        **options: Unpack[WorkerOptions],
    ) -> None:
        """Prepare a worker; see the one for asyncio."""
        self._handler = handler
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix=f"worker {name}")
        self._worker = worker.Worker(name, self._handle, url=url, key=key, ca=ca, concurrency=concurrency, **options)
        self.on, self.off = self._worker.on, self._worker.off
        self._closing: Callable[[], object] | None = None

    def run(self) -> None:
        """Process jobs until Ctrl-C, or `close` in another thread; then those in hand are finished."""
        try:
            with suppress(KeyboardInterrupt):
                asyncio.run(self._run())
        finally:
            self._pool.shutdown()

    def close(self) -> None:
        """Let `run` end, from another thread or a handler."""
        if self._closing is not None:
            self._closing()

    async def _run(self) -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        self._closing = partial(loop.call_soon_threadsafe, end.set)
        closing = loop.create_task(self._close_after(end))
        try:
            await self._worker.run()
        finally:
            self._closing = None
            closing.cancel()
            await asyncio.wait([closing])

    async def _close_after(self, end: asyncio.Event) -> None:
        await end.wait()
        await self._worker.close()

    async def _handle(self, job: held.WorkerJob) -> Any:
        loop = asyncio.get_running_loop()
        shown = WorkerJob(Loop(loop), job)
        try:
            return await loop.run_in_executor(self._pool, self._handler, shown)
        except asyncio.CancelledError:
            shown.isCancelled = True
            raise
