"""The gateway's side of a connection that was accepted: jobs that are pushed and answered, calls and their replies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bullmq_proxy.gateway.conformance.rules import PRODUCER, WORKER, Rule
from bullmq_proxy.gateway.conformance.socket import Socket

FIRST_PUSH_DELAY: Final = 0.02
"""Seconds after the handshake until the first message comes, as from the real gateway."""
LONG: Final = 100
"""Milliseconds of work from which on a job counts as one that takes its time."""

_NOT_FINAL: Final = frozenset({"ack", "progress", "log"})
_FINAL: Final = frozenset({"release", "delay", "waitChildren"})


@dataclass(eq=False)
class Job:
    """A job in the client's hands.

    Attributes:
        payload: its data, which says what the work is.
        number: the id of the message that pushed it.
        answers: the final ones, as they came.
        was_acked: the client has said `ack`.
        was_cancelled: the client was told to stop.
        pongs: how many pings of its connection had been answered when the first answer came.
        sessions: the connections that it was answered on, one for each answer.
    """

    payload: Any
    number: Any
    answers: list[dict[str, Any]] = field(default_factory=list)
    was_acked: bool = False
    was_cancelled: bool = False
    pongs: int = 0
    sessions: list[Session] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """The job for people."""
        return f"of message {self.number}"

    @property
    def takes_its_time(self) -> bool:
        """Whether its work is long."""
        return isinstance(self.payload, Mapping) and self.payload.get("wait", 0) >= LONG


@dataclass(frozen=True, eq=False)
class Call:
    """A call of the client's."""

    id: Any
    fn: str
    args: list[Any]

    @property
    def job_id(self) -> Any:
        """The `jobId` among the options of an `add`; None if there is none."""
        opts = self.args[2] if len(self.args) > 2 else None
        return opts.get("jobId") if isinstance(opts, dict) else None


class Session:
    """One connection of a client.

    Attributes:
        options: of its query string.
        calls: the client's, in the order received.
        jobs: those in the client's hands, by what their numbers are compared by.
        acknowledges: what becomes of final answers: `finished`, `lost`, or None for no message yet.
        acked: the client has said `ack` for some job.
    """

    def __init__(self, socket: Socket, options: Mapping[str, str], role: str, before: Session | None) -> None:
        """Prepare a connection; `before` is the client's last one."""
        self.socket = socket
        self.options = options
        self.calls: list[Call] = []
        self.jobs: dict[str, Job] = {}
        self.acknowledges: str | None = "finished"
        self.acked = False
        self._role = role
        self._all: list[Job] = []
        self._wrong: list[tuple[Rule, str]] = []
        # Where jobs are kept their numbers go on.
        self._numbers: Iterator[int] = before._numbers if before and role == WORKER else itertools.count()
        self._secret = f"kit:{next(_SECRETS)}"
        self._has_predecessor = before is not None
        self._backlog: list[tuple[Any, int, bytes | None]] | None = []
        socket.received = self._received

    @property
    def has_grace(self) -> bool:
        """Whether the client wants its jobs kept when the connection breaks."""
        return int(self.options.get("grace", "0") or 0) > 0

    @property
    def confirms(self) -> bool:
        """Whether the client wants to hear that an answer is stored."""
        return self.options.get("confirm") in ("1", "true")

    @property
    def secret(self) -> str:
        """The `consumer` of the `welcome`."""
        return self._secret

    @property
    def last(self) -> Job:
        """The job that was made last."""
        return self._all[-1]

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.socket.is_open

    # Out

    def greeting(self, jobs: Sequence[Job]) -> list[Any]:
        """Return the first messages: the `welcome`, where the client wants one, which lists jobs."""
        if self._role != WORKER or not self.has_grace:
            return []
        for job in jobs:
            self.jobs[_same(job.number)] = job
        listed = [{"jobId": f"job-{job.number}", "number": job.number, "token": f"kit:{job.number}"} for job in jobs]
        grace = int(self.options["grace"])
        data = {"type": "welcome", "consumer": self._secret, "grace": grace, "jobs": listed}
        return [self.numbered(data)]

    def greet(self, messages: Sequence[Any]) -> None:
        """Send the first messages a little later, and everything that is sent until then behind them."""

        def send() -> None:
            for message in messages:
                self.socket.send(message)
            self.go_on()

        asyncio.get_running_loop().call_later(FIRST_PUSH_DELAY, send)

    def go_on(self) -> None:
        """Send what has waited for the first messages."""
        waiting, self._backlog = self._backlog or [], None
        for message, pieces, ping in waiting:
            self.socket.send(message, pieces, ping)

    def send(self, message: Any, pieces: int = 1, ping: bytes | None = None) -> None:
        """Send a message, in so many fragments, with a ping between them."""
        if self._backlog is not None:
            self._backlog.append((message, pieces, ping))
        else:
            self.socket.send(message, pieces, ping)

    def numbered(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message under the next number."""
        return {"id": next(self._numbers), "data": data}

    def push(self, payload: Any, *, number: Any = None, pieces: int = 1, ping: bytes | None = None) -> Job:
        """Push a job."""
        job, message = self.job(payload, number)
        self.send(message, pieces, ping)
        return job

    def job(self, payload: Any, number: Any = None) -> tuple[Job, Any]:
        """Return a new job in the client's hands, and the message that pushes it."""
        job = Job(payload, next(self._numbers) if number is None else number)
        self.jobs[_same(job.number)] = job
        self._all.append(job)
        shown = {
            "id": f"job-{job.number}",
            "name": "kit",
            "opts": {"attempts": 1},
            "attemptsMade": 0,
            "attemptsStarted": 1,
        }
        shown |= {
            "stalledCounter": 0,
            "timestamp": 1700000000000,
            "processedOn": 1700000000500,
            "delay": 0,
            "priority": 0,
        }
        shown |= {"token": f"kit:{job.number}", "queue": "kit"}
        return job, {"id": job.number, "data": {"type": "process", "payload": payload, "job": shown}}

    def tell(self, job: Job, data: Mapping[str, Any]) -> None:
        """Say something about a job."""
        self.send({"id": job.number, "data": data})

    def cancel(self, job: Job) -> None:
        """Take a job away."""
        job.was_cancelled = True
        self.tell(job, {"type": "cancel", "reason": "the kit cancels"})

    def reply(self, call: Call, data: Mapping[str, Any]) -> None:
        """Answer a call."""
        self.send({"id": call.id, "data": data})

    def close(self, code: int, words: str = "the kit closes") -> None:
        """Close the connection; 1006 breaks it."""
        self.socket.close(code, words)

    # In

    def _received(self, message: dict[str, Any]) -> None:
        data, id = message["data"], message["id"]
        kind = data.get("type")
        if self._role == PRODUCER and "fn" in data:
            args = data.get("args")
            self.calls.append(Call(id, str(data["fn"]), args if isinstance(args, list) else []))
        elif "fn" in data or kind in ("pause", "resume"):
            self.send({"id": id, "data": {"ok": None}})
        elif self._role == WORKER and kind in _NOT_FINAL:
            self._heard(id, kind)
        elif self._role == WORKER and (kind in _FINAL or not kind or "result" in data or "err" in data):
            self._answered(id, data)

    def _heard(self, id: Any, kind: str) -> None:
        job = self.jobs.get(_same(id))
        if job is None:
            self._stray(id, kind)
        elif kind == "ack":
            self.acked = job.was_acked = True

    def _answered(self, id: Any, data: dict[str, Any]) -> None:
        job = self.jobs.get(_same(id))
        if job is None:
            self._stray(id, "a final answer")
            return
        if job.was_cancelled:
            self._wrong.append((Rule.CANCEL, f"the job {job.shown} was answered after its cancel"))
            return
        job.pongs = job.pongs if job.answers else len(self.socket.pongs)
        job.answers.append(data)
        job.sessions.append(self)
        if job.sessions.count(self) > 1:
            self._wrong.append((Rule.ANSWER, f"the job {job.shown} was answered more than once"))
        elif self.acknowledges == "lost":
            err = {"message": "The kit has lost the lock", "code": "NOT_LOCKED"}
            self.tell(job, {"type": "lost", "err": err})
        elif self.acknowledges and self.confirms:
            state = "failed" if "err" in data else "completed"
            self.tell(job, {"type": self.acknowledges, "state": state, "jobId": f"job-{job.number}"})

    def _stray(self, id: Any, what: str) -> None:
        """Note a message about a job that the client does not hold."""
        rule = Rule.OLD if self._has_predecessor else Rule.ANSWER
        self._wrong.append((rule, f"{what} came under the id {id!r}, which is no job of this connection's"))

    def wrong(self) -> Iterator[tuple[Rule, str | None]]:
        """Yield what was seen of the rules that hold on every connection: None where one was kept."""
        yield from self._wrong
        answered = [job for job in self._all if job.answers]
        if answered:
            yield Rule.ANSWER, None
            late = [job for job in answered if job.takes_its_time and not job.was_acked and self.acked]
            yield Rule.ACK, f"it said ack for some jobs, and not for the one {late[0].shown}" if late else None


_SECRETS: Final = itertools.count(1)


def _same(id: Any) -> str:
    """Return what ids are compared by: `0`, `"0"` and `0.0` are the same."""
    return str(int(id)) if isinstance(id, float) and id.is_integer() else str(id)
