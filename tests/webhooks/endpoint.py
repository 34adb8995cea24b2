"""An endpoint of webhooks in this process, which answers as a test says, and a client of the gateway's HTTP."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession, web

from tests.sessions.peer import SOON, until


@dataclass
class Delivery:
    """A request that has come to the endpoint."""

    request: web.Request
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.body)
        return said

    @property
    def job(self) -> dict[str, Any]:
        job: dict[str, Any] = self.json["job"]
        return job

    @property
    def token(self) -> str:
        token: str = self.json["token"]
        return token


async def _fine(delivery: Delivery) -> web.StreamResponse:
    return web.json_response({"done": delivery.job["id"]})


@dataclass
class Endpoint:
    """The endpoint: what it was sent, and how it answers."""

    url: str = ""
    respond: Callable[[Delivery], Awaitable[web.StreamResponse]] = _fine
    deliveries: list[Delivery] = field(default_factory=list)
    now: int = 0
    most: int = 0

    def answer(self, status: int, text: str = "", *, content_type: str = "text/plain", **headers: str) -> None:
        """Give this answer from now on."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}

        async def respond(delivery: Delivery) -> web.StreamResponse:
            return web.Response(status=status, text=text, content_type=content_type, headers=sent)

        self.respond = respond

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        delivery = Delivery(request, await request.read(), headers)
        self.deliveries.append(delivery)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self.respond(delivery)
        finally:
            self.now -= 1

    async def came(self, count: int = 1, timeout: float = SOON) -> Delivery:
        """Wait until so many requests have come; return the last of them."""

        async def look() -> bool:
            return len(self.deliveries) >= count

        await until(look, f"{count} deliveries", timeout)
        return self.deliveries[count - 1]


@asynccontextmanager
async def serving(port: int = 0, context: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    """An endpoint on a port of loopback."""
    endpoint = Endpoint()
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", endpoint.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield endpoint
    finally:
        await runner.cleanup()


@dataclass
class Answer:
    """A response of the gateway."""

    status: int
    text: str
    type: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """A client of the gateway's HTTP, as curl and PHP pages are."""

    def __init__(self, port: int, key: str, http: ClientSession) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self.key = key
        self._http = http

    async def ask(
        self, method: str, path: str, body: Any = None, *, accept: str = "*/*", key: str | None = None
    ) -> Answer:
        headers = {"Authorization": f"Bearer {self.key if key is None else key}", "Accept": accept}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with self._http.request(method, self._base + path, data=data, headers=headers) as response:
            return Answer(response.status, await response.text(), response.headers.get("Content-Type", ""))

    async def call(self, queue: str, function: str, *args: Any) -> Any:
        """Call a function of a queue."""
        answer = await self.ask("POST", f"/queue/{queue}/{function}", list(args))
        if answer.status != 200:
            raise AssertionError(answer)
        return answer.json["ok"]

    async def put(self, name: str, url: str, **options: Any) -> Answer:
        """Register a worker of the queue of its name."""
        endpoint = {"url": url, **options.pop("endpoint", {})}
        answer = await self.ask("PUT", f"/workers/{name}", {"queue": name, "endpoint": endpoint, **options})
        assert answer.status == 200, answer
        return answer

    async def add(self, queue: str, data: Any = None, **opts: Any) -> str:
        """Add a job; return its id."""
        job = await self.call(queue, "add", "work", {} if data is None else data, opts)
        id: str = job["id"]
        return id

    async def state(self, queue: str, id: str, state: str, timeout: float = SOON) -> dict[str, Any]:
        """Wait until a job is in a state; return the job."""

        async def look() -> bool:
            return bool(await self.call(queue, "getJobState", id) == state)

        await until(look, f"job {id} is {state}", timeout)
        job: dict[str, Any] = await self.call(queue, "getJob", id)
        return job


@asynccontextmanager
async def client_of(port: int, key: str) -> AsyncIterator[Client]:
    """A client of a gateway on this machine."""
    async with ClientSession() as http:
        yield Client(port, key, http)


async def unanswered(delivery: Delivery) -> web.StreamResponse:
    """Give no answer."""
    await asyncio.Event().wait()
    raise AssertionError
