"""A `redis.asyncio.Redis` whose commands go through the link, for BullMQ's own classes."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.redis.link import Link


class LinkClient(Redis):
    """redis-py's commands and reply parsing on top of the pipelined link. It opens no connection of its own."""

    def __init__(self, link: Link) -> None:
        super().__init__(decode_responses=True, protocol=2)
        self._link = link

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command through the link and parse its reply as redis-py does.

        Raises:
            GatewayError: Redis refused it, or is not reachable.
        """
        name = args[0]
        reply = await self._link.call(*name.split(" "), *args[1:])
        options.pop("keys", None)
        callback = self.response_callbacks.get(name)
        return callback(reply, **options) if callback is not None else reply
