"""Brokers without a gateway around them, with the limits that the gateway sets by default."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from msgspec.structs import replace

from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.redis.address import Target
from bullmq_proxy.gateway.configured import link_options
from bullmq_proxy.gateway.settings import Settings

OPTIONS: Final = link_options(Settings(), slot=0)


@asynccontextmanager
async def started(
    url: str, prefix: str, identity: Identity | None = None, timeout: float = 5.0, **options: Any
) -> AsyncIterator[Broker]:
    """A broker that is connected within so many seconds, with other limits of its links where they are given."""
    broker = Broker(Target.from_url(url), prefix, replace(OPTIONS, **options), identity or Identity(prefix))
    await broker.start(timeout)
    try:
        yield broker
    finally:
        await broker.close()
