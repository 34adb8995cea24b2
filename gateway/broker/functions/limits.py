"""Limits that hold for all workers of a queue: how many jobs at a time, and how many in a while."""

from __future__ import annotations

from bullmq_proxy.gateway.broker.functions.base import MANAGE, OBSERVE, TABLE, BatchSize, Context
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.rules.shapes import RateLimit
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER, Count, to_number


@TABLE.function(MANAGE, writes=True, example=[10])
async def set_global_concurrency(queue: Queue, concurrency: Count, *, context: Context) -> int:
    """Limit how many jobs all workers together process at a time; return 1 when there was no limit before.

    The gateways' workers take what a higher limit allows at once.
    """
    return await _set(queue, context, concurrency=concurrency)


@TABLE.function(OBSERVE, writes=False)
async def get_global_concurrency(queue: Queue) -> int | float | None:
    """Return how many jobs all workers together may process at a time, or null."""
    [concurrency] = await _get(queue, "concurrency")
    return to_number(concurrency) if concurrency else None


@TABLE.function(MANAGE, writes=True)
async def remove_global_concurrency(queue: Queue, *, context: Context) -> int:
    """Remove the limit of jobs at a time; return 1 when there was one."""
    return await _remove(queue, context, "concurrency")


@TABLE.function(OBSERVE, writes=False)
async def is_maxed(queue: Queue) -> bool:
    """Return whether as many jobs are active as the global concurrency allows."""
    return bool(await queue.scripts["isMaxed"].run(queue.keys("meta", "active"), []))


@TABLE.function(MANAGE, writes=True, example=[100, 1000])
async def set_global_rate_limit(queue: Queue, max: BatchSize, duration: BatchSize, *, context: Context) -> int:
    """Limit how many jobs all workers together start in `duration` ms; return how many of both settings are new."""
    return await _set(queue, context, max=max, duration=duration)


@TABLE.function(OBSERVE, writes=False)
async def get_global_rate_limit(queue: Queue) -> RateLimit | None:
    """Return the rate limit of all workers together, or null."""
    limit, duration = await _get(queue, "max", "duration")
    if not (limit and duration):
        return None
    return {"max": to_number(limit), "duration": to_number(duration)}


@TABLE.function(MANAGE, writes=True)
async def remove_global_rate_limit(queue: Queue, *, context: Context) -> int:
    """Remove the rate limit of all workers together; return how many of its two settings there were."""
    return await _remove(queue, context, "max", "duration")


@TABLE.function(MANAGE, writes=True, example=[5000])
async def rate_limit(queue: Queue, expire_time_ms: BatchSize) -> None:
    """Start no more jobs for `expireTimeMs` ms, as if the rate limit were reached.

    This holds for workers with a limit of their own, and for all while a global one is set.
    """
    # A count of jobs that is beyond every limit.
    await queue.link.call("SET", queue.key("limiter"), MAX_SAFE_INTEGER, "PX", expire_time_ms)


@TABLE.function(MANAGE, writes=True)
async def remove_rate_limit_key(queue: Queue, *, context: Context) -> int:
    """Reset the counter of the rate limit; return 1 when there was one. The gateways' workers go on at once."""
    removed: int = await queue.link.call("DEL", queue.key("limiter"))
    context.broker.reach.look_again(queue.name)
    return removed


@TABLE.function(OBSERVE, writes=False, example=[100])
async def get_rate_limit_ttl(queue: Queue, max_jobs: Count | None = None) -> int:
    """Return for how many ms the rate limit lets no more jobs start.

    With `maxJobs`, or a global rate limit, it is 0 while fewer jobs have started. Without either it is what is left of
    the current period: -2 when there is none, -1 when it never ends.
    """
    ttl: int = await queue.scripts["getRateLimitTtl"].run(queue.keys("limiter", "meta"), [max_jobs or 0])
    return ttl


async def _set(queue: Queue, context: Context, **fields: int) -> int:
    pairs = [part for pair in fields.items() for part in pair]
    added: int = await queue.link.call("HSET", queue.key("meta"), *pairs)
    context.broker.reach.look_again(queue.name)
    return added


async def _get(queue: Queue, *fields: str) -> list[str | None]:
    found: list[str | None] = await queue.link.call("HMGET", queue.key("meta"), *fields)
    return found


async def _remove(queue: Queue, context: Context, *fields: str) -> int:
    removed: int = await queue.link.call("HDEL", queue.key("meta"), *fields)
    context.broker.reach.look_again(queue.name)
    return removed
