"""Queues and flows: objects whose methods are the functions of the gateway."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TypeVar

from bullmq_proxy.gateway.client.calls import Calls, jobs_of
from bullmq_proxy.gateway.client.errors import ProxyError
from bullmq_proxy.gateway.client.functions import FlowFunctions, QueueFunctions
from bullmq_proxy.gateway.client.job import Job
from bullmq_proxy.gateway.client.link import URL, Key, Link, queue_path
from bullmq_proxy.gateway.client.listeners import Listeners

Self = TypeVar("Self", bound="Client")


class Client(Listeners):
    """A connection for calls, made at the first one and again when it breaks.

    Listeners: `connected`, `disconnected` (why), `error` (why there will be no connection any more).
    """

    def __init__(self, url: str, key: Key | None, ca: str | None, path: str) -> None:
        """Prepare a connection to a path of a gateway."""
        super().__init__()
        self._link = Link(_Owner(self), url, key, ca, path, dict)
        self._calls = Calls(self._link)

    @property
    def isClosed(self) -> bool:
        """Whether there will be no connection any more."""
        return self._link.error is not None

    async def close(self) -> None:
        """Close the connection; calls under way end with `CLOSED`, or with `OUTCOME_UNKNOWN` if they write."""
        await self._link.close()

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Owner:
    """What a link tells a client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def opened(self) -> None:
        await self._client._calls.opened()
        self._client.emit("connected")

    async def received(self, id: Any, data: dict[str, Any]) -> None:
        self._client._calls.replied(id, data)

    def broke(self) -> None:
        self._client._calls.broke()

    def waits(self, trouble: ProxyError) -> None:
        self._client.emit("disconnected", trouble)

    def stopped(self, error: ProxyError) -> None:
        self._client._calls.stopped(error)
        if not self._client._link.was_closed:
            self._client.emit("error", error)


class BoundQueue(QueueFunctions):
    """The functions of a queue, over a connection; jobs come as objects."""

    def _jobs(self, shown: Any) -> Any:
        return jobs_of(shown, lambda job: Job(self, job))


class Queue(Client, BoundQueue):
    """A queue: `await Queue("mails").add("welcome", {"to": "ada@example.org"})`."""

    def __init__(self, name: str, *, url: str = URL, key: Key | None = None, ca: str | None = None) -> None:
        """Prepare a queue.

        Args:
            name: of the queue.
            url: of the gateway.
            key: that it knows, or a function, plain or of coroutines, that returns a token each time it is asked; None
                for a gateway without keys.
            ca: path of the certificates to trust in place of the system's, where the URL begins with `wss`.
        """
        Client.__init__(self, url, key, ca, queue_path(name))
        self.name = name


class FlowProducer(Client, FlowFunctions):
    """Adds and reads flows, which are trees of jobs; they are shown as JSON."""

    api = "flows"

    def __init__(self, *, url: str = URL, key: Key | None = None, ca: str | None = None) -> None:
        """Prepare a producer; the arguments are those of a queue."""
        Client.__init__(self, url, key, ca, "/flows")
