"""Calls of the Queue API: from a function's name and arguments to the reply, on whatever connection they came."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from msgspec import Raw

from gateway.broker.connection import Sink
from gateway.broker.functions import TABLE
from gateway.broker.queue import Queue
from gateway.sessions.ports import Outlet
from gateway.wire.envelope import encode, err, ok
from gateway.wire.errors import ErrorCode, GatewayError
from gateway.wire.functions import Function

log = logging.getLogger(__name__)

_INTERNAL = GatewayError(ErrorCode.INTERNAL, "Internal error; the gateway's log has the details")


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How much of one connection may be under way; beyond it the socket is not read until half of it is done.

    Attributes:
        calls: unanswered ones.
        size: bytes of their arguments, and as many of replies that the client has not read.
    """

    calls: int
    size: int


_AT_A_TIME: Final = 4  # calls of one connection that run in tasks: each may read much, in Redis and for us

_Waiting = tuple[Sink, Function, list[Any]]


class Caller:
    """Runs the calls of one connection: they start in the order received, replies leave when they are ready.

    Hot functions run straight from the socket's callback and need no task; the others run in one each, a few at a time.
    A task starts a turn of the loop later, and what comes behind it waits for that.
    """

    def __init__(self, queue: Queue, outlet: Outlet, limits: CallLimits) -> None:
        """Make a caller for `queue` whose replies go to `outlet`."""
        self.in_flight = 0
        self._size = 0  # bytes of the arguments in flight
        self._queue = queue
        self._outlet = outlet
        self._limits = limits
        self._held = False
        self._waiting: deque[_Waiting] = deque()  # checked, and not started
        self._running = 0  # calls in tasks
        self._starting = False  # a task is to take its first step in the next turn of the loop
        self._reading: asyncio.Task[None] | None = None  # waits until the client has read its replies
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, id: bytes, fn: str, args: list[Raw]) -> None:
        """Run one call and reply to it.

        Args:
            id: the request's id, as text.
            fn: the function's Node name.
            args: its arguments, each as JSON text.
        """
        size = sum(map(len, args))
        self._begin(size)
        reply = partial(self._reply, id, size)
        try:
            function = TABLE[fn]
            bound = function.bind(args)
        except GatewayError as error:
            reply(error)
            return
        if function.direct and not self._waiting and not self._starting:
            self._run_now(reply, function, bound)
        else:
            self._waiting.append((reply, function, bound))
            self._start()

    def close(self) -> None:
        """The connection is gone: calls under way run to their end, and no other one starts."""
        self._waiting.clear()
        if self._reading is not None:
            self._reading.cancel()

    def _start(self) -> None:
        """Start what waits, in its order, as far as it may start now."""
        while self._waiting and not self._starting:
            _, function, _ = self._waiting[0]
            if function.direct:
                self._run_now(*self._waiting.popleft())
            elif self._running >= _AT_A_TIME:
                return
            elif self._outlet.unread >= self._limits.size:
                self._await_reading()
                return
            else:
                self._start_task(*self._waiting.popleft())

    def _run_now(self, reply: Sink, function: Function, bound: list[Any]) -> None:
        try:
            function.run(self._queue, *bound, sink=reply)
        except GatewayError as error:
            reply(error)
        except Exception:
            log.exception("%s failed", function.name)
            reply(_INTERNAL)

    def _start_task(self, reply: Sink, function: Function, bound: list[Any]) -> None:
        self._running += 1
        self._starting = True
        task = asyncio.create_task(self._run(reply, function, bound), name=function.name)
        self._tasks.add(task)  # the loop holds tasks only weakly
        task.add_done_callback(self._tasks.discard)
        asyncio.get_running_loop().call_soon(self._started)  # comes behind the task's first step

    def _started(self) -> None:
        self._starting = False
        self._start()

    async def _run(self, reply: Sink, function: Function, bound: list[Any]) -> None:
        try:
            reply(encode(await function.run(self._queue, *bound)))
        except GatewayError as error:
            reply(_as_read(error) if not function.writes else error)
        except Exception:
            log.exception("%s failed", function.name)
            reply(_INTERNAL)
        finally:
            self._running -= 1
            self._start()

    def _reply(self, id: bytes, size: int, result: Any) -> None:
        if isinstance(result, bytes):
            self._outlet.send(*ok(id, result))
        elif isinstance(result, tuple):
            self._outlet.send(*ok(id, *result))
        else:
            self._outlet.send(err(id, result))
        self._end(size)

    # Backpressure

    def _begin(self, size: int) -> None:
        self.in_flight += 1
        self._size += size
        if not self._held and self._is_full():
            self._held = True
            self._outlet.hold()

    def _is_full(self) -> bool:
        limits = self._limits
        return self.in_flight >= limits.calls or self._size >= limits.size or self._outlet.unread >= limits.size

    def _end(self, size: int) -> None:
        self.in_flight -= 1
        self._size -= size
        if self._held and self.in_flight <= self._limits.calls // 2 and self._size <= self._limits.size // 2:
            self._held = False
            if self._outlet.unread < self._limits.size:
                self._outlet.proceed()
            else:
                self._await_reading()

    def _await_reading(self) -> None:
        """A client that asks for much reads its replies before more of its calls are read, or started."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._go_on_when_read(), name="unread replies")

    async def _go_on_when_read(self) -> None:
        with suppress(OSError):  # the connection ended while it was waited for
            await self._outlet.drained()
            self._reading = None
            if not self._held:
                self._outlet.proceed()
            self._start()


def _as_read(error: GatewayError) -> GatewayError:
    """Scripts do not say whether they write; a function that only reads has written nothing."""
    if error.code is ErrorCode.OUTCOME_UNKNOWN:
        return GatewayError(
            ErrorCode.REDIS_UNAVAILABLE, "The connection to Redis broke before the reply; nothing was written"
        )
    return error
