"""`cancel`: jobs are taken from workers of several gateways while others are processed, and every answer is checked."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from functools import partial
from typing import Any, Final

from benchmarks.load.drivers import Base
from benchmarks.load.frames import frame
from benchmarks.load.meter import Meter, clock
from benchmarks.load.socket import Socket
from benchmarks.load.stage import measure
from benchmarks.load.task import Outcome, Task

_RACED: Final = 4  # every so many'th job is answered in the moment in which it is cancelled
_PROCESSED: Final = 2  # every so many'th job is answered, and not cancelled
_LOOKS: Final = 100  # at most, until nothing is on its way any more when the run ends
_LOOK: Final = 0.05  # s between two of them


class Cancels(Base):
    """An operation is a cancel; its latency is from the call until the worker has `cancel`.

    Jobs are added as others end. Of those that are pushed some are answered at once, some cancelled, from a connection
    to the other gateway or the same, and some both: then either may win, and what the caller and the worker are told
    has to fit together.
    """

    def __init__(self, task: Task, meter: Meter) -> None:
        super().__init__(task, meter)
        self._sent: dict[str, float] = {}  # when a job was to be cancelled
        self._said: dict[str, str] = {}  # what the caller was told: `delivered`, `silent`, or an error's code
        self._told: dict[str, int] = {}  # how often the worker got `cancel`
        self._ended: set[str] = set()  # answers that are stored
        self._held: deque[tuple[str, int, Socket | None]] = (
            deque()
        )  # to be cancelled; with the worker that answers then
        self._idle: list[Socket] = []  # callers that could call once more
        self._pushed = 0

    async def start(self) -> None:
        """Connect callers and workers to both gateways, and fill the workers' hands."""
        load, ports = self._load, (self._task.port, *self._task.more_ports)
        for port in ports:
            self._idle += load.window * await self._open(load.connections, self._path, self._answered, port)
            for _ in range(load.workers):
                path = f"{self._path}/process/{load.concurrency}?confirm=1"
                await self._open(1, path, partial(self._work, {}), port)
        (self._adder,) = await self._open(1, self._path, self._added)
        self._add(2 * len(ports) * load.workers * load.concurrency)

    def _add(self, count: int) -> None:
        if not self._closing:
            self._adder.write(frame(b'{"id":1,"data":{"fn":"add","args":["job",{}]}}') * count)

    def _added(self, client: Socket, messages: list[bytes]) -> None:
        for message in messages:
            self._check(message)

    def _work(self, jobs: dict[Any, str], client: Socket, messages: list[bytes]) -> None:
        """Take what a worker is told; `jobs` are those that it was pushed, by the ids of the messages."""
        for text in messages:
            message = json.loads(text)
            number, data = message["id"], message["data"]
            match data["type"]:
                case "process":
                    jobs[number] = data["job"]["id"]
                    self._take(client, number, jobs[number])
                case "cancel":
                    self._cancelled(jobs.pop(number))
                case "finished":
                    self._ended.add(jobs.pop(number))
                    self._add(1)

    def _take(self, worker: Socket, number: int, id: str) -> None:
        self._pushed += 1
        if self._pushed % _PROCESSED or not self._pushed % _RACED:
            self._held.append((id, number, None if self._pushed % _PROCESSED else worker))
            if self._idle:
                self._cancel(self._idle.pop())
        else:
            worker.write(_answer(number))

    def _cancel(self, caller: Socket) -> None:
        """Cancel the job that is held for longest; its worker, if there is one, answers in this moment."""
        id, number, worker = self._held.popleft()
        self._sent[id] = clock()
        caller.write(frame(json.dumps({"id": id, "data": {"fn": "cancelJob", "args": [id, "no"]}}).encode()))
        if worker is not None:
            worker.write(_answer(number))

    def _cancelled(self, id: str) -> None:
        self._told[id] = self._told.get(id, 0) + 1
        self._meter.done(1, clock() - self._sent[id])
        self._add(1)

    def _answered(self, client: Socket, messages: list[bytes]) -> None:
        for text in messages:
            message = json.loads(text)
            data = message["data"]
            result = data.get("ok")
            said = self._said[message["id"]] = data["err"]["code"] if result is None else _outcome(result)
            if said == "silent":  # the answer was on its way, and is lost
                self._add(1)
            if self._held and not self._closing:
                self._cancel(client)
            else:
                self._idle.append(client)

    async def measure(self, seconds: float) -> Outcome:
        """Measure, let what is under way end, and hold all that callers and workers were told together."""
        outcome = await measure(self, self._meter, seconds)
        self._closing = True
        for _ in range(_LOOKS):
            false = sum(not self._is_truthful(id) for id in self._sent)
            if not false:
                break
            await asyncio.sleep(_LOOK)
        outcome.extra = {
            "cancels": float(len(self._sent)),
            "lost_to_the_answer": float(sum(said == "CONFLICT" for said in self._said.values())),
            "not_delivered": float(sum(said == "silent" for said in self._said.values())),
            "untruthful": float(false),
        }
        return outcome

    def _is_truthful(self, id: str) -> bool:
        told = self._told.get(id, 0)
        match self._said.get(id):
            case "delivered":
                return told == 1 and id not in self._ended
            case "silent":  # an answer that came too late was on its way
                return told == 0 and id not in self._ended
            case "CONFLICT":
                return told == 0 and id in self._ended
        return False


def _answer(number: int) -> bytes:
    return frame(b'{"id":%d,"data":{"result":1}}' % number)


def _outcome(result: dict[str, Any]) -> str:
    assert result["state"] == "failed", result
    return "delivered" if result["delivered"] else "silent"
