"""Calls and their replies over a link: matched by ids, made again where that is safe, else ended with an error."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bullmq_proxy.gateway.client.errors import (
    CLASSES,
    OutcomeUnknownError,
    ProxyError,
    TooManyRequestsError,
    UnreachableError,
)
from bullmq_proxy.gateway.client.link import Link
from bullmq_proxy.gateway.client.safe import is_made_here, made_safe

MOST_CALLS: Final = 10_000
"""Calls without a reply; a further one is refused."""
LINK_TIMEOUT: Final = 30.0
"""Seconds for which a call waits for a connection."""
REPEATS: Final = 5
"""How often a call is made again after an error that may pass."""
REPEAT_PAUSE: Final = 0.5
"""Seconds before that; the second pause is twice as long, and so on."""

_MAY_PASS: Final = frozenset({"KEYS_UNAVAILABLE", "OUTCOME_UNKNOWN", "REDIS_UNAVAILABLE", "SHUTTING_DOWN"})

encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""Write JSON; a value that has no such form is a TypeError or a ValueError."""

EMPTY: Any = {}
"""The default of data that is not given."""


@dataclass(slots=True, eq=False)
class _Call:
    """A call without its reply.

    Attributes:
        message: as it is sent.
        is_safe: whether it may be made again.
        writes: whether it may change anything.
        reply: its result.
        is_sent: on the present connection.
        was_sent: on any one.
        is_paused: it is made again when a pause has passed.
        repeats: how often it was made again after an error.
        timer: ends the wait for a connection, or the pause before the call is made again.
    """

    message: str
    is_safe: bool
    writes: bool
    reply: asyncio.Future[Any]
    is_sent: bool = False
    was_sent: bool = False
    is_paused: bool = False
    repeats: int = 0
    timer: asyncio.TimerHandle | None = None


class Calls:
    """The calls under way on one link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._pending: dict[str, _Call] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(self, data: dict[str, Any], *, is_safe: bool, writes: bool) -> Any:
        """Send a request and return its result.

        Args:
            data: of the message: `fn` and `args`, or a `type`.
            is_safe: whether it may be sent a second time when its reply is lost.
            writes: whether it may change anything.

        Raises:
            ProxyError: of the class of its code.
        """
        link = self._link
        if link.error is not None:
            raise _again(link.error)
        if len(self._pending) >= MOST_CALLS:
            raise TooManyRequestsError(f"{MOST_CALLS} calls have no reply yet: wait for some, or use addBulk")
        link.start()
        id = f"c{next(self._numbers)}"
        call = _Call(encode({"id": id, "data": data}), is_safe, writes, asyncio.get_running_loop().create_future())
        self._pending[id] = call
        try:
            await self._send(call)
            result = await call.reply
        finally:
            del self._pending[id]
            if call.timer is not None:
                call.timer.cancel()
        if call.was_sent and isinstance(result, dict) and is_made_here(data, result):
            result.pop("duplicate", None)  # it is the one that the first try has added
        return result

    async def opened(self) -> None:
        """Send what has not been sent on this connection."""
        for call in list(self._pending.values()):
            if not (call.is_sent or call.is_paused or call.reply.done()):
                await self._send(call)

    def broke(self) -> None:
        """End what may have happened and must not happen twice; the rest waits for the next connection."""
        for call in self._pending.values():
            if call.is_sent and not call.is_safe:
                self._fail(call, OutcomeUnknownError("The connection broke while the call was under way"))
            elif call.is_sent:
                self._wait_for_link(call)

    def stopped(self, error: ProxyError) -> None:
        """End all calls."""
        for task in self._tasks:
            task.cancel()
        for call in self._pending.values():
            self._fail(call, _again(error))

    def replied(self, id: Any, data: dict[str, Any]) -> bool:
        """Take a reply; return whether it was for one of these calls."""
        call = self._pending.get(id)
        if call is None:
            return isinstance(id, str)  # of a call that nobody waits for any more
        if "err" in data:
            self._refused(call, data["err"])
        elif not call.reply.done():
            call.reply.set_result(data.get("ok"))
        return True

    def _refused(self, call: _Call, err: dict[str, Any]) -> None:
        code = err["code"]
        if code not in _MAY_PASS or not call.is_safe or call.repeats >= REPEATS:
            self._fail(call, CLASSES.get(code, ProxyError)(err["message"], code))
            return
        call.is_sent, call.is_paused = False, True
        pause = REPEAT_PAUSE * 2**call.repeats
        call.repeats += 1
        call.timer = asyncio.get_running_loop().call_later(pause, self._repeat, call)

    def _repeat(self, call: _Call) -> None:
        call.is_paused = False
        task = asyncio.get_running_loop().create_task(self._send(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, call: _Call) -> None:
        if not self._link.is_open:
            self._wait_for_link(call)
            return
        if call.timer is not None:
            call.timer.cancel()
        call.is_sent = call.was_sent = True
        await self._link.send(call.message)

    def _wait_for_link(self, call: _Call) -> None:
        call.is_sent = False
        call.timer = asyncio.get_running_loop().call_later(LINK_TIMEOUT, self._give_up, call)

    def _give_up(self, call: _Call) -> None:
        trouble = self._link.trouble
        kind = OutcomeUnknownError if call.was_sent and call.writes else UnreachableError
        self._fail(call, kind(f"No connection for {LINK_TIMEOUT:g} s: {trouble}"))

    @staticmethod
    def _fail(call: _Call, error: ProxyError) -> None:
        if not call.reply.done():
            call.reply.set_exception(error)


class Functions:
    """What the methods for functions share."""

    api = "queue"

    def __init__(self, calls: Calls) -> None:
        """Bind the functions to the calls of a link."""
        self._calls = calls

    async def _read(self, fn: str, args: list[Any], *others: Any) -> Any:
        return await self._calls.call({"fn": fn, "args": args + given(others)}, is_safe=True, writes=False)

    async def _write(self, fn: str, args: list[Any], *others: Any) -> Any:
        args, is_safe = made_safe(self.api, fn, args + given(others))
        return await self._calls.call({"fn": fn, "args": args}, is_safe=is_safe, writes=True)

    def _jobs(self, shown: Any) -> Any:
        """Return objects for the jobs in a result."""
        raise NotImplementedError


def given(others: tuple[Any, ...]) -> list[Any]:
    """Return the arguments up to the last one that is given."""
    last = max((place for place, value in enumerate(others, 1) if value is not None), default=0)
    return list(others[:last])


def jobs_of(shown: Any, make: Any) -> Any:
    """Return what `make` makes of the jobs in a result: one, none, or a list; one that was refused stays as it is."""
    if isinstance(shown, list):
        return [jobs_of(each, make) for each in shown]
    return make(shown) if isinstance(shown, Mapping) and "err" not in shown else shown


def _again(error: ProxyError) -> ProxyError:
    """Return an error of one's own for each who is told: tracebacks grow."""
    return type(error)(error.message, error.code)
