"""Clients of all habits: those that go on, and those that vanish, dawdle, answer twice, late or for others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.faults.clients import dial

HABITS = ("good", "good", "vanishing", "slow", "twice", "late", "meddling", "failing")
_ODDS = 0.03  # of each job, that a client does what it does not do always


class Notes(Protocol):
    """What a worker tells of."""

    def pushed(self, id: str, start: int) -> None: ...

    def finished(self, id: str, start: int) -> None: ...

    def lost(self) -> None: ...


class Worker:
    """One worker that reconnects for ever."""

    def __init__(self, address: Callable[[], str], notes: Notes, random: Random, habit: str) -> None:
        """Make one.

        Args:
            address: returns where to connect the next time.
            notes: takes what comes.
            random: decides when the habit shows.
            habit: one of `HABITS`.
        """
        self._address = address
        self._notes = notes
        self._random = random
        self._habit = habit
        self._late: list[dict[str, Any]] = []  # answers to jobs of the connection before

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            async with await dial(self._address()) as socket:
                with suppress(ConnectionClosed):
                    await self._work(socket)

    async def _work(self, socket: ClientConnection) -> None:
        starts: dict[str, int] = {}
        for answer in self._late:
            await _send(socket, answer)
        self._late.clear()
        async for text in socket:
            message = json.loads(text)
            match message["data"]:
                case {"type": "process", "job": {"id": str(id), "attemptsStarted": int(start)}}:
                    starts[id] = start
                    self._notes.pushed(id, start)
                    await self._handle(socket, message["id"])
                case {"type": "finished", "state": "completed", "jobId": str(id)}:
                    self._notes.finished(id, starts[id])
                case {"type": "lost"}:
                    self._notes.lost()

    async def _handle(self, socket: ClientConnection, id: int) -> None:
        answer: dict[str, Any] = {"id": id, "data": {"result": 1}}
        match self._habit if self._random.random() < _ODDS else "":
            case "vanishing":
                socket.transport.abort()
            case "late":
                self._late.append(answer)
                socket.transport.abort()
            case "slow":
                await asyncio.sleep(1)
                await _send(socket, answer)
            case "failing":
                await _send(socket, answer | {"data": {"err": "no"}})
            case "meddling":
                await _send(socket, {"id": id + 1000, "data": {"result": 2}}, answer)
            case "twice":
                await _send(socket, answer, answer)
            case _:
                await _send(socket, answer)


async def _send(socket: ClientConnection, *messages: dict[str, Any]) -> None:
    for message in messages:
        await socket.send(json.dumps(message))


class Watcher:
    """Hears of completed jobs for ever, and resumes where its last connection ended."""

    def __init__(self, address: Callable[[], str], heard: Callable[[str], None], gap: Callable[[], None]) -> None:
        """Make one.

        Args:
            address: returns where to connect the next time, with a query.
            heard: takes the id of each job that was completed.
            gap: is called when the gateway says that events are missing.
        """
        self._address = address
        self._heard = heard
        self._gap = gap
        self._last = "0-0"

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            async with await dial(f"{self._address()}&lastEventId={self._last}") as socket:
                with suppress(ConnectionClosed):
                    async for text in socket:
                        self._take(json.loads(text)["data"])

    def _take(self, data: dict[str, Any]) -> None:
        match data:
            case {"event": "completed", "args": [{"jobId": str(id)}, str(event)]}:
                self._heard(id)
                self._last = event
            case {"event": "gap", "args": [{"to": str(event)}]}:
                self._gap()
                self._last = event
