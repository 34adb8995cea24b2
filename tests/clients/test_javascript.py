"""The JavaScript client: its own tests run in Node, and the gateway serves it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import KEY
from tests.net.support import fetch, get
from tests.sessions.peer import Gateway
from tests.support.node import find_node
from tests.support.service import ROOT, Service
from tests.support.valkey import ValkeyProcess

HERE = Path(__file__).parent
PAGES = ROOT / "gateway" / "pages"
MODULES = ["client.js", "client-link.js", "client-queue.js", "client-worker.js"]
LONGEST_FILE = 400
FLAGS = ("--experimental-websocket", "--no-warnings")  # Node 20 has its WebSocket behind the first


@pytest.mark.skipif(find_node() is None, reason="node is missing: the tests of the JavaScript client are left out")
async def test_its_own_tests_pass(proxy: Gateway) -> None:
    node = find_node()
    assert node is not None
    command = [node, *FLAGS, str(HERE / "javascript.test.mjs"), str(proxy.port), KEY]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(50):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()


@pytest.mark.skipif(find_node() is None or sys.platform != "linux", reason="needs node, and /proc")
def test_when_a_shard_is_killed_no_job_is_lost_and_nobody_hangs(
    service: Callable[..., Service], valkey: ValkeyProcess, prefix: str
) -> None:
    running = service("--procs", "2", "--redis-url", valkey.url, "--prefix", prefix, env={"AUTH_KEYS": KEY}).start()
    client, port = str(PAGES / "client.js"), str(running.port)
    command: list[str] = [find_node() or "", *FLAGS, str(HERE / "load.mjs"), client, port, KEY, "400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            os.kill(running.shards()[0], signal.SIGKILL)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    seen = json.loads(output.splitlines()[-1])
    assert [seen[name] for name in ("added", "ended", "handled", "error")] == [400, 400, 400, 0], output


@pytest.mark.parametrize("name", [*MODULES, "client.d.ts"])
async def test_the_gateway_serves_it(proxy: Gateway, name: str) -> None:
    page = await get(proxy.port, f"/{name}")
    assert (page.status, page.body) == (200, (PAGES / name).read_bytes())
    assert page.headers["content-type"].startswith("text/javascript" if name.endswith(".js") else "text/plain")
    assert page.headers["cache-control"] == "no-cache"
    head = await fetch(proxy.port, f"HEAD /{name} HTTP/1.1\r\nHost: gateway\r\n\r\n")
    assert (head.status, head.body, head.headers["etag"]) == (200, b"", page.headers["etag"])
    for known in (page.headers["etag"], f'"x", W/{page.headers["etag"]}'):
        again = await get(proxy.port, f"/{name}", f"If-None-Match: {known}")
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", page.headers["etag"])
    assert (await get(proxy.port, f"/{name}", 'If-None-Match: "x"')).status == 200


def test_its_files_fit_in_the_head_and_need_nothing_else() -> None:
    for name in MODULES:
        text = (PAGES / name).read_text()
        assert text.count("\n") <= LONGEST_FILE
        assert all(line.split('"')[-2].startswith("./client-") for line in text.splitlines() if ' from "' in line)
