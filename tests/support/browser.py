"""A real browser for tests: Chromium without a window, and pages that say what they saw."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.processes import ending_with_us

TIMEOUT = 30.0  # s until a page has said what it saw
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage"
)


def find_chromium() -> str | None:
    """Return the program, where there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Pages:
    """Serves one page under all names of this machine; each origin says once what its script returned."""

    def __init__(self, script: str = "") -> None:
        """Make one; `script` is the body of an asynchronous function, and may be changed before a page is shown."""
        self.script = script
        self._seen: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._server: asyncio.Server
        self._serving: set[asyncio.Task[Any]] = set()
        self.port = 0

    async def __aenter__(self) -> Pages:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(*self._serving)

    async def seen(self, count: int) -> dict[str, Any]:
        """Return what the scripts of so many origins have returned, by the name of the host."""
        async with asyncio.timeout(TIMEOUT):
            return dict([await self._seen.get() for _ in range(count)])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # browsers open connections that they never use
            await self._answer(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        self._serving.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        body = ""
        if head.startswith("post /seen "):
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            self._seen.put_nowait(tuple(json.loads(await reader.readexactly(length))))
        elif head.startswith("get / "):
            body = (
                "<!doctype html><meta charset=utf-8><script type=module>"
                f"const seen = await (async () => {{{self.script}}})();"
                "await fetch('/seen', {method: 'POST', body: JSON.stringify([location.hostname, seen])});</script>"
            )
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body.encode())}\r\n"
            f"Connection: close\r\n\r\n{body}".encode()
        )


@asynccontextmanager
async def browsing(program: str, url: str, profile: Path, *flags: str) -> AsyncIterator[None]:
    """Show a page for as long as the block takes."""
    browser = await asyncio.create_subprocess_exec(
        program,
        *_FLAGS.split(),
        *flags,
        f"--user-data-dir={profile}",
        url,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
        start_new_session=True,
        preexec_fn=ending_with_us(signal.SIGKILL),
    )
    try:
        yield
    finally:
        browser.terminate()
        await browser.wait()
