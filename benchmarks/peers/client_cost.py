"""A Python program that adds or works on jobs, by the client or by the `websockets` package alone.

`python -m benchmarks.peers.client_cost client|raw add|work PORT KEY JOBS`. It says "ready" when it is connected; an
adder waits for a line then, adds all jobs, and says "done". A worker works until it is ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from bullmq_proxy.gateway.client import Queue, Worker

WINDOW: Final = 32  # adds under way
CONCURRENCY: Final = 50
DATA: Final = {"to": "ada@example.org"}
NAME: Final = "clients"


async def handle(data: Any) -> Any:
    """Do the job: nothing."""
    return {"sent": bool(data)}


async def _start() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def _client_add(url: str, key: str, jobs: int) -> None:
    numbers = iter(range(jobs))

    async def add(queue: Queue) -> None:
        for _ in numbers:
            await queue.add("welcome", DATA)

    async with Queue(NAME, url=url, key=key) as queue:
        await queue.count()
        await _start()
        await asyncio.gather(*(add(queue) for _ in range(WINDOW)))
        print("done", flush=True)


async def _client_work(url: str, key: str, _jobs: int) -> None:
    async def work(job: Any) -> Any:
        return await handle(job.data)

    worker = Worker(NAME, work, url=url, key=key, concurrency=CONCURRENCY)
    worker.on("connected", lambda: print("ready", flush=True))
    await worker.run()


async def _raw_add(url: str, key: str, jobs: int) -> None:
    async with connect(f"{url}/queue/{NAME}?token={key}", max_size=None) as socket:
        await _start()
        sent = 0
        for _ in range(min(WINDOW, jobs)):
            sent += 1
            await _send_add(socket, sent)
        for _ in range(jobs):
            reply = json.loads(await socket.recv())["data"]
            assert "ok" in reply, reply
            if sent < jobs:
                sent += 1
                await _send_add(socket, sent)
        print("done", flush=True)


async def _send_add(socket: ClientConnection, id: int) -> None:
    await socket.send(json.dumps({"id": id, "data": {"fn": "add", "args": ["welcome", DATA]}}))


async def _raw_work(url: str, key: str, _jobs: int) -> None:
    async with connect(f"{url}/queue/{NAME}/process/{CONCURRENCY}?token={key}", max_size=None) as socket:
        print("ready", flush=True)
        async with asyncio.TaskGroup() as jobs:
            async for text in socket:
                message = json.loads(text)
                if message["data"].get("type") == "process":
                    jobs.create_task(_raw_job(socket, message["id"], message["data"]["payload"]))


async def _raw_job(socket: ClientConnection, id: int, payload: Any) -> None:
    await socket.send(json.dumps({"id": id, "data": {"type": "ack"}}))
    await socket.send(json.dumps({"id": id, "data": {"result": await handle(payload)}}))


_PROGRAMS: Final = {
    ("client", "add"): _client_add,
    ("client", "work"): _client_work,
    ("raw", "add"): _raw_add,
    ("raw", "work"): _raw_work,
}

if __name__ == "__main__":
    way, task, port, key, jobs = sys.argv[1:]
    asyncio.run(_PROGRAMS[way, task](f"ws://127.0.0.1:{port}", key, int(jobs)))
