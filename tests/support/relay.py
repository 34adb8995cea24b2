"""A TCP relay in front of a server, which loses, holds back, delays, drops or adds what passes, at the worst moment."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

_CHUNK = 65536
_TLS_BEGINS = b"\x16"  # the first byte of a handshake


class Server(Protocol):
    """What a relay can stand before."""

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...


class Port:
    """A server on a port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)


class Relay:
    """Passes bytes on both ways, until it is told to cut."""

    def __init__(self, before: Server, tls: ssl.SSLContext | None = None) -> None:
        """Stand before a server; with `tls` those who begin with a handshake are served over TLS."""
        self._before = before
        self._tls = tls
        self._cut_at: bytes | None = None
        self._hold_at: bytes | None = None
        self._lost: bytes | None = None
        self._going_on = asyncio.Event()
        self._passing = asyncio.Event()
        self._passing.set()
        self._refusing = False
        self._open: set[asyncio.StreamWriter] = set()
        self._last: dict[asyncio.StreamWriter, bytes] = {}  # what each client has sent last, by the way back to it
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.cut = asyncio.Event()
        """Set once a reply has been lost."""
        self.held = asyncio.Event()
        """Set once a command is held back."""
        self.port = 0
        self.delay = 0.0
        """Seconds that what is sent is under way, each way; twice that at most."""

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
        self.go_on()
        self.hang_up()
        while self._serving:  # those that end TLS have begun others
            self.hang_up()
            await asyncio.wait(self._serving, timeout=0.05)
            await asyncio.sleep(0)  # aborted sockets are closed in the next turn of the loop
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

    def silence(self) -> None:
        """Let nothing arrive, nor the news that an end was closed, as where packets are dropped, until `go_on`."""
        self._passing.clear()

    def go_on(self) -> None:
        """Let arrive what was sent meanwhile, as packets do that are sent again."""
        self._passing.set()

    def say(self, choose: Callable[[bytes], bytes]) -> None:
        """Say to each client what the server has not said; `choose` takes what the client has sent last."""
        for writer, last in self._last.items():
            writer.write(choose(last))

    def hang_up(self) -> None:
        """End all connections, as a cut cable does, but at once."""
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        if self._tls is not None:
            first = await self._read(reader)
            if reader.at_eof():  # who has gone already
                writer.transport.abort()
                return
            reader.feed_data(first)
            if first.startswith(_TLS_BEGINS):
                await self._end_tls(self._tls, reader, writer)
                return
        try:
            server_reader, server_writer = await self._before.stream()
        except OSError:  # the server is away
            writer.transport.abort()
            return
        self._open |= {writer, server_writer}
        self._last[writer] = b""
        try:
            await asyncio.gather(self._forward(reader, server_writer, writer), self._back(server_reader, writer))
        finally:
            del self._last[writer]
            for end in (writer, server_writer):
                self._open.discard(end)
                end.transport.abort()

    async def _end_tls(
        self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on without TLS, by a further connection to this relay, what comes with it.

        Not by asyncio, which closes a connection that is refused without the alert that says why.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)

        async def done(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    pass
                finally:
                    await _write(writer, outgoing.read())
                if not (data := await self._read(reader)):
                    raise EOFError
                incoming.write(data)

        self._open.add(writer)
        ends = [writer]
        try:
            await done(tls.do_handshake)
            plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", self.port)
            ends.append(plain_writer)

            async def forward() -> None:
                with suppress(EOFError):
                    while data := await done(partial(tls.read, _CHUNK)):
                        await _write(plain_writer, data)
                plain_writer.close()

            async def back() -> None:
                while data := await plain_reader.read(_CHUNK):
                    tls.write(data)
                    await _write(writer, outgoing.read())
                writer.close()

            await asyncio.gather(forward(), back())
        except EOFError:
            pass
        except ssl.SSLError:
            writer.write_eof()
            while await self._read(reader):  # else the system resets the connection, and the alert is lost
                pass
        finally:
            self._open.discard(writer)
            for end in ends:
                end.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        while data := await self._read(reader):
            if self._cut_at is not None and self._cut_at in data:
                self._cut_at = None
                self._refusing = True
            if self._hold_at is not None and self._hold_at in data:
                self._hold_at = None
                self.held.set()
                await self._going_on.wait()
            self._last[back] = data
            await _write(writer, data)
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._read(reader):
            if self._refusing or (self._lost is not None and self._lost in data):
                self._lost = None
                self.hang_up()
                self.cut.set()
                return
            await _write(writer, data)
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        """Return what an end has sent, when it has arrived here; nothing when that end is closed."""
        data = b""
        with suppress(OSError):
            data = await reader.read(_CHUNK)
        await self._passing.wait()
        if self.delay:
            await asyncio.sleep(self.delay)
        return data


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(OSError):  # then the end of what it sends is read, too
        writer.write(data)
        await writer.drain()


class RelayThread:
    """Relays in a thread with a loop of its own, which pass on while a test's own loop stands still; a context."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Make it; `tls` is that of its relays."""
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._relays: list[Relay] = []

    def __enter__(self) -> RelayThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for relay in self._relays:
            asyncio.run_coroutine_threadsafe(relay.__aexit__(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def before(self, server: Server) -> Relay:
        """Return a relay that stands before a server."""
        relay = Relay(server, self._tls)
        asyncio.run_coroutine_threadsafe(relay.__aenter__(), self._loop).result()
        self._relays.append(relay)
        return relay

    def tell(self, told: Callable[..., Any], *args: Any) -> None:
        """Call a method of a relay in its thread, soon."""
        self._loop.call_soon_threadsafe(told, *args)
