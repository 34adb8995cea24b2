"""The metrics of queues: what is in them, found by the shard that is asked, for those who ask soon after it, too."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.shapes import FoundQueue

FRESH: Final = 5.0
"""Seconds for which what was found is shown again."""
_TIMEOUT: Final = 3.0  # s that the page waits for Redis; then it has the figures of the shards alone
_UNSAFE: Final = re.compile(r'[\\"\n]')

QUEUE_METRICS: Final = {
    "bullmq_job_count": "Jobs of the queue by state, under the name that BullMQ gives them.",
    "bullmq_proxy_queue_jobs": "Jobs of the queue by state.",
    "bullmq_proxy_queue_oldest_seconds": "How long the job next in line has waited; 0 if none waits.",
    "bullmq_proxy_queue_paused": "Whether the queue is paused.",
    "bullmq_proxy_queue_workers": "Worker connections and webhook workers, on all gateways.",
    "bullmq_proxy_queue_watchers": "Connections that watch the queue, on all gateways.",
}
"""Gauges, and what they mean."""


class QueueMetrics:
    """The metrics of queues, found at most once in `FRESH`."""

    def __init__(self, find: Callable[[], Awaitable[Sequence[FoundQueue]]]) -> None:
        """Make it; `find` asks Redis, and the other gateways."""
        self._find = find
        self._found: Sequence[FoundQueue] = ()
        self._found_at = float("-inf")
        self._finding = asyncio.Lock()

    async def page(self) -> str:
        """Return the metrics in Prometheus's text format; nothing while Redis does not answer."""
        now = asyncio.get_running_loop().time
        async with self._finding:
            if now() - self._found_at > FRESH:
                try:
                    async with asyncio.timeout(_TIMEOUT):
                        self._found = await self._find()
                except (GatewayError, TimeoutError):
                    return ""
                self._found_at = now()
        return "".join(_lines(self._found))


def _lines(found: Sequence[FoundQueue]) -> Iterator[str]:
    for name, help in QUEUE_METRICS.items():
        yield f"# HELP {name} {help}\n# TYPE {name} gauge\n"
        for queue in found:
            of = f'queue="{_UNSAFE.sub(_escape, queue["name"])}"'
            yield from (f"{name}{{{of}{label}}} {value:g}\n" for label, value in _values(name, queue))


def _values(name: str, queue: FoundQueue) -> Iterator[tuple[str, float]]:
    match name.removeprefix("bullmq_proxy_queue_"):
        case "bullmq_job_count" | "jobs":
            yield from ((f',state="{state}"', count) for state, count in queue.get("counts", {}).items())
        case "oldest_seconds":
            yield "", (queue.get("oldest") or 0) / 1000
        case "paused":
            yield "", queue.get("paused", False)
        case "workers":
            yield "", queue.get("workers", 0)
        case "watchers":
            yield "", queue.get("watchers", 0)
        case other:
            raise ValueError(other)


def _escape(found: re.Match[str]) -> str:
    return r"\n" if found[0] == "\n" else f"\\{found[0]}"
