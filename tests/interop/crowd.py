"""Many clients of both kinds on one queue: what each of them does next, and what may have become of each job."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tests.interop.client import Client, Refused
from tests.interop.peer import NodeError, Peer

LATER: Final = 3_600_000  # ms
PARENTS: Final = tuple(f"parent-{n}" for n in range(20))  # never children: a job among its own ancestors breaks BullMQ
READERS: Final = ("count", "getJobCounts", "getActive", "getCompleted", "getDelayed", "getFailed", "getPrioritized")
STATES: Final = ("completed", "failed", "delayed", "prioritized", "wait")
# What another client's operation can make of a valid one.
OVERTAKEN: Final = (
    "Missing key for job",
    "Missing key for parent job",
    "Missing lock for job",
    "Lock mismatch for job",
    "is not in the",
    "has pending dependencies",
    "has at least one failed child",
    "cannot be replaced",
    "could not be removed because it is locked",
)


class Overtaken(Exception):
    """The operation was valid, and came too late."""


class Actor(Protocol):
    """A client of the queue."""

    def call(self, fn: str, *args: Any) -> Any:
        """Call a function of the Queue API."""

    def take(self, token: str) -> dict[str, Any] | None:
        """The next job, moved to active."""

    def complete(self, job: str, token: str) -> None:
        """End a job that was taken."""

    def fail(self, job: str, token: str) -> None:
        """Let a job that was taken fail."""


class NodeActor:
    """Node's BullMQ."""

    def __init__(self, peer: Peer, queue: str) -> None:
        self._peer = peer
        self._queue = queue

    def call(self, fn: str, *args: Any) -> Any:
        """Call a function of the Queue API."""
        return self._ask("call", fn=fn, args=args)

    def take(self, token: str) -> dict[str, Any] | None:
        """The next job, moved to active."""
        job: dict[str, Any] | None = self._ask("take", token=token)
        return job

    def complete(self, job: str, token: str) -> None:
        """End a job that was taken."""
        self._ask("complete", job=job, token=token, value={"by": "node"})

    def fail(self, job: str, token: str) -> None:
        """Let a job that was taken fail."""
        self._ask("fail", job=job, token=token, message="no luck", unrecoverable=False)

    def _ask(self, op: str, **members: Any) -> Any:
        try:
            return self._peer.ask(op, queue=self._queue, **members)
        except NodeError as error:
            raise _overtaken(error) from error


class GatewayActor:
    """A Queue connection of a gateway."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def call(self, fn: str, *args: Any) -> Any:
        """Call a function of the Queue API."""
        try:
            return self._client.call(fn, *args)
        except Refused as error:
            raise _overtaken(error) from error

    def take(self, token: str) -> dict[str, Any] | None:
        """The next job, moved to active."""
        job: dict[str, Any] | None = self.call("getNextJob", token)
        return job

    def complete(self, job: str, token: str) -> None:
        """End a job that was taken."""
        self.call("moveJobToCompleted", job, {"by": "gateway"}, token)

    def fail(self, job: str, token: str) -> None:
        """Let a job that was taken fail."""
        self.call("moveJobToFailed", job, {"message": "no luck"}, token)


def _overtaken(error: Exception) -> Exception:
    return Overtaken(str(error)) if any(text in str(error) for text in OVERTAKEN) else error


@dataclass
class Ledger:
    """What all clients together have done.

    Attributes:
        added: the ids of all jobs that ever were.
        removed: those that an operation may have removed.
        children: by parent.
        calls: operations that were executed.
        late: those of them that came too late.
    """

    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    children: dict[str, set[str]] = field(default_factory=dict)
    calls: int = 0
    late: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, *, late: bool) -> None:
        """One more operation is done."""
        with self._lock:
            self.calls += 1
            self.late += late

    def add(self, jobs: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Jobs are there now, with these options."""
        with self._lock:
            for id, options in jobs:
                self.added.add(id)
                if "parent" in options:
                    self.children.setdefault(options["parent"]["id"], set()).add(id)

    def remove(self, ids: Iterable[str]) -> None:
        """Jobs may be gone."""
        with self._lock:
            self.removed.update(ids)

    @property
    def gone(self) -> set[str]:
        """All jobs that may be gone: children go with their parents."""
        return self.removed.union(*(self.children.get(id, ()) for id in self.removed))

    def any_id(self, chance: random.Random) -> str:
        """The id of some job."""
        with self._lock:
            return chance.choice(sorted(self.added)) if self.added else "none"


class Walk:
    """The random operations of one client.

    Args:
        actor: does them.
        name: part of the ids that it chooses; no two walks share it.
        seed: the same one gives the same choices.
        ledger: of the whole crowd.
        qualified: the queue's name with its prefix.
    """

    def __init__(self, actor: Actor, name: str, seed: int, ledger: Ledger, qualified: str) -> None:
        self._actor = actor
        self._name = name
        self._chance = random.Random(seed)
        self._ledger = ledger
        self._qualified = qualified
        self._numbers = 0
        self._held: list[tuple[dict[str, Any], str]] = []  # jobs in our hands, each with its token

    def run(self, operations: int) -> None:
        """Do so many operations, then finish what is held."""
        kinds = (self._add, self._bulk, self._take, self._finish, self._change, self._read, self._manage)
        for _ in range(operations):
            [kind] = self._chance.choices(kinds, (24, 4, 20, 22, 16, 10, 4))
            self._do(kind)
        while self._held:
            self._do(self._finish)

    def _do(self, kind: Any) -> None:
        try:
            kind()
        except Overtaken:
            self._ledger.count(late=True)
        else:
            self._ledger.count(late=False)

    def _options(self) -> dict[str, Any]:
        chance = self._chance
        options: dict[str, Any] = {}
        if chance.random() < 0.3:
            options["attempts"] = chance.choice((1, 2, 3))
        if chance.random() < 0.15:
            options["backoff"] = chance.choice((0, LATER, {"type": "exponential", "delay": LATER}))
        if chance.random() < 0.2:
            options["delay"] = LATER
        if chance.random() < 0.25:
            options["priority"] = chance.choice((1, 2, 5))
        if chance.random() < 0.1:
            options["lifo"] = True
        if chance.random() < 0.15:
            options["removeOnComplete"] = True
        if chance.random() < 0.15:
            options["removeOnFail"] = True
        kind = chance.random()
        if kind < 0.15:
            options["parent"] = {"id": chance.choice(PARENTS), "queue": self._qualified}
        elif kind < 0.25:
            options["deduplication"] = {"id": chance.choice("abc")}
        return options

    def _add(self) -> None:
        options = self._options()
        kind = self._chance.random()
        if kind < 0.2 and "parent" not in options:
            options["jobId"] = self._chance.choice(PARENTS)
        elif kind < 0.4:
            self._numbers += 1
            options["jobId"] = f"{self._name}-{self._numbers}"
        elif kind < 0.5:
            options["jobId"] = self._chance.choice(("same-1", "same-2", "same-3"))
        job = self._actor.call("add", "job", {"by": self._name}, options)
        self._ledger.add([(job["id"], options)])

    def _bulk(self) -> None:
        entries: list[dict[str, Any]] = []
        for number in range(self._chance.randint(1, 5)):
            options = self._options()
            options.pop("parent", None)
            entries.append({"name": "bulk", "data": number, "opts": options})
        jobs = self._actor.call("addBulk", entries)
        self._ledger.add((job["id"], entry["opts"]) for job, entry in zip(jobs, entries, strict=True))

    def _take(self) -> None:
        token = f"{self._name}:{self._chance.getrandbits(64)}"
        job = self._actor.take(token)
        if job is not None:
            self._held.append((job, token))

    def _finish(self) -> None:
        if not self._held:
            self._take()
            return
        job, token = self._held.pop(self._chance.randrange(len(self._held)))
        id = job["id"]
        # With pending children it cannot complete; then it fails, so that nothing stays active.
        if self._chance.random() < 0.7:
            try:
                self._leave(id, job, "removeOnComplete")
                self._actor.complete(id, token)
                return
            except Overtaken:
                pass
        self._leave(id, job, "removeOnFail")
        self._actor.fail(id, token)

    def _leave(self, id: str, job: dict[str, Any], option: str) -> None:
        if job["opts"].get(option):
            self._ledger.remove([id])

    def _change(self) -> None:
        id, chance = self._ledger.any_id(self._chance), self._chance
        fn, args = chance.choice(
            (
                ("promoteJob", ()),
                ("retryJob", (chance.choice(("failed", "completed")),)),
                ("updateJobData", ({"changed": chance.random()},)),
                ("updateJobProgress", (chance.randint(0, 100),)),
                ("addJobLog", (f"row {chance.random()}", 3)),
                ("changeJobPriority", ({"priority": chance.randint(0, 9), "lifo": chance.random() < 0.5},)),
                ("changeJobDelay", (chance.choice((0, LATER)),)),
                ("clearJobLogs", ()),
                ("remove", ()),
            )
        )
        if fn == "remove":
            self._ledger.remove([id])
        self._actor.call(fn, id, *args)

    def _read(self) -> None:
        chance = self._chance
        if chance.random() < 0.5:
            self._actor.call(chance.choice(("getJob", "getJobState")), self._ledger.any_id(chance))
        else:
            self._actor.call(chance.choice(READERS))

    def _manage(self) -> None:
        chance = self._chance
        match chance.choice(("clean", "pause", "resume", "promoteJobs", "retryJobs")):
            case "clean":
                self._ledger.remove(self._actor.call("clean", 0, chance.randint(1, 3), chance.choice(STATES)))
            case "pause":  # not for long
                self._actor.call("pause")
                self._actor.call("resume")
            case "retryJobs":
                self._actor.call("retryJobs", {"count": 5})
            case fn:
                self._actor.call(fn)
