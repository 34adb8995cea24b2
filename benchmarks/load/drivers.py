"""One driver per kind of load, over WebSockets; each knows what an operation is and when the next one may start."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Final

from benchmarks.load.frames import frame
from benchmarks.load.histogram import Histogram
from benchmarks.load.meter import Meter, clock
from benchmarks.load.socket import OnMessages, Socket, connect, connect_many
from benchmarks.load.stage import measure
from benchmarks.load.task import Outcome, Task, job_data

_STUCK, _AWAKE = 1.2, 0.1  # s that a slow client is stuck, longer than a close takes, and awake
_QUEUES_AT_A_TIME: Final = 25
_FIRST_PUSHES: Final = 250
_LONGEST_PUSH: Final = 10.0  # s
_FALL_ASLEEP: Final = 1.0  # s from the last connection
_HEAD: Final = 48  # bytes of a reply in which an error would show
_PROBE: Final = 0.05  # s between two probes
_QUIET: Final = 0.15  # s without an event: nothing is on its way any more
_LAST_WORDS: Final = 0.05  # s for what is on its way when the run ends


class Base:
    """What all drivers have: the task, the meter, the open connections."""

    def __init__(self, task: Task, meter: Meter) -> None:
        self.finished = asyncio.Event()
        self._task = task
        self._load = task.load
        self._meter = meter
        self._path = f"/queue/{task.queue}"
        self._sockets: list[Socket] = []
        self._closing = False

    async def start(self) -> None:
        """Connect and begin; each kind in its own way."""
        raise NotImplementedError

    async def close(self) -> None:
        """Disconnect."""
        self._closing = True
        for client in list(self._sockets):
            client.transport.close()
        await asyncio.sleep(_LAST_WORDS)

    async def _open(self, count: int, path: str, on_messages: OnMessages, port: int | None = None) -> list[Socket]:
        opened = await connect_many(count, port or self._task.port, path, self._task.key, on_messages)
        for client in opened:
            client.on_lost = self._lost_unasked
        self._sockets += opened
        return opened

    def _lost_unasked(self, reason: str) -> None:
        if not self._closing:
            self._meter.error(f"a connection was {reason}")

    async def _rouse(self, watchers: list[Socket]) -> None:
        """Add jobs until each watcher has seen one, then wait until all is quiet.

        A proxy that opens a QueueEvents per connection says yes to the handshake before that one reads: what happens
        in between is not seen, and a window would wait for it for ever.
        """
        heard: set[Socket] = set()
        events = 0

        def hear(client: Socket, messages: list[bytes]) -> None:
            nonlocal events
            heard.add(client)
            events += len(messages)

        for watcher in watchers:
            watcher.on_messages = hear
        (adder,) = await self._open(1, self._path, _ignore)
        probe = frame(b'{"id":0,"data":{"fn":"add","args":["job",%b]}}' % job_data(40, 0))
        while len(heard) < len(watchers):
            adder.write(probe)
            await asyncio.sleep(_PROBE)
        seen = -1
        while seen != events:
            seen = events
            await asyncio.sleep(_QUIET)

    def _check(self, message: bytes) -> None:
        if b'"err"' in message[:_HEAD]:
            self._meter.error(message[:300].decode(errors="replace"))


class Requests:
    """The adds of one connection: one frame, or HTTP request, over and over, a window of them unanswered."""

    def __init__(self, frame: bytes, jobs: int) -> None:
        self.frame = frame
        self.jobs = jobs  # that one request adds
        self.sent: deque[tuple[float, int]] = deque()  # when, and how many in that write

    def send(self, client: Socket, count: int) -> None:
        self.sent.append((clock(), count))
        client.write(self.frame * count)


class Adds(Base):
    """`add` and `addBulk`: an operation is a job, its latency that of its call. Replies come in order."""

    _name = b"job"

    async def start(self) -> None:
        """Fill every connection's window."""
        message, jobs = add_message(self._load.payload, self._load.bulk, self._name)
        for client in await self._open(self._load.connections, self._path, _never):
            requests = Requests(frame(message), jobs)
            client.on_messages = partial(self._answered, requests)
            requests.send(client, self._load.window)

    def _answered(self, requests: Requests, client: Socket, messages: list[bytes]) -> None:
        now = clock()
        for message in messages:
            self._check(message)
        left = len(messages)
        while left:
            sent, count = requests.sent.popleft()
            taken = min(left, count)
            self._meter.done(taken * requests.jobs, now - sent)
            if taken < count:
                requests.sent.appendleft((sent, count - taken))
            left -= taken
        if not self._closing:
            requests.send(client, len(messages))


class Processing(Base):
    """`process`: the jobs are there, workers take and finish them; an operation is a job."""

    async def start(self) -> None:
        """Connect the workers: jobs come by themselves."""
        self._left = self._task.jobs
        await self._open(self._load.workers, f"{self._path}/process/{self._load.concurrency}", self._work)

    def _work(self, client: Socket, messages: list[bytes]) -> None:
        client.write(b"".join([frame(b'%b,"data":{"result":{"ok":true}}}' % _id(message)) for message in messages]))
        self._meter.done(len(messages))
        self._left -= len(messages)
        if self._left <= 0:
            self.finished.set()


class RoundTrips(Base):
    """`roundtrip`: from the sending of an add until the first watcher has its `completed` event with the return value.

    A job carries a number, the worker returns it, the event brings it back. With more watchers, each gets all events.
    """

    async def start(self) -> None:
        """Connect everybody, then let the windows go."""
        load = self._load
        self._sent: dict[int, tuple[float, Socket]] = {}
        self._next = 0
        watchers = await self._open(load.watchers, f"{self._path}/events?events=completed", _ignore)
        await self._open(load.workers, f"{self._path}/process/{load.concurrency}", self._work)
        await self._rouse(watchers)
        watchers[0].on_messages = self._completed
        for client in await self._open(load.connections, self._path, self._added):
            self._add(client, load.window)

    def _add(self, client: Socket, count: int) -> None:
        now, frames = clock(), []
        for _ in range(count):
            self._sent[self._next] = (now, client)
            data = job_data(self._load.payload, self._next)
            frames.append(frame(b'{"id":%d,"data":{"fn":"add","args":["job",%b]}}' % (self._next, data)))
            self._next += 1
        client.write(b"".join(frames))

    def _added(self, client: Socket, messages: list[bytes]) -> None:
        for message in messages:
            self._check(message)

    def _work(self, client: Socket, messages: list[bytes]) -> None:
        answers = [
            frame(b'%b,"data":{"result":{"n":%d}}}' % (_id(message), _number(message, b'"payload":')))
            for message in messages
        ]
        client.write(b"".join(answers))

    def _completed(self, client: Socket, messages: list[bytes]) -> None:
        now = clock()
        again: dict[Socket, int] = {}
        for message in messages:
            sent, adder = self._sent.pop(_number(message, b'"returnvalue":'))
            self._meter.done(1, now - sent)
            again[adder] = again.get(adder, 0) + 1
        if not self._closing:
            for adder, count in again.items():
                self._add(adder, count)


class Deliveries(Base):
    """`events`: a batch of adds, and the next one when every watcher has every event; an operation is a delivery."""

    async def start(self) -> None:
        """Connect the watchers, then add."""
        load = self._load
        self._missing = 0
        watchers = await self._watch(load.watchers, f"{self._path}/events?events=waiting")
        await self._rouse(watchers)
        for watcher in watchers:
            watcher.on_messages = self._delivered
        (self._adder,) = await self._open(1, self._path, self._added)
        message, jobs = add_message(load.payload)
        self._requests = Requests(frame(message), jobs)
        self._batch()

    async def _watch(self, count: int, path: str) -> list[Socket]:
        return await self._open(count, path, _ignore)

    def _batch(self) -> None:
        self._missing += self._load.window * self._load.watchers
        self._requests.sent.clear()
        self._requests.send(self._adder, self._load.window)

    def _added(self, client: Socket, messages: list[bytes]) -> None:
        for message in messages:
            self._check(message)

    def _delivered(self, client: Socket, messages: list[bytes]) -> None:
        self._meter.done(len(messages), clock() - self._requests.sent[0][0])
        self._missing -= len(messages)
        if self._missing <= 0 and not self._closing:
            self._batch()


class Idle(Base):
    """`idle`: connections that do nothing but answer pings; an operation is a ping."""

    async def start(self) -> None:
        """Connect them."""
        tail = {"queue": "", "worker": f"/process/{self._load.concurrency}", "events": "/events?events=completed"}
        path = self._path + tail[self._load.idle]
        for client in await self._open(self._load.connections, path, _ignore):
            client.on_ping = self._meter.done


class Sleeping(Idle):
    """`sleep`: many queues with a worker and a watcher each; the latency is that of the first push into some of them.

    It is taken before the measured time, in which nothing happens. An operation is a ping, as in `idle`.
    """

    async def start(self) -> None:
        """Connect everybody, and let some queues have a job."""
        load, base = self._load, self._path
        workers: dict[int, Socket] = {}
        for first in range(load.first, load.first + load.queues, _QUEUES_AT_A_TIME):
            numbers = range(first, min(first + _QUEUES_AT_A_TIME, load.first + load.queues))
            opened = await asyncio.gather(
                *(self._open(1, f"{base}-{number}/process/1", _ignore) for number in numbers),
                *(self._open(1, f"{base}-{number}/events?events=completed", _ignore) for number in numbers),
            )
            workers.update((number, client) for number, (client,) in zip(numbers, opened, strict=False))
        for client in self._sockets:
            client.on_ping = self._meter.done
        await asyncio.sleep(_FALL_ASLEEP)
        (adder,) = await self._open(1, "/flows", _ignore)
        step = max(1, load.queues // _FIRST_PUSHES)
        self._pushes = Histogram()
        for number in range(load.first, load.first + load.queues, step):
            self._pushes.record(await self._first_push(adder, number, workers[number]), 1)

    async def _first_push(self, adder: Socket, number: int, worker: Socket) -> float:
        pushed = asyncio.get_running_loop().create_future()

        def push(client: Socket, messages: list[bytes]) -> None:
            client.write(frame(b'%b,"data":{"result":1}}' % _id(messages[0])))
            pushed.set_result(clock())

        worker.on_messages = push
        sent = clock()
        node = b'{"name":"job","queueName":"%b-%d","data":{}}' % (self._task.queue.encode(), number)
        adder.write(frame(b'{"id":1,"data":{"fn":"add","args":[%b]}}' % node))
        async with asyncio.timeout(_LONGEST_PUSH):
            return float(await pushed) - sent

    async def measure(self, seconds: float) -> Outcome:
        """Count pings while all sleep."""
        outcome = await measure(self, self._meter, seconds)
        outcome.latency = dict(self._pushes.counts)
        return outcome


class SlowClient(Adds):
    """`slow`: adds as in `add`, beside watchers that first read what they get and then get stuck, time and again.

    A stuck client cannot see that it was closed. So it wakes up for a moment now and then; one that finds its
    connection gone opens another, and is stuck again.
    """

    _name = (
        b"j" * 500
    )  # the `added` event carries it: the kernel's buffers, some MB each, must fill before the gateway's

    async def start(self) -> None:
        """Connect the watchers, then add."""
        self._closed = 0
        self._watchers: set[Socket] = set()
        await self._watch()
        await super().start()

    async def measure(self, seconds: float) -> Outcome:
        """Measure twice; the outcome is that beside stuck watchers, with the one before in `extra`."""
        reading = await measure(self, self._meter, seconds)
        getting_stuck = asyncio.create_task(self._get_stuck())
        try:
            outcome = await measure(self, self._meter, seconds)
        finally:
            getting_stuck.cancel()
            await asyncio.wait((getting_stuck,))
        before, after = reading.operations / reading.seconds, outcome.operations / outcome.seconds
        outcome.before = reading.operations
        outcome.extra = {
            "per_second_while_they_read": before,
            "throughput_ratio": after / before if before else 0.0,
            "p99_ms_while_they_read": _p99(reading),
            "p99_ms_while_stuck": _p99(outcome),
            "slow_clients_closed": float(self._closed),
        }
        return outcome

    async def _watch(self) -> None:
        """Bring the watchers up to their number."""
        while len(self._watchers) < self._load.slow:
            client = await connect(self._task.port, f"{self._path}/events", self._task.key, _ignore, small=True)
            client.on_lost = partial(self._lost, client)
            self._watchers.add(client)
            self._sockets.append(client)

    async def _get_stuck(self) -> None:
        while True:
            for client in self._watchers:
                client.transport.pause_reading()
            await asyncio.sleep(_STUCK)
            for client in self._watchers:
                client.transport.resume_reading()
            await asyncio.sleep(_AWAKE)
            await self._watch()

    def _lost(self, client: Socket, reason: str) -> None:
        self._closed += not self._closing
        self._watchers.discard(client)
        self._sockets.remove(client)


def add_message(payload: int, bulk: int = 0, name: bytes = b"job") -> tuple[bytes, int]:
    """An add request as JSON text, and how many jobs it adds."""
    data = job_data(payload)
    if not bulk:
        return b'{"id":7,"data":{"fn":"add","args":["%b",%b]}}' % (name, data), 1
    jobs = b",".join([b'{"name":"job","data":%b}' % data] * bulk)
    return b'{"id":7,"data":{"fn":"addBulk","args":[[%b]]}}' % jobs, bulk


def _id(message: bytes) -> bytes:
    """`{"id":5` of a message that begins with it."""
    return message[: message.index(b",")]


def _number(message: bytes, member: bytes) -> int:
    """The round trip's number, which is the first member of the object that `member` holds."""
    start = message.index(b'{"n":', message.index(member)) + 5
    end = start
    while message[end] not in b",}":
        end += 1
    return int(message[start:end])


def _p99(outcome: Outcome) -> float:
    return Histogram(outcome.latency).quantile(0.99) or 0.0


def _ignore(client: Socket, messages: list[bytes]) -> None:
    """Messages that are only received."""


def _never(client: Socket, messages: list[bytes]) -> None:
    raise AssertionError("a message before the first request")
