"""A WebSocket client for tests, and the gateway that it talks to."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect

from bullmq_proxy.gateway import start_proxy
from bullmq_proxy.gateway.embed import Proxy
from tests.support.contract import check_result
from tests.support.waiting import stretched

T = TypeVar("T")

_TICK = 0.01
SOON = 8.0
"""Seconds in which everything that is expected to happen must have happened."""


async def until(look: Callable[[], Awaitable[T]], what: str, timeout: float = SOON) -> T:
    """Ask until the answer is true, for what has no event to wait for; returns the answer."""
    deadline = time.monotonic() + (timeout := stretched(timeout))
    while not (answer := await look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(_TICK)
    return answer


async def both_listen(redis: Redis, prefix: str) -> None:
    """Wait until two gateways of a prefix hear each other."""

    async def look() -> bool:
        return bool((await redis.pubsub_numsub(f"{prefix}:{{gateways}}:channel@0"))[0][1] == 2)

    await until(look, "both gateways listen")


class Refused(Exception):
    """An `err` in reply to a call."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: str = error["code"]
        self.message: str = error["message"]


class Peer:
    """One open connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._numbers = itertools.count(1_000_000)  # far from the ids that the gateway makes
        self._kept: deque[str] = deque()  # came while waiting for something else

    async def send(self, id: Any, **data: Any) -> None:
        await self.socket.send(json.dumps({"id": id, "data": data}))

    async def text(self, timeout: float = SOON) -> str:
        """The next message, as it came."""
        return self._kept.popleft() if self._kept else await self._receive(timeout)

    async def message(self, timeout: float = SOON) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(await self.text(timeout))
        return message

    async def data(self, timeout: float = SOON) -> dict[str, Any]:
        """The `data` of the next message."""
        data: dict[str, Any] = (await self.message(timeout))["data"]
        return data

    async def _receive(self, timeout: float) -> str:
        async with asyncio.timeout(stretched(timeout)):
            text = await self.socket.recv()
        assert isinstance(text, str)
        return text

    async def request(self, fn: str, *args: Any) -> int:
        """Send a request; returns its id."""
        id = next(self._numbers)
        await self.send(id, fn=fn, args=args)
        return id

    async def reply(self, id: int, timeout: float = SOON) -> Any:
        """The result of a request; what else comes meanwhile is kept for later. Raises Refused."""
        came = [text for text in self._kept if json.loads(text)["id"] == id]  # while another reply was waited for
        if came:
            self._kept.remove(came[0])
        while not came:
            text = await self._receive(timeout)
            (came if json.loads(text)["id"] == id else self._kept).append(text)
        message = json.loads(came[0])
        if "err" in message["data"]:
            raise Refused(message["data"]["err"])
        return message["data"]["ok"]

    async def call(self, fn: str, *args: Any, timeout: float = SOON) -> Any:
        """Call a function and return its result, which has to be what the AsyncAPI document says."""
        result = await self.reply(await self.request(fn, *args), timeout)
        check_result(fn, result)
        return result

    async def refusal(self, fn: str, *args: Any) -> tuple[str, str]:
        """Call a function that must be refused; returns code and message."""
        with pytest.raises(Refused) as caught:
            await self.call(fn, *args)
        return caught.value.code, caught.value.message

    async def until_state(self, id: str, state: str) -> None:
        """Wait until a job is in a state."""

        async def look() -> bool:
            return bool(await self.call("getJobState", id) == state)

        await until(look, f"job {id} is {state}")

    async def job(self, timeout: float = SOON) -> Job:
        """The next message, which must push a job."""
        message = await self.message(timeout)
        assert message["data"].get("type") == "process", message
        return Job(self, message)

    def kept(self) -> list[dict[str, Any]]:
        """Take what came while waiting for replies."""
        kept, self._kept = list(self._kept), deque()
        return [json.loads(text) for text in kept]

    async def nothing_more(self) -> None:
        """Nothing has been sent to us that we have not seen: replies come behind it, on the same connection."""
        await self.call("getJobCounts")
        assert not self._kept, list(self._kept)

    async def pause(self) -> None:
        """Take no new jobs."""
        await self._tell("pause")

    async def resume(self) -> None:
        """Take jobs again."""
        await self._tell("resume")

    async def _tell(self, type: str) -> None:
        id = next(self._numbers)
        await self.send(id, type=type)
        assert await self.reply(id) is None

    async def close(self) -> None:
        await self.socket.close()

    def vanish(self) -> None:
        """End without a word."""
        self.socket.transport.abort()

    async def closed(self, timeout: float = SOON) -> int | None:
        """Wait until the gateway has closed the connection; returns its code."""
        async with asyncio.timeout(stretched(timeout)):
            await self.socket.wait_closed()
        return self.socket.close_code


class Job:
    """A job in our hands."""

    def __init__(self, peer: Peer, message: dict[str, Any]) -> None:
        self._peer = peer
        self.number: int = message["id"]
        self.payload: Any = message["data"]["payload"]
        self.shown: dict[str, Any] = message["data"]["job"]
        self.id: str = self.shown["id"]
        self.name: str = self.shown["name"]

    async def answer(self, **data: Any) -> None:
        """Say something about the job."""
        await self._peer.send(self.number, **data)


class Gateway:
    """An embedded gateway, and connections to it that end with it."""

    def __init__(self, redis_url: str, **settings: Any) -> None:
        self._proxy: Proxy = start_proxy(redis_url, ["key-1"], **{"port": 0, "drain_timeout": 0.0, **settings})
        self._stack = AsyncExitStack()
        self.prefix: str = settings.get("prefix", "bull")

    @property
    def port(self) -> int:
        return self._proxy.port

    async def metric(self, name: str) -> float:
        """One figure of /metrics that has no label but the slot."""
        return (await self.metrics(name))[""]

    async def metrics(self, name: str) -> dict[str, float]:
        """The figures of this name on /metrics, by the labels that they have beside the slot."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        lines = re.findall(rf'^bullmq_proxy_{name}{{slot="0",?(.*)}} (.*)$', page, re.MULTILINE)
        return {"/".join(re.findall(r'="(.*?)"', labels)): float(value) for labels, value in lines}

    async def ready(self) -> tuple[int, str]:
        """Return the status of /ready, and the message of its error."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        page = json.loads(body)
        return int(head.split()[1]), page.get("err", page.get("error", {})).get("message", "")

    async def __aenter__(self) -> Gateway:
        await self._stack.enter_async_context(self._proxy)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def stop(self) -> None:
        """Drain and stop; leaving the context does it too."""
        await self._proxy.stop()

    def reload_keys(self) -> None:
        """Read the keys file again."""
        self._proxy.reload_keys()

    def url(self, path: str, query: dict[str, Any]) -> str:
        return f"{self._proxy.url}{path}?" + "&".join(
            f"{name.replace('__', '.')}={quote(str(value))}" for name, value in {"token": "key-1", **query}.items()
        )

    async def connect(self, path: str, **query: Any) -> Peer:
        socket = await connect(
            self.url(path, query), compression=None, ping_interval=None, max_size=None, close_timeout=1, proxy=None
        )
        self._stack.push_async_callback(socket.close)
        return Peer(socket)

    async def queue(self, name: str = "q", /) -> Peer:
        return await self.connect(f"/queue/{quote(name, safe='')}")

    async def worker(self, name: str = "q", /, concurrency: int = 1, **query: Any) -> Peer:
        """A worker; `limiter__max` stands for `limiter.max`."""
        return await self.connect(f"/queue/{quote(name, safe='')}/process/{concurrency}", **query)

    async def events(self, name: str = "q", /, *events: str, **query: Any) -> Peer:
        return await self.connect(f"/queue/{quote(name, safe='')}/events", events=",".join(events) or "*", **query)


async def down(gateway: Gateway) -> None:
    """Wait until the gateway has noticed that Redis is gone."""

    async def look() -> bool:
        return await gateway.metric("redis_up") == 0

    await until(look, "the link notices")
