"""The jobs in a worker's hands, and what its connection says of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from bullmq_proxy.gateway.client.calls import LINK_TIMEOUT, Calls, encode
from bullmq_proxy.gateway.client.errors import (
    CLASSES,
    ConflictError,
    InvalidArgumentsError,
    OutcomeUnknownError,
    ProxyError,
)
from bullmq_proxy.gateway.client.job import Job
from bullmq_proxy.gateway.client.link import Key, Link
from bullmq_proxy.gateway.client.queue import BoundQueue

_LOST: Final = "The job is not this worker's any more"


class UnrecoverableError(Exception):
    """Raised by a handler: the job fails for good, whatever attempts it has left."""


class WorkerJob(Job):
    """A job in this worker's hands."""

    def __init__(self, jobs: HeldJobs, number: int, shown: Mapping[str, Any], payload: Any) -> None:
        """Make an object for a job that was pushed."""
        super().__init__(jobs.functions, {**shown, "data": payload})
        self.number = number
        self._jobs = jobs

    async def updateProgress(self, progress: Any) -> None:
        """Say how far the job is, by any JSON: stored with it and published as an event."""
        await self._jobs.tell(self, {"type": "progress", "progress": progress})

    async def log(self, logRow: str, keepLogs: int | None = None) -> None:  # type: ignore[override]
        """Add a row to the job's log; only the last `keepLogs` stay, where that is given."""
        if keepLogs is None:
            await self._jobs.tell(self, {"type": "log", "row": logRow})
        else:
            await super().log(logRow, keepLogs)

    async def release(self) -> None:
        """Give the job back: first in line, no attempt is charged. The handler then returns."""
        await self._jobs.answer(self, {"type": "release"})

    async def delayFor(self, milliseconds: int) -> None:
        """Give the job back, to run after this delay; no attempt is charged. The handler then returns."""
        await self._jobs.answer(self, {"type": "delay", "delay": milliseconds})

    async def waitChildren(self) -> bool:
        """Let the job wait for its children; return False when none is pending: then the handler goes on.

        After True the handler returns: it is called again when the children have ended. `confirm` must not be off.
        """
        if not self._jobs.confirm:
            raise InvalidArgumentsError("waitChildren needs confirm: without it nobody says whether a child is pending")
        try:
            await self._jobs.answer(self, {"type": "waitChildren"})
        except ConflictError:
            return False
        return True


class _Held:
    """A job in hand.

    Attributes:
        job: the job.
        task: runs its handler, and waits until its answer is stored.
        answer: the final one, as it is sent; None while there is none.
        stored: the job's state once the answer is stored.
        reason: why it is not this worker's any more; None while it is.
    """

    def __init__(self, job: WorkerJob) -> None:
        self.job = job
        self.task: asyncio.Task[None] | None = None
        self.answer: str | None = None
        self.stored: asyncio.Future[str] | None = None
        self.reason: str | None = None


class HeldJobs:
    """What a worker holds, over all of its connections."""

    def __init__(
        self,
        handler: Callable[[WorkerJob], Awaitable[Any]],
        emit: Callable[..., None],
        url: str,
        key: Key | None,
        ca: str | None,
        path: str,
        options: Mapping[str, Any],
    ) -> None:
        """Prepare a worker's connection; `options` are those of the Worker API, those with a dot as objects."""
        self.held: dict[int, _Held] = {}
        self.link = Link(self, url, key, ca, path, self._query)
        self._calls = Calls(self.link)
        self.functions = BoundQueue(self._calls)
        self.confirm = bool(options["confirm"])
        self._grace: int = options["grace"]
        self._handler = handler
        self._emit = emit
        self._options = dict(_flat(options))
        self._secret: str | None = None
        self._is_ready = False  # messages about jobs can be sent
        self._changed = asyncio.Event()  # wakes those who wait for that, or for their job to be gone
        self._empty = asyncio.Event()
        self._empty.set()
        self._is_paused = False
        self._timer: asyncio.TimerHandle | None = None

    def _query(self) -> dict[str, str]:
        return self._options if self._secret is None else {**self._options, "consumer": self._secret}

    # The user's side

    async def tell(self, job: WorkerJob, data: dict[str, Any]) -> None:
        """Say something about a job; waits for a connection, while the job is this worker's."""
        self._of(job)
        text = encode({"id": job.number, "data": data})
        while not self._is_ready:
            await self._changed.wait()
            self._of(job)
        await self.link.send(text)

    async def answer(self, job: WorkerJob, data: dict[str, Any]) -> str | None:
        """Give the final answer, and wait until it is stored; return the job's state, or None without `confirm`.

        Raises:
            ProxyError: it was not stored, or nobody knows.
        """
        held = self._of(job)
        if held.answer is not None:
            raise ConflictError(f"Job {job.id} has its final answer already")
        text = encode({"id": job.number, "data": data})
        held.answer = text
        held.stored = asyncio.get_running_loop().create_future()
        if self._is_ready:
            await self.link.send(text)
            if not self.confirm:
                self._forget(held)
                return None
        return await held.stored

    def _of(self, job: WorkerJob) -> _Held:
        held = self.held.get(job.number)
        if held is None or held.job is not job:
            raise CLASSES["NOT_FOUND"](f"Job {job.id} is not in this worker's hands any more")
        return held

    async def pause(self, is_paused: bool) -> None:
        """Take no new jobs, or take them again."""
        self._is_paused = is_paused
        if self.link.is_open:
            await self._calls.call({"type": "pause" if is_paused else "resume"}, is_safe=True, writes=False)

    async def close(self, timeout: float) -> None:
        """Wait for what is in hand, for so many seconds, give the rest back, and close the connection."""
        if self.link.error is None:
            with contextlib.suppress(ProxyError, TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.pause(True)
                    await self._empty.wait()
        tasks = [held.task for held in self.held.values() if held.task is not None]
        for held in list(self.held.values()):
            if held.answer is None and self._is_ready:
                await self.link.send(encode({"id": held.job.number, "data": {"type": "release"}}))
            self._take_away(held, "The worker closes")
        await self.link.close()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    # The work

    async def _work(self, held: _Held) -> None:
        job = held.job
        try:
            await self.link.send(encode({"id": job.number, "data": {"type": "ack"}}))
            result = await self._handler(job)
            answer = encode_result(result)
            happened: tuple[Any, ...] = ("completed", job, result)
        except asyncio.CancelledError:
            if held.reason is None and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise  # the loop ends
            error: BaseException = asyncio.CancelledError("The handler was cancelled from within")
            answer, happened = _failure(error), ("failed", job, error)
        except Exception as caught:
            answer, happened = _failure(caught), ("failed", job, caught)
        if held.reason is not None or held.answer is not None:
            if held.reason is None and happened[0] == "failed":
                self._emit("error", happened[2])  # behind the final answer: nobody else hears of it
            return
        try:
            await self.answer(job, answer)
            self._emit(*happened)
        except asyncio.CancelledError:
            if held.reason is None:
                raise
        except ProxyError as error:
            self._emit("lost", job, error)

    def _take(self, number: int, data: dict[str, Any]) -> None:
        held = self.held[number] = _Held(WorkerJob(self, number, data["job"], data["payload"]))
        self._empty.clear()
        held.task = asyncio.get_running_loop().create_task(self._work(held), name=f"job {held.job.id}")

    def _forget(self, held: _Held) -> None:
        if self.held.get(held.job.number) is held:
            del self.held[held.job.number]
            if not self.held:
                self._empty.set()
            self._set_ready(self._is_ready)

    def _take_away(self, held: _Held, reason: str) -> None:
        """End the work on a job that is not ours any more."""
        self._forget(held)
        if held.stored is not None and not held.stored.done():
            held.stored.set_exception(OutcomeUnknownError(f"{reason}; its answer may have been stored, or not"))
        elif held.reason is None and held.task is not None and not held.task.done():
            held.reason = reason
            held.task.cancel(reason)
            self._emit("cancelled", held.job, reason)

    # The connection's side

    async def opened(self) -> None:
        """Send what has waited; with `grace` only calls, until the `welcome` comes."""
        if not self._grace:
            self._set_ready(True)
        await self._calls.opened()
        if self._is_paused:
            await self.link.send(encode({"id": "paused", "data": {"type": "pause"}}))
        self._emit("connected")

    async def received(self, id: Any, data: dict[str, Any]) -> None:
        """Take a message."""
        match data.get("type"):
            case "process":
                self._take(id, data)
            case "finished":
                self._ended(id, data["state"])
            case "lost":
                self._ended(id, _error(data["err"]))
            case "cancel":
                if (held := self.held.get(id)) is not None:
                    self._take_away(held, data["reason"])
            case "welcome":
                await self._welcomed(data)
            case "drain":
                self._emit("draining", data.get("deadline"))
            case None:  # a reply; types that are not known are ignored
                if not self._calls.replied(id, data) and "err" in data:
                    await self._objected(id, _error(data["err"]))

    def broke(self) -> None:
        """Keep what is in hand for the grace time."""
        self._set_ready(False)
        self._calls.broke()
        if self.held and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._grace / 1000, self._grace_ends)

    def waits(self, trouble: ProxyError) -> None:
        """Tell the user why there is no connection."""
        self._emit("disconnected", trouble)

    def stopped(self, error: ProxyError) -> None:
        """Give everything up."""
        self._calls.stopped(error)
        for held in list(self.held.values()):
            self._take_away(held, f"The connection has ended: {error}")
        if not self.link.was_closed:
            self._emit("error", error)

    def _ended(self, number: Any, outcome: str | ProxyError) -> None:
        held = self.held.get(number)
        if held is None:
            return
        self._forget(held)
        if held.stored is None:
            held.reason = _LOST
        elif isinstance(outcome, str):
            held.stored.set_result(outcome)
        else:
            held.stored.set_exception(outcome)

    async def _objected(self, number: Any, error: ProxyError) -> None:
        """Take an error about a message on a job: a refused waitChildren, or an answer that cannot be read."""
        held = self.held.get(number)
        if held is None or held.answer is None or held.stored is None:
            self._emit("error", error)
        elif json.loads(held.answer)["data"].get("type") == "waitChildren":
            held.answer = None
            held.stored.set_exception(error)
        else:
            held.answer = encode({"id": number, "data": {"err": {"message": error.message}, "unrecoverable": True}})
            await self.link.send(held.answer)

    async def _welcomed(self, data: dict[str, Any]) -> None:
        """Go on with what the gateway has kept, hand in what could not be before, and give back what nobody knows."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._secret = data["consumer"]
        kept = {each["number"]: each for each in data["jobs"]}
        for number, held in list(self.held.items()):
            if number in kept:
                held.job.token = kept[number]["token"]
            else:
                self._take_away(held, _LOST)
        self._set_ready(True)
        for number in kept:
            answered = self.held[number].answer if number in self.held else encode(_RELEASE | {"id": number})
            if answered is not None:
                await self.link.send(answered)
            if not self.confirm and number in self.held and answered is not None:
                self._handed_in(self.held[number])

    def _handed_in(self, held: _Held) -> None:
        self._forget(held)
        if held.stored is not None and not held.stored.done():
            held.stored.set_result("")

    def _set_ready(self, is_ready: bool) -> None:
        """Note whether messages about jobs can be sent, and wake who waits for one, or has lost its job."""
        self._is_ready = is_ready
        self._changed.set()
        self._changed.clear()

    def _grace_ends(self, answered: bool = False) -> None:
        """Stop the handlers whose jobs others may have by now; answers wait for a connection a while longer."""
        self._timer = None
        for held in list(self.held.values()):
            if answered or held.answer is None or not self._grace:
                self._take_away(held, "The connection was gone for longer than the grace time")
        if self.held:
            self._timer = asyncio.get_running_loop().call_later(LINK_TIMEOUT, self._grace_ends, True)


_RELEASE: Final[dict[str, Any]] = {"data": {"type": "release"}}


def encode_result(result: Any) -> dict[str, Any]:
    """Return the answer with a result, which must be JSON."""
    encode(result)
    return {"result": result}


def _failure(error: BaseException) -> dict[str, Any]:
    """Return the answer for an exception of a handler."""
    stack = "".join(traceback.format_exception(error))
    err = {"message": str(error) or type(error).__name__, "stack": stack}
    return {"err": {**err, "unrecoverable": True} if isinstance(error, UnrecoverableError) else err}


def _error(err: dict[str, Any]) -> ProxyError:
    return CLASSES.get(err["code"], ProxyError)(err["message"], err["code"])


def _flat(options: Mapping[str, Any]) -> Any:
    """Yield options as the query string has them."""
    for name, value in options.items():
        if name in ("limiter", "metrics"):
            yield from ((f"{name}.{each}", str(inner)) for each, inner in value.items())
        elif isinstance(value, str):
            yield name, value
        elif value is not None:
            yield name, encode(int(value) if isinstance(value, bool) and name == "confirm" else value)
