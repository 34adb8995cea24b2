"""Calls of the Queue API: from a function's name and arguments to the reply, on whatever connection they came."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from msgspec import Raw

from gateway.broker.functions import TABLE
from gateway.broker.queue import Queue
from gateway.sessions.ports import Outlet
from gateway.wire.envelope import encode, err, ok
from gateway.wire.errors import ErrorCode, GatewayError
from gateway.wire.functions import Function

log = logging.getLogger(__name__)

_INTERNAL = GatewayError(ErrorCode.INTERNAL, "Internal error; the gateway's log has the details")


class Caller:
    """Runs the calls of one connection: they start in the order received, replies leave when they are ready.

    Hot functions run straight from the socket's callback and need no task; the others run in one each. A task starts a
    turn of the loop later, so a hot call that comes right behind one waits that turn too.
    """

    def __init__(self, queue: Queue, outlet: Outlet, max_in_flight: int) -> None:
        """Make a caller.

        Args:
            queue: that the functions are called on.
            outlet: for the replies.
            max_in_flight: unanswered calls; with so many the connection is not read until half of them are answered.
        """
        self.in_flight = 0
        self._queue = queue
        self._outlet = outlet
        self._high = max_in_flight
        self._low = max_in_flight // 2
        self._held = False
        self._starting = 0  # calls that are to start in the next turn of the loop
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, id: bytes, fn: str, args: Raw) -> None:
        """Run one call and reply to it.

        Args:
            id: the request's id, as text.
            fn: the function's Node name.
            args: the JSON array of arguments.
        """
        self._begin()
        try:
            function = TABLE[fn]
            bound = function.bind(args)
            if not function.direct:
                self._start(id, function, bound)
            elif not self._starting:
                self._run_now(id, function, bound)
            else:
                self._starting += 1
                asyncio.get_running_loop().call_soon(self._run_direct, id, function, bound)
        except GatewayError as error:
            self._fail(id, error)

    def _run_direct(self, id: bytes, function: Function, bound: tuple[Any, ...]) -> None:
        self._starting -= 1
        self._run_now(id, function, bound)

    def _run_now(self, id: bytes, function: Function, bound: tuple[Any, ...]) -> None:
        try:
            function.run(self._queue, *bound, sink=partial(self._answer, id))
        except GatewayError as error:
            self._fail(id, error)
        except Exception:
            log.exception("%s failed", function.name)
            self._fail(id, _INTERNAL)

    def _start(self, id: bytes, function: Function, bound: tuple[Any, ...]) -> None:
        self._starting += 1
        task = asyncio.create_task(self._run(id, function, bound), name=function.name)
        self._tasks.add(task)  # the loop holds tasks only weakly
        task.add_done_callback(self._tasks.discard)

    async def _run(self, id: bytes, function: Function, bound: tuple[Any, ...]) -> None:
        self._starting -= 1
        try:
            self._answer(id, encode(await function.run(self._queue, *bound)))
        except GatewayError as error:
            self._fail(id, _as_read(error) if not function.writes else error)
        except Exception:
            log.exception("%s failed", function.name)
            self._fail(id, _INTERNAL)

    def _answer(self, id: bytes, result: Any) -> None:
        if isinstance(result, bytes):
            self._outlet.send(ok(id, result))
            self._end()
        else:
            self._fail(id, result)

    def _fail(self, id: bytes, error: GatewayError) -> None:
        self._outlet.send(err(id, error))
        self._end()

    def _begin(self) -> None:
        self.in_flight += 1
        if self.in_flight >= self._high and not self._held:
            self._held = True
            self._outlet.hold()

    def _end(self) -> None:
        self.in_flight -= 1
        if self._held and self.in_flight <= self._low:
            self._held = False
            self._outlet.proceed()


def _as_read(error: GatewayError) -> GatewayError:
    """Scripts do not say whether they write; a function that only reads has written nothing."""
    if error.code is ErrorCode.OUTCOME_UNKNOWN:
        return GatewayError(
            ErrorCode.REDIS_UNAVAILABLE, "The connection to Redis broke before the reply; nothing was written"
        )
    return error
