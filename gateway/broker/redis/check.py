"""Whether a server is fit for jobs: what cannot work is refused at the start, and what is dangerous said in the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from bullmq_proxy.gateway.broker.redis.errors import RedisRefused
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

OLDEST: Final = (5, 0)
"""The oldest version of Redis that BullMQ works with: it has streams and ZPOPMIN."""

_RECOMMENDED: Final = (6, 2)  # by BullMQ, which warns of older ones
_OF_COMMANDS: Final = (ErrorCode.INTERNAL, ErrorCode.OUTCOME_UNKNOWN)  # the latter of the one that asks for replicas
_RIGHTS: Final = "docs/redis.md#rights names those that the user needs"


async def check(
    call: Callable[..., Awaitable[Any]], probe: Callable[[], Awaitable[Any]], *, fails_over: bool, min_replicas: int = 0
) -> list[str]:
    """Look at a server before the first client comes.

    Args:
        call: sends one command to it and returns the reply.
        probe: does what adding and working jobs takes.
        fails_over: whether a replica is to take the server's place one day.
        min_replicas: that must have what is written.

    Returns:
        What is dangerous, a sentence for each.

    Raises:
        RedisRefused: it is too old, or does not let the user add jobs.
    """
    try:
        info = _fields(await call("INFO"))
    except GatewayError as error:
        if error.code is not ErrorCode.INTERNAL:
            raise
        info = {}  # no right to INFO
    version = _version(info.get("redis_version", ""))
    if version and version < OLDEST:
        raise RedisRefused(f"Redis is of version {info['redis_version']}: BullMQ needs 5.0 or newer")
    await _check_rights(probe)
    remarks = [] if info else ["the user may not call INFO: eviction, persistence and replicas are not checked"]
    if version and version < _RECOMMENDED:
        remarks.append(f"its version is {info['redis_version']}: BullMQ recommends 6.2 or newer")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        remarks.append(f"its eviction policy is {policy}: jobs are lost when memory is short; set it to noeviction")
    if info.get("aof_enabled") == "0" and await _saves(call) is False:
        remarks.append("it keeps nothing on disk: all jobs are lost when it ends; set appendonly to yes")
    count = int(info.get("connected_slaves", min_replicas))
    if count < min_replicas:
        remarks.append(f"{count} replicas follow it: while min_replicas is {min_replicas} no write is confirmed")
    elif fails_over and count == 0:
        remarks.append("no replica follows it: nothing can take its place when it dies")
    return remarks


async def _check_rights(probe: Callable[[], Awaitable[Any]]) -> None:
    try:
        await probe()
    except GatewayError as error:
        text = error.message
        if error.code in _OF_COMMANDS and ("NOPERM" in text or "ACL" in text or "can't run this command" in text):
            raise RedisRefused(f"{text}; {_RIGHTS}") from None


async def _saves(call: Callable[..., Awaitable[Any]]) -> bool | None:
    """Return whether the server writes snapshots; None when it does not say."""
    with suppress(GatewayError):
        reply = await call("CONFIG", "GET", "save")
        if isinstance(reply, list) and len(reply) == 2:
            return bool(reply[1])
    return None


def _fields(text: Any) -> dict[str, str]:
    lines = text.splitlines() if isinstance(text, str) else ()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _version(text: str) -> tuple[int, ...]:
    with suppress(ValueError):
        return tuple(int(part) for part in text.split(".")[:2])
    return ()
