"""The console: what is served to whom, and all that is on it, in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from asyncio.subprocess import STDOUT
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.net.files import CONSOLE
from tests.net.support import get
from tests.sessions.peer import Gateway
from tests.support.browser import find_chromium
from tests.support.keys import entry, write_keys
from tests.support.node import INSTALL_TIMEOUT, find_node, installed
from tests.support.processes import ending_with_us
from tests.support.service import ROOT
from tests.support.valkey import ValkeyProcess

HERE = Path(__file__).parent
FOLDER = ROOT / "gateway" / "pages" / "console"
CHROMIUM = find_chromium()
TIMEOUT = 180.0  # s for all tests in the browser, on a machine that does much else
LONGEST_FILE = 400
BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
FLAGS = ("--experimental-websocket", "--no-warnings")  # Node 20 has its WebSocket behind the first


@pytest.fixture
async def gateway(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with a key for each permission, and one that has all of them in one queue."""
    keys = [entry(each.value, each.value) for each in Permission]
    keys.append(entry("some", *Permission, queues=["rights"]))
    async with Gateway(valkey.url, prefix=prefix, keys_file=write_keys(tmp_path / "keys.toml", *keys)) as gateway:
        yield gateway


@pytest.mark.skipif(CHROMIUM is None or find_node() is None, reason="chromium or node is missing: no console is tried")
@pytest.mark.timeout(INSTALL_TIMEOUT)
async def test_everything_on_it_works_in_a_browser(gateway: Gateway, tmp_path: Path) -> None:
    node, modules = find_node(), await asyncio.to_thread(installed, HERE)
    assert node is not None
    how = {
        "modules": str(modules),
        "program": CHROMIUM,
        "origin": f"http://127.0.0.1:{gateway.port}",
        "keys": {"all": "key-1", "some": "some", **{each.value: each.value for each in Permission}},
    }
    output = tmp_path / "output.txt"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(node, *FLAGS, str(HERE / "console.test.mjs"), json.dumps(how)),
            stdout=file,
            stderr=STDOUT,
            start_new_session=True,
            preexec_fn=ending_with_us(signal.SIGTERM),
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                code: int | None = await process.wait()
        except TimeoutError:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and its browser
            await process.wait()
    assert code == 0, output.read_text()


class TestServing:
    async def test_who_prefers_html_gets_the_console_and_all_others_text(self, gateway: Gateway) -> None:
        page = await get(gateway.port, "/", BROWSER)
        assert (page.status, page.body) == (200, (FOLDER / "index.html").read_bytes())
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for accept in (
            "",
            "Accept: */*",
            "Accept: text/plain, */*",
            "Accept: text/html;q=0.5, text/plain",
            "Accept: text/*",
        ):
            text = await get(gateway.port, "/", *[accept] if accept else [])
            assert text.body.startswith(b"bullmq-proxy "), accept
            assert (text.headers["content-type"], text.headers["vary"]) == ("text/plain;charset=utf-8", "Accept")
        again = await get(gateway.port, "/", BROWSER, f"If-None-Match: {page.headers['etag']}")
        assert (again.status, again.headers["vary"]) == (304, "Accept")

    async def test_the_page_may_load_nothing_from_elsewhere_and_stands_in_no_frame(self, gateway: Gateway) -> None:
        page = await get(gateway.port, "/", BROWSER)
        rules = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
        assert rules == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert (page.headers["referrer-policy"], page.headers["x-content-type-options"]) == ("no-referrer", "nosniff")

    async def test_its_files_are_those_of_a_table(self, gateway: Gateway) -> None:
        assert {path.name for path in FOLDER.iterdir()} == CONSOLE | {"index.html"}
        for name in CONSOLE:
            file = await get(gateway.port, f"/console/{name}")
            assert (file.status, file.body) == (200, (FOLDER / name).read_bytes())
            kind = "text/javascript" if name.endswith(".js") else "text/css"
            assert file.headers["content-type"] == f"{kind}; charset=utf-8"
        for name in ("nothing.js", "index.html", "..%2Fclient.js", "%2e%2e"):
            missing = await get(gateway.port, f"/console/{name}")
            assert missing.status == 404, name

    async def test_it_can_be_turned_off(self, valkey: ValkeyProcess, prefix: str) -> None:
        async with Gateway(valkey.url, prefix=prefix, no_console=True) as gateway:
            assert (await get(gateway.port, "/", BROWSER)).body.startswith(b"bullmq-proxy ")
            assert (await get(gateway.port, "/console/main.js")).status == 404


def test_its_files_fit_in_the_head_need_nothing_else_and_read_no_text_as_html() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= LONGEST_FILE, path.name
        assert not any(
            word in text for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
        )
        imports = [line.split('"')[-2] for line in text.splitlines() if ' from "' in line]
        assert all(name.startswith("./") or name in ("../client.js", "../client-link.js") for name in imports), (
            path.name
        )
