"""A load on one queue, as load.mjs: `python -m tests.clients.load PORTS KEY JOBS`."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import sys
from pathlib import Path
from typing import Any, Final

from bullmq_proxy.gateway.client import Queue, Worker, WorkerJob

AT_ONCE: Final = 200  # adds, each with the wait for its end
PARTS: Final = 5
"""Into so many parts the jobs are divided: after each of them the memory is looked at."""


async def main(ports: list[str], key: str, jobs: int) -> None:
    """Add jobs, work on them, and print what was seen."""
    handled, ended = (
        bytearray(jobs),
        bytearray(jobs),
    )  # how often each was; no more memory is needed later than at first
    memory: list[int] = []  # bytes, after each fifth of the jobs
    said = dict.fromkeys(("lost", "cancelled", "failed", "error"), 0)
    completed = 0

    async def work(job: WorkerJob) -> Any:
        handled[job.data["n"]] += 1
        await asyncio.sleep(random.random() / 200)  # the job's work
        return job.data

    def one_more(*_: Any) -> None:
        nonlocal completed
        completed += 1
        if completed == -(-jobs // 20):
            print("running", flush=True)
        if completed % max(1, jobs // PARTS) == 0:
            gc.collect()
            memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())

    def count(name: str) -> None:
        said[name] += 1

    def at(n: int) -> str:
        return f"ws://127.0.0.1:{ports[n % len(ports)]}"

    workers = [Worker("load", work, url=at(n), key=key, concurrency=20) for n in range(4)]
    for worker in workers:
        worker.on("completed", one_more)
        for name in said:
            worker.on(name, lambda *_, name=name: count(name))
        worker.start()
    numbers = iter(range(jobs))
    async with Queue("load", url=at(0), key=key) as queue:

        async def add() -> None:
            for n in numbers:
                job = await queue.add("x", {"n": n}, {"jobId": f"j{n}"})
                ended[(await job.waitUntilFinished())["n"]] = 1

        await asyncio.gather(*(add() for _ in range(AT_ONCE)))
        await asyncio.gather(*(worker.close() for worker in workers))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    twice = sum(runs > 1 for runs in handled)
    seen = {"added": jobs, "ended": sum(ended), "handled": jobs - handled.count(0), "twice": twice, "most": most}
    print(json.dumps({**seen, "memory": memory[:PARTS], **said}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1].split(","), sys.argv[2], int(sys.argv[3])))
