"""The commands for daily work, as processes, on a gateway in this one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sessions.peer import Gateway
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

Ran = tuple[int, str, str]


@pytest.fixture
async def gateway(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    keys = write_keys(tmp_path / "keys.toml", entry("shop", "produce", "observe", queues=["mails"]))
    async with Gateway(valkey.url, prefix=prefix, keys_file=keys) as gateway:
        yield gateway


async def started(gateway: Gateway, *words: str, key: str = "key-1") -> asyncio.subprocess.Process:
    environment = {**os.environ, "BULLMQ_URL": f"http://127.0.0.1:{gateway.port}", "BULLMQ_KEY": key}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bullmq_proxy.supervisor", *words),
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def ran(gateway: Gateway, *words: str, key: str = "key-1") -> Ran:
    process = await started(gateway, *words, key=key)
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def test_a_day(gateway: Gateway) -> None:
    watching = await started(gateway, "watch", "mails", "--events", "added")
    await (await gateway.queue("other")).call("add", "job", {})

    async def is_watched() -> bool:
        _, output, _ = await ran(gateway, "queues", "--json")
        rows = {row["name"]: row for row in json.loads(output)}
        return bool(rows.get("mails", {}).get("watchers"))

    added = await ran(gateway, "add", "mails", "welcome", '{"to": "Ädä"}', "--opts", '{"delay": 60000}')
    assert added == (0, "1\n", "")
    while not await is_watched():
        pass
    assert await ran(gateway, "add", "mails", "later", "just text") == (0, "2\n", "")
    assert watching.stdout is not None
    assert json.loads(await watching.stdout.readline())["event"] == "added"
    code, output, _ = await ran(gateway, "call", "mails", "getJob", '"1"')
    assert (code, json.loads(output)["data"]) == (0, {"to": "Ädä"})
    code, output, _ = await ran(gateway, "call", "mails", "getJobs", '["waiting"]')
    assert [job["data"] for job in json.loads(output)] == ["just text"]
    code, output, _ = await ran(gateway, "queues")
    heads, *rows = (line.split() for line in output.splitlines())
    assert dict(zip(heads, rows[0], strict=False)).items() >= {"queue": "mails", "waiting": "1", "delayed": "1"}.items()
    assert [row[0] for row in rows] == ["mails", "other"]
    code, output, _ = await ran(gateway, "connections", "--queue", "mails")
    assert [line.split()[1] for line in output.splitlines()] == ["kind", "events"]
    watching.send_signal(signal.SIGINT)
    _, errors = await watching.communicate()
    assert (watching.returncode, errors) == (0, b"")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("call", "mails", "nonsense"), 1, "UNKNOWN_FUNCTION: Unknown function `nonsense`"),
        (("add", "mails", "job", "{}", "--opts", "[]"), 2, "expected a JSON object"),
        (("queues", "--key", "wrong"), 1, "UNAUTHORIZED"),
        (("queues", "--url", "what"), 2, "expected a URL such as http://127.0.0.1:8080, got 'what'"),
        (("queues", "--url", "http://127.0.0.1:1"), 1, "no reply from 127.0.0.1:1: Connection refused"),
        (("watch", "mails", "--key", "wrong"), 1, "UNAUTHORIZED"),
        (("connections", "--key", "shop"), 1, "FORBIDDEN"),
        (("watch", "other", "--key", "shop"), 1, "FORBIDDEN"),
    ],
)
async def test_what_does_not_work_is_one_line(gateway: Gateway, words: tuple[str, ...], code: int, told: str) -> None:
    result, output, errors = await ran(gateway, *words)
    assert (result, output) == (code, "")
    assert told in errors
    assert errors.startswith("bullmq-proxy: error: ")
    assert errors.count("\n") == 1


async def test_status_and_top_show_the_shards(gateway: Gateway) -> None:
    await (await gateway.queue("mails")).call("add", "job", {})
    code, output, errors = await ran(gateway, "status")
    first, heads, row = output.splitlines()
    assert (code, errors, first.endswith(", ready")) == (0, "", True)
    assert (heads.split()[0], row.split()[0], row.split()[-1]) == ("shard", "0", "up")
    code, output, _ = await ran(gateway, "status", "--json")
    found = json.loads(output)
    assert (code, found["ready"], found["shards"]["0"]["calls_total"]) == (0, True, 1)
    code, output, errors = await ran(gateway, "top", "--every", "0.1", "--rounds", "2")
    assert (code, errors, output.count("0/s")) == (0, "", 10)
