"""A small TCP server that speaks Redis protocol as badly as a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis

Command = list[bytes]
Reply = Callable[[Command], bytes | None]
"""What to answer to a command; None closes the connection without an answer."""

OK = b"+OK\r\n"


class MisbehavingServer:
    """Answers the login politely, and everything else as `reply` says."""

    def __init__(self, reply: Reply, login: Reply = lambda command: OK) -> None:
        self.reply = reply
        self.commands: list[Command] = []
        """What came after the login, on all connections."""
        self.chunks: list[bytes] = []
        """The same as it was read from the sockets."""
        self.accepted = 0
        self.open: set[asyncio.Transport] = set()
        self._login = login
        self._server: asyncio.Server
        self.port = 0

    async def __aenter__(self) -> MisbehavingServer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for transport in list(self.open):
            transport.abort()
        await self._server.wait_closed()

    def answer(self, command: Command) -> bytes | None:
        if command[0] in (b"AUTH", b"SELECT", b"PING", b"HELLO", b"ROLE", b"CLIENT"):
            return self._login(command)
        self.commands.append(command)
        return self.reply(command)


class _Client(asyncio.Protocol):
    def __init__(self, server: MisbehavingServer) -> None:
        self._server = server
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._server.accepted += 1
        self._server.open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._server.chunks.append(data)
        self._reader.feed(data)
        while (command := self._reader.gets()) is not False:
            answer = self._server.answer(command)
            if answer is None:
                self._transport.close()
                return
            self._transport.write(answer)
