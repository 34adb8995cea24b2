"""What one client process is told to do: the load, where it goes, for how long. JSON, so that Node reads it too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The data of a scenario. What a kind does not need stays at its default.

    Attributes:
        kind: `add`, `http-add`, `process`, `roundtrip`, `events`, `sse`, `idle`, `sleep`, `slow`, `floods`, `cancel` or
            `webhook`; names the driver.
        connections: Queue connections that add, or idle connections.
        window: unanswered adds per connection.
        payload: bytes of a job's data, as JSON text.
        bulk: jobs per call; 0 calls `add`.
        workers: Worker connections.
        concurrency: jobs at a time of each worker.
        watchers: Events connections.
        idle: kind of the idle connections: `queue`, `worker` or `events`.
        slow: Events connections that read nothing.
        queues: with an idle worker and a watcher each.
        first: number of the first of them.
        flood: kind of the flood beside which it is measured, one of `flooder.FLOODS`.
        rate: jobs per second that are put into the queue beforehand, for each second of the run: no peer is faster.
    """

    kind: str
    connections: int = 1
    window: int = 1
    payload: int = 100
    bulk: int = 0
    workers: int = 0
    concurrency: int = 1
    watchers: int = 0
    idle: str = "queue"
    slow: int = 0
    queues: int = 0
    first: int = 0
    flood: str = ""
    rate: int = 0

    def split(self, parts: int) -> list[Load]:
        """The load of `add`, `process` or `sleep` from several clients; from fewer where it is not enough for all."""
        if self.kind == "sleep":
            firsts = [self.queues * part // parts for part in range(parts + 1)]
            return [replace(self, first=first, queues=end - first) for first, end in pairwise(firsts)]
        whole = self.workers if self.kind == "process" else self.connections
        parts = min(parts, whole)
        shares = [whole // parts + (part < whole % parts) for part in range(parts)]
        return [replace(self, workers=n) if self.kind == "process" else replace(self, connections=n) for n in shares]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run of one client process; times in seconds."""

    load: Load
    warmup: float
    duration: float
    deadline: float  # the process ends itself after so long, whatever happens
    redis_port: int
    port: int = 0  # of the proxy, for the clients of one
    more_ports: tuple[int, ...] = ()  # of further gateways
    key: str = ""
    queue: str = "bench"
    prefix: str = "bull"
    jobs: int = 0  # in the queue beforehand

    def to_json(self) -> str:
        """The task as a command-line argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The task in a command-line argument."""
        members: dict[str, Any] = json.loads(text)
        return cls(**{**members, "load": Load(**members["load"]), "more_ports": tuple(members["more_ports"])})


@dataclass(slots=True)
class Outcome:
    """What a client process reports of its measured time.

    Attributes:
        operations: done, in the scenario's own unit: jobs added, jobs processed, events delivered, pings answered.
        seconds: that they took.
        errors: error replies; a run with any is no measurement.
        latency: counts by bucket of `histogram.Histogram`, empty where the kind has no latency.
        extra: figures of this kind alone.
        before: operations between the other side's two readings that are not counted in `operations`.
    """

    operations: int
    seconds: float
    errors: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)
    before: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        """That of two processes which loaded at the same time."""
        return Outcome(
            self.operations + other.operations,
            max(self.seconds, other.seconds),
            self.errors + other.errors,
            {n: self.latency.get(n, 0) + other.latency.get(n, 0) for n in self.latency.keys() | other.latency.keys()},
            self.extra | other.extra,
            self.before + other.before,
        )

    @classmethod
    def from_members(cls, members: dict[str, Any]) -> Outcome:
        """The outcome in a client's last line."""
        latency = {int(bucket): int(count) for bucket, count in members["latency"].items()}
        return cls(
            operations=int(members["operations"]),
            seconds=float(members["seconds"]),
            errors=int(members["errors"]),
            latency=latency,
            extra=dict(members.get("extra", {})),
            before=int(members.get("before", 0)),
        )


def job_data(size: int, number: int | None = None) -> bytes:
    """A job's data of `size` bytes as JSON text; with `number` as its first member, by which a round trip is known."""
    head = b'{"n":%d,"text":"' % number if number is not None else b'{"to":"someone@example.com","text":"'
    return head + b"x" * max(0, size - len(head) - 2) + b'"}'
