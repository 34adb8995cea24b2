"""TERM under load, and kill -9 of the supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bullmq_proxy.supervisor.fleet import SAME_REQUEST
from tests.faults.clients import Producer, Worker, ask, counts, dial, launch
from tests.support.service import Service, lives
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]
STOPPED = {1001, 1012}


async def test_jobs_in_hand_are_answered_and_every_socket_is_told(service: MakeService, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    running = service("--procs", "2", "--data-dir", data).start()
    watcher = await dial(running.address("/queue/load/events"))
    producer = Producer(running.address("/queue/load"), "p", 100_000)
    workers = [Worker(running.address("/queue/load/process/3", confirm="1"), hold=0.005) for _ in range(4)]
    launch(*workers)
    launch(producer)
    await eventually(lambda: all(len(worker.stored) > 10 for worker in workers), "the load runs", 20)
    processes = [*running.shards(), *running.servers()]

    running.signal(signal.SIGTERM)

    assert await asyncio.to_thread(running.wait) == 0
    async for _ in watcher:
        pass
    await eventually(lambda: all(worker.closes for worker in workers) and bool(producer.closes), "closed", 5)
    assert watcher.close_code in STOPPED
    assert {code for worker in workers for code in worker.closes[:1]} <= STOPPED
    assert producer.closes[0] in STOPPED
    assert not [pid for pid in processes if lives(pid)]

    again = service("--procs", "1", "--data-dir", data).start()
    left = await counts(again.address("/queue/load"))
    answered = set().union(*(worker.stored for worker in workers))
    assert left["active"] == left["failed"] == 0
    assert left["completed"] == len(answered)
    assert left["completed"] + left["waiting"] >= len(producer.confirmed)


async def test_it_can_serve_on_while_it_says_that_it_is_not_ready(service: MakeService) -> None:
    running = service("--procs", "2", "--shutdown-delay", "60").start()
    running.signal(signal.SIGTERM)
    await eventually(lambda: status_of(running, "/ready") == 503, "it says so")
    heard = time.monotonic()
    assert status_of(running, "/health") == 200
    assert await ask(await dial(running.address("/queue/q")), "count") == 0
    await eventually(lambda: time.monotonic() - heard > SAME_REQUEST, "the next one is no echo")
    running.signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.wait) == 0


def status_of(running: Service, path: str) -> int:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return int(client.recv(100).split()[1])


async def test_a_job_that_is_not_answered_in_time_is_given_back(service: MakeService, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    running = service("--procs", "1", "--data-dir", data, "--drain-timeout", "0.5").start()
    async with await dial(running.address("/queue/slow")) as socket:
        await ask(socket, "add", "job", {"n": 1})
    worker = await dial(running.address("/queue/slow/process/1"))
    await worker.recv()

    running.signal(signal.SIGTERM)

    assert json.loads(await worker.recv())["data"]["type"] == "drain"
    assert await asyncio.to_thread(running.wait) == 0
    again = service("--procs", "1", "--data-dir", data).start()
    async with await dial(again.address("/queue/slow")) as socket:
        [job] = await ask(socket, "getWaiting")
        assert (job["attemptsMade"], job["stalledCounter"]) == (0, 0)
        assert (await ask(socket, "getJobCounts"))["active"] == 0


async def test_a_killed_supervisor_is_outlived_by_the_drain_alone_even_of_shards_that_were_stopped(
    service: MakeService, tmp_path: Path
) -> None:
    data = str(tmp_path / "data")
    running = service("--procs", "2", "--data-dir", data).start()
    async with await dial(running.address("/queue/kept")) as socket:
        for n in range(20):
            await ask(socket, "add", "job", {"n": n})
    worker = await dial(running.address("/queue/kept/process/1", confirm="1"))
    job = json.loads(await worker.recv())
    processes = [*running.shards(), *running.servers()]
    for pid in running.shards():
        os.kill(pid, signal.SIGSTOP)

    os.kill(running.pid, signal.SIGKILL)

    assert json.loads(await worker.recv())["data"]["type"] == "drain"
    await worker.send(json.dumps({"id": job["id"], "data": {"result": 1}}))
    assert json.loads(await worker.recv())["data"]["type"] == "finished"
    await eventually(lambda: not [pid for pid in processes if lives(pid)], "no orphans", 10)
    again = service("--procs", "1", "--data-dir", data).start()
    left = await counts(again.address("/queue/kept"))
    assert (left["waiting"], left["completed"]) == (19, 1)


@pytest.mark.parametrize(("stopped", "code"), [(False, 1), (True, -signal.SIGKILL)], ids=["spins", "is stopped"])
def test_a_shard_that_does_nothing_more_ends_when_its_supervisor_has_died(stopped: bool, code: int) -> None:
    ours, theirs = socket.socketpair()
    spin = (
        "import socket, sys, threading; from bullmq_proxy.gateway.shard_process import end_with_supervisor;"
        "end_with_supervisor(socket.socket(fileno=int(sys.argv[1])), 0.2); print('spins', flush=True)\n"
        "while threading.active_count() > 1: pass\n"
        "print('is orphaned', flush=True)\n"
        "while True: pass"
    )
    with subprocess.Popen(
        [sys.executable, "-c", spin, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as shard:
        theirs.close()
        assert shard.stdout is not None
        assert shard.stdout.readline() == "spins\n"
        assert shard.poll() is None
        ours.close()
        assert shard.stdout.readline() == "is orphaned\n"
        if stopped:
            shard.send_signal(signal.SIGSTOP)
        try:
            _, errors = shard.communicate(timeout=10)
        finally:
            shard.kill()
    assert shard.returncode == code
    assert stopped or "Timeout" in errors


async def test_a_new_service_need_not_wait_for_the_drain_of_one_whose_supervisor_was_killed(
    service: MakeService, tmp_path: Path
) -> None:
    data = str(tmp_path / "data")
    running = service("--procs", "1", "--data-dir", data).start()
    async with await dial(running.address("/queue/kept")) as socket:
        await ask(socket, "add", "job")
    worker = await dial(running.address("/queue/kept/process/1", confirm="1"))
    job = json.loads(await worker.recv())
    os.kill(running.pid, signal.SIGKILL)
    assert json.loads(await worker.recv())["data"]["type"] == "drain"
    assert running.wait() == -signal.SIGKILL
    again = service("--procs", "1", "--data-dir", data).start()
    await worker.send(json.dumps({"id": job["id"], "data": {"result": 1}}))
    assert json.loads(await worker.recv())["data"]["type"] == "finished"
    assert (await counts(again.address("/queue/kept")))["completed"] == 1
