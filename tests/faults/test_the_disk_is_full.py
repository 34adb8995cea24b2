"""The disk of the embedded Valkey is full: nothing more is taken, that is said, and it goes on when there is room."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.faults.clients import ask, dial, until_counts
from tests.support.service import Service
from tests.support.waiting import TIMEOUT, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system in a namespace")

_PRIVATE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
_SMALL = [*_PRIVATE, "sh", "-c", 'mount -t tmpfs -o size=4m,mode=700 tmpfs "$0" && exec "$@"']
_LARGE = "x" * 16_000


async def test_it_is_said_and_all_goes_on_when_there_is_room_again(
    service: Callable[..., Service], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o700)
    launcher = [*_SMALL, str(disk)]
    if await (await asyncio.create_subprocess_exec(*launcher, "true", stderr=asyncio.subprocess.DEVNULL)).wait():
        pytest.skip("the disk cannot be full: this process may not mount one")
    running = service("--procs", "1", "--data-dir", str(disk), launcher=launcher).start()
    room = Path(f"/proc/{running.pid}/root{disk}")
    queue = await dial(running.address("/queue/q"))
    await ask(queue, "add", "held")
    worker = await dial(running.address("/queue/q/process/1", confirm="1"))
    job = json.loads(await worker.recv())

    with (room / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while ballast.write(bytes(4096)):
            pass
    confirmed = 1
    while "ok" in (reply := await _add(queue, confirmed)):
        confirmed += 1
    assert reply["err"]["code"] == "REDIS_UNAVAILABLE"
    assert "No space left on device" in reply["err"]["message"]
    status, text = await asyncio.to_thread(_ready, running.port)
    assert status == 503
    assert "No space left on device" in text
    await worker.send(json.dumps({"id": job["id"], "data": {"result": 1}}))
    await eventually(lambda: "No space left on device" in running.errors, "the log says so")

    (room / "ballast").unlink()

    assert json.loads(await worker.recv())["data"]["type"] == "finished"
    assert "ok" in await _add(queue, confirmed)
    assert (await asyncio.to_thread(_ready, running.port))[0] == 200
    [server] = running.servers()
    os.kill(server, signal.SIGKILL)
    wanted = {"completed": 1, "active": 1, "waiting": confirmed - 1}
    await until_counts(running.address("/queue/q"), wanted, TIMEOUT)


async def _add(queue: ClientConnection, number: int) -> dict[str, Any]:
    await queue.send(json.dumps({"id": number, "data": {"fn": "add", "args": ["job", _LARGE]}}))
    data: dict[str, Any] = json.loads(await queue.recv())["data"]
    return data


def _ready(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
