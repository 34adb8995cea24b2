"""Workers: jobs come over a connection, a handler processes them, and what became of each is handed in.

A connection that breaks costs no job within the grace time: the handlers go on, and the next connection takes up what
the gateway still holds for this worker. The protocol's side of that is in held.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Unpack

from bullmq_proxy.gateway.client.held import HeldJobs, WorkerJob
from bullmq_proxy.gateway.client.link import URL, Key, queue_path
from bullmq_proxy.gateway.client.listeners import Listeners
from bullmq_proxy.gateway.client.types import WorkerOptions

GRACE: Final = 10_000
"""Milliseconds for which the gateway keeps a worker's jobs when its connection breaks, unless it says otherwise."""
CLOSE_TIMEOUT: Final = 30.0
"""Seconds that `close` waits for handlers, unless it is told otherwise."""

Handler = Callable[[WorkerJob], Awaitable[Any]]
"""Processes a job; what it returns is the job's return value, what it raises the reason why the job failed."""


class Worker(Listeners):
    """Processes the jobs of a queue: `await Worker("mails", send_mail, concurrency=10).run()`.

    Listeners: `completed` (job, result), `failed` (job, error), `cancelled` (job, reason), `lost` (job, error: its
    answer was not stored, or nobody knows), `draining` (ms until the gateway stops, or None), `connected`,
    `disconnected` (why), `error`.
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        /,
        *,
        url: str = URL,
        key: Key | None = None,
        ca: str | None = None,
        concurrency: int = 1,
        **options: Unpack[WorkerOptions],
    ) -> None:
        """Prepare a worker.

        Args:
            name: of the queue.
            handler: a coroutine function that takes a job; it is cancelled when the job is not this worker's any more.
            url: of the gateway.
            key: that it knows, or a function, plain or of coroutines, that returns a token each time it is asked; None
                for a gateway without keys.
            ca: path of the certificates to trust in place of the system's, where the URL begins with `wss`.
            concurrency: how many jobs are processed at a time.
            options: of the connection. `grace` is 10000 by default, `confirm` 1.
        """
        super().__init__()
        self.name = name
        self.concurrency = concurrency
        wanted: dict[str, Any] = {"grace": GRACE, "confirm": 1, **options}
        path = queue_path(name, f"/process/{concurrency}")
        self._jobs = HeldJobs(handler, self.emit, url, key, ca, path, wanted)

    @property
    def inHand(self) -> int:
        """The number of jobs in hand: processed, or waiting for their answer to be stored."""
        return len(self._jobs.held)

    def start(self) -> None:
        """Begin to take jobs, in the background."""
        self._jobs.link.start()

    async def run(self) -> None:
        """Process jobs until `close`; a refusal of the gateway's is raised. Cancelled, it closes the worker."""
        link = self._jobs.link
        link.start()
        try:
            await link.wait()
        finally:
            await self.close()
        if link.error is not None and not link.was_closed:
            raise link.error

    async def pause(self) -> None:
        """Take no new jobs; those in hand go on."""
        await self._jobs.pause(True)

    async def resume(self) -> None:
        """Take jobs again."""
        await self._jobs.pause(False)

    async def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Take no new jobs, wait for those in hand, and close the connection.

        Args:
            timeout: seconds to wait; then the handlers are cancelled, and their jobs go back to wait, first in line.
        """
        await self._jobs.close(timeout)

    async def __aenter__(self) -> Worker:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
