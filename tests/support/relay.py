"""A TCP relay in front of a server, which can lose a reply or hold a command back at the worst moment."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol


class Server(Protocol):
    """What a relay can stand before."""

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...


class Relay:
    """Passes bytes on both ways, until it is told to cut."""

    def __init__(self, before: Server) -> None:
        """Stand before a server."""
        self._before = before
        self._cut_at: bytes | None = None
        self._hold_at: bytes | None = None
        self._lost: bytes | None = None
        self._going_on = asyncio.Event()
        self._refusing = False
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.cut = asyncio.Event()
        """Set once a reply has been lost."""
        self.held = asyncio.Event()
        """Set once a command is held back."""
        self.port = 0

    @property
    def url(self) -> str:
        """For --redis-url."""
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.let_go()
        self.hang_up()
        if self._serving:
            await asyncio.wait(self._serving)
        await self._server.wait_closed()

    def cut_after(self, text: bytes) -> None:
        """Pass the next command that holds `text` on, lose its reply and all connections, and refuse new ones."""
        self._cut_at = text

    def lose(self, text: bytes) -> None:
        """Lose the next reply that holds `text`, with all connections; new ones are let through."""
        self._lost = text

    def hold_at(self, text: bytes) -> None:
        """Hold back the next command that holds `text`, and what its connection sends after it, until `let_go`."""
        self._hold_at = text
        self._going_on.clear()

    def let_go(self) -> None:
        """Pass on what was held back."""
        self._going_on.set()

    def refuse(self) -> None:
        """End all connections, and refuse new ones until `mend`."""
        self._refusing = True
        self.hang_up()

    def mend(self) -> None:
        """Let connections through again."""
        self._refusing = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        server_reader, server_writer = await self._before.stream()
        self._open |= {writer, server_writer}
        try:
            await asyncio.gather(self._forward(reader, server_writer), self._back(server_reader, writer))
        finally:
            for end in (writer, server_writer):
                self._open.discard(end)
                end.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                cut = self._cut_at is not None and self._cut_at in data
                if cut:
                    self._cut_at = None
                    self._refusing = True
                if self._hold_at is not None and self._hold_at in data:
                    self._hold_at = None
                    self.held.set()
                    await self._going_on.wait()
                writer.write(data)
                await writer.drain()
            writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self._refusing or (self._lost is not None and self._lost in data):
                    self._lost = None
                    self.hang_up()
                    self.cut.set()
                    return
                writer.write(data)
                await writer.drain()
            writer.close()

    def hang_up(self) -> None:
        """End all connections, as a cut cable does, but at once."""
        for writer in self._open:
            writer.transport.abort()
