"""Redis killed, frozen and restarted under load; it keeps an append-only file that is synced at every write."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest

from tests.faults.clients import Producer, Worker, launch, until_counts
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]
JOBS = 300


async def under_load(running: Service, accident: Callable[[], None]) -> tuple[list[Producer], list[Worker]]:
    """Let an accident happen under load, and wait until every job is completed."""
    producers = [Producer(running.address("/queue/load"), f"p{n}", JOBS // 3) for n in range(3)]
    workers = [Worker(running.address("/queue/load/process/5", confirm="1"), hold=0.001) for _ in range(4)]
    launch(*workers)
    producing = launch(*producers)
    await eventually(lambda: sum(len(worker.stored) for worker in workers) > JOBS // 5, "the load runs", 20)
    await asyncio.to_thread(accident)
    await asyncio.wait_for(asyncio.gather(*producing), 30)
    await until_counts(running.address("/queue/load"), {"completed": JOBS, "active": 0, "waiting": 0}, 20)
    return producers, workers


async def test_a_killed_redis_loses_no_job(service: MakeService, redis_server: ValkeyProcess) -> None:
    running = service("--procs", "2", "--no-auth", "--redis-url", redis_server.url).start()

    def accident() -> None:
        redis_server.kill()
        redis_server.start()

    producers, workers = await under_load(running, accident)
    assert sum(len(producer.confirmed) for producer in producers) == JOBS
    assert not [code for worker in workers for code in worker.closes], "workers stay connected"


async def test_a_frozen_redis_is_taken_for_dead_and_found_again(
    service: MakeService, redis_server: ValkeyProcess
) -> None:
    running = service("--procs", "1", "--no-auth", "--redis-url", redis_server.url, "--redis-timeout", "1").start()

    def accident() -> None:
        redis_server.freeze()
        try:
            deadline = asyncio.run(_logged(running, "no reply for"))
            assert deadline
        finally:
            redis_server.thaw()

    await under_load(running, accident)


async def _logged(running: Service, text: str) -> bool:
    await eventually(lambda: text in running.errors, f"{text!r} is logged", 10)
    return True
