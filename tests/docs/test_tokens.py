"""The page of docs/tokens.md, in a real browser: its tokens expire, and it goes on with fresh ones."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bullmq_proxy.gateway import start_proxy
from tests.docs.markdown import section
from tests.net.support import RawClient
from tests.support.browser import browsing, find_chromium
from tests.support.ports import free_port
from tests.support.service import ROOT
from tests.support.valkey import ValkeyProcess

PAGE = ROOT / "docs" / "tokens.md"
CHROMIUM = find_chromium()
SOON = 30.0
"""Seconds, for a browser on a machine that does much else."""


def write_example(folder: Path, **replaced: str) -> None:
    """Write the files of the example, and run the script that makes the keys."""
    example = section(PAGE, "A page without a fixed secret")
    make_keys, app = (text for language, text in example.blocks if language == "python")
    page = example.block("html")
    for old, new in replaced.items():
        app, page = app.replace(old.strip("_"), new), page.replace(old.strip("_"), new)
    (folder / "app.py").write_text(app)
    (folder / "index.html").write_text(page)
    subprocess.run([sys.executable, "-c", make_keys], cwd=folder, check=True)


@contextmanager
def serving(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the server of the example; it says on stderr what it is asked for."""
    app = subprocess.Popen([sys.executable, "app.py"], cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        yield app
    finally:
        app.kill()
        app.communicate()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: the page of the tokens is not tried")
async def test_a_page_whose_token_expires_goes_on_with_a_fresh_one(
    valkey: ValkeyProcess, prefix: str, tmp_path: Path
) -> None:
    assert CHROMIUM is not None
    port, of_app = free_port(), free_port()
    write_example(tmp_path, _8080=str(port), _8000=str(of_app), **{"now + 300": "now + 3", "60_000": "50"})
    settings = {
        "token_keys": str(tmp_path / "tokens.json"),
        "token_issuer": "https://app.example.org/",
        "token_audience": "bullmq-proxy",
        "token_leeway": 0,
        "allowed_origins": (f"http://127.0.0.1:{of_app}",),
    }
    gateway = start_proxy(valkey.url, "key-1", port=port, prefix=prefix, drain_timeout=0.0, **settings)
    async with gateway:
        with serving(tmp_path) as app:
            assert app.stderr is not None
            async with browsing(CHROMIUM, f"http://127.0.0.1:{of_app}/", tmp_path / "profile"), asyncio.timeout(SOON):
                await asyncio.to_thread(until_asked, app, 2)  # one for each connection
                async with await RawClient.connect(port) as client:
                    before = await connections(client)
                    while len(before) < 2:
                        before = await connections(client)
                    expired = time.time() + 3
                    while time.time() < expired:
                        await asyncio.to_thread(until_asked, app, 1)  # they are asked for again meanwhile
                    count = (await ask(client, "/queue/greetings/count"))["ok"]
                    while (await ask(client, "/queue/greetings/count"))["ok"] < count + 10:
                        pass
                    assert await connections(client) == before
        assert {key for _, key in before} == {"jwt/ada"}


def until_asked(app: subprocess.Popen[str], count: int) -> None:
    """Wait until the server was asked for so many more tokens."""
    assert app.stderr is not None
    for line in app.stderr:
        count -= "POST /token" in line
        if not count:
            return


async def ask(client: RawClient, path: str) -> dict[str, int]:
    found: dict[str, int] = json.loads((await client.fetch("GET", path)).body)
    return found


async def connections(client: RawClient) -> set[tuple[str, str]]:
    """Return the ids and keys of the page's connections."""
    answer = json.loads((await client.fetch("GET", "/connections")).body)
    return {(each["id"], each["key"]) for each in answer["ok"]["connections"] if each["kind"] != "http"}
