"""The Python client, as the conformance kit starts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from bullmq_proxy.gateway.client import ProxyError, Queue, QueueEvents, Worker, WorkerJob


def key() -> str:
    file = os.environ.get("BULLMQ_KEY_FILE")
    return Path(file).read_text() if file else os.environ["BULLMQ_KEY"]


HERE: dict[str, Any] = {"url": os.environ["BULLMQ_URL"], "key": key if "BULLMQ_KEY_FILE" in os.environ else key()}
QUEUE = os.environ["BULLMQ_QUEUE"]


async def handle(job: WorkerJob) -> Any:
    await asyncio.sleep(job.data.get("wait", 0) / 1000)
    if "fail" in job.data:
        raise RuntimeError(job.data["fail"])
    return job.data


async def work() -> None:
    running = asyncio.ensure_future(Worker(QUEUE, handle, **HERE, concurrency=10).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        return


async def produce() -> None:
    async with Queue(QUEUE, **HERE) as queue:
        for line in sys.stdin:
            call = json.loads(line)
            try:
                result = await getattr(queue, call["fn"])(*call.get("args", ()))
                print(json.dumps({"ok": {"id": result.id} if hasattr(result, "id") else result}), flush=True)
            except ProxyError as error:
                if queue.isClosed:
                    raise
                print(json.dumps({"err": {"code": error.code, "message": str(error)}}), flush=True)


async def watch() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit)
    async with QueueEvents(QUEUE, **HERE) as events:
        async for event in events:
            args = [event.fields] if event.fields else []
            print(json.dumps({"event": event.name, "args": [*args, event.id] if event.id else args}), flush=True)


try:
    asyncio.run({"worker": work, "producer": produce, "watcher": watch}[os.environ["BULLMQ_ROLE"]]())
except ProxyError as error:
    raise SystemExit(f"{error.code}: {error}") from None
