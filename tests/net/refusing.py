"""Gateways that refuse a WebSocket for each reason that there is, for tests of what is seen of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.wire.closing import Refusal
from tests.net.conftest import MakeGateway
from tests.net.support import KEY, TIMEOUT, RawClient
from tests.support.keys import entry, write_keys
from tests.support.relay import Port, Relay
from tests.support.valkey import ValkeyProcess

NO_KEY = "Authorization:"
EXPIRED = "2020-01-01T00:00:00Z"


@dataclass(frozen=True)
class Request:
    """A handshake that is refused."""

    port: int
    path: str
    key: str = KEY
    version: str = "bullmq-proxy.v1"

    @property
    def subprotocols(self) -> list[str]:
        """Those of a client that can show its key in no other way."""
        return [self.version, f"bearer.{self.key}"]


async def refused(request: Request, *headers: str) -> tuple[int, str]:
    """Ask as a client does that knows the codes; the code and reason that it gets."""
    protocols = f"Sec-WebSocket-Protocol: {', '.join(request.subprotocols)}"
    async with await RawClient.connect(request.port) as client:
        answer = await client.upgrade(request.path, NO_KEY, protocols, *headers)
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, request.version)
        return await client.closed()


@asynccontextmanager
async def refusals(
    make_gateway: MakeGateway, valkey: ValkeyProcess, prefix: str, folder: Path, *origins: str
) -> AsyncIterator[dict[Refusal, Request]]:
    """Have a request for each refusal; pages of these origins may connect."""
    keys = write_keys(
        folder / "keys.toml",
        entry("old", "produce", expires=EXPIRED),
        entry("shop", "produce", queues=["mails"]),
        entry("small", "produce", connections=1),
    )
    gateway = await make_gateway(keys_file=keys, allowed_origins=origins)
    ending = await make_gateway(allowed_origins=origins, drain_timeout=TIMEOUT)
    async with (
        Relay(valkey) as to_redis,
        Relay(Port(ending.port)) as to_ending,
        Redis.from_url(valkey.url) as redis,
        await RawClient.open(gateway.port, "/queue/q", "Authorization: Bearer small"),
        await RawClient.open(ending.port, "/queue/work/process/1") as worker,
    ):
        frail = await make_gateway(to_redis.url, redis_timeout=0.2, redis_backlog_timeout=0.0, allowed_origins=origins)
        to_redis.refuse()
        to_redis.hang_up()
        await redis.set(f"{prefix}:broken:events", "no stream")
        async with await RawClient.open(ending.port, "/queue/work") as producer:
            await producer.ask("add", "w", {})
        await worker.message()
        to_ending.hold_at(b"GET /queue/late")
        stopping = asyncio.create_task(_stop_when_held(ending, to_ending, worker))
        yield {
            Refusal.KEY_GONE: Request(gateway.port, "/queue/q", "old"),
            Refusal.BAD_REQUEST: Request(gateway.port, "/queue/q/process/1?grace=long"),
            Refusal.UNAUTHORIZED: Request(gateway.port, "/queue/q", "wrong"),
            Refusal.FORBIDDEN: Request(gateway.port, "/queue/q", "shop"),
            Refusal.NOT_FOUND: Request(gateway.port, "/nowhere"),
            Refusal.VERSION: Request(gateway.port, "/queue/q", version="bullmq-proxy.v2"),
            Refusal.LIMIT: Request(gateway.port, "/queue/q", "small"),
            Refusal.INTERNAL: Request(gateway.port, "/queue/broken/events"),
            Refusal.UNAVAILABLE: Request(frail.port, "/queue/q/events"),
            Refusal.STOPPING: Request(to_ending.port, "/queue/late"),
        }
        worker.abort()
        await stopping


async def _stop_when_held(gateway: Proxy, relay: Relay, worker: RawClient) -> None:
    """Stop a gateway while a handshake is on its way to it; its worker, which has a job, is told."""
    await relay.held.wait()
    stopping = asyncio.create_task(gateway.stop())
    assert (await worker.message())["data"]["type"] == "drain"
    relay.let_go()
    await stopping
