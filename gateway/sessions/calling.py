"""Calls of the Queue API: from a function's name and arguments to the reply, on whatever connection they came."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from msgspec import Raw

from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.table import Function, FunctionTable
from bullmq_proxy.gateway.broker.redis.errors import of_read
from bullmq_proxy.gateway.broker.redis.socket import Sink
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.sessions.interfaces import Client
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.wire.envelope import err, ok

log = logging.getLogger(__name__)

_INTERNAL = GatewayError(ErrorCode.INTERNAL, "Internal error; the gateway's log has the details")
_SHUTTING_DOWN = GatewayError(ErrorCode.SHUTTING_DOWN, "The gateway is shutting down")
_TOO_MANY_WAIT = GatewayError(
    ErrorCode.TOO_MANY_REQUESTS, "Too many calls of this connection wait already; another connection can make more"
)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How much of one connection may be under way; beyond it the socket is not read until half of it is done.

    Attributes:
        calls: unanswered ones. Those that may take as long as they like are counted apart, and refused beyond it: with
            them a connection that is not read might never be read again.
        size: bytes of their arguments, and as many of replies that the client has not read.
    """

    calls: int
    size: int


_AT_A_TIME: Final = 4  # calls of one connection that run in tasks: each may read much, in Redis and for us

_Waiting = tuple[Sink, Function, list[Any]]


class Caller:
    """Runs the calls of one connection: they start in the order received, replies leave when they are ready.

    Hot functions run straight from the socket's callback and need no task; the others run in one each: a few at a time
    on each connection, and those that may be heavy a few at a time on all of them together. A task starts a turn of the
    loop later, and what comes behind it waits for that. Functions that may take as long as the client likes are not
    among the few, and end with the connection.
    """

    def __init__(self, table: FunctionTable, target: Any, context: Context, client: Client, limits: CallLimits) -> None:
        """Make a caller whose replies go to `client`.

        Args:
            table: of the functions that can be called.
            target: what they are functions of, such as a queue.
            context: what else they can ask for; its grant decides which may be called.
            client: the way to the client.
            limits: of the calls under way.
        """
        self.in_flight = 0
        self._size = 0  # bytes of the arguments in flight
        self._table = table
        self._target = target
        self._context = context
        self._counters = context.broker.counters
        self._client = client
        self._limits = limits
        self._held = False
        self._waiting: deque[_Waiting] = deque()  # checked, and not started
        self._running = 0  # calls in tasks
        self._is_at_gate = False  # the first that waits does so for a place among the heavy ones of the shard
        self._has_place = False  # there, for the first that waits
        self._starting = False  # a task is to take its first step in the next turn of the loop
        self._reading: asyncio.Task[None] | None = None  # waits until the client has read its replies
        self._tasks: dict[asyncio.Task[None], Function] = {}  # the loop holds tasks only weakly
        self._patient: dict[asyncio.Task[None], Function] = {}  # those that may take as long as they like
        self._draining = False

    def call(self, id: bytes, fn: str, args: list[Raw]) -> None:
        """Run one call and reply to it.

        Args:
            id: the request's id, as text.
            fn: the function's Node name.
            args: its arguments, each as JSON text.
        """
        size = sum(map(len, args))
        self._begin(size)
        self._counters.calls += 1
        reply = partial(self._reply, id, size)
        try:
            self._context.rights.check_rate()
            function = self._table[fn]
            self._check_permission(function)
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
        """The connection is gone: no call starts; of those under way the ones that write run to their end."""
        self._waiting.clear()
        if self._is_at_gate:
            self._is_at_gate = False
            self._context.broker.gate.go_away(self._pass_gate)
        self._context.rights.watchers.discard(self._rights_changed)
        self._end_waits()
        for task, function in self._tasks.items():
            if not function.writes:
                task.cancel()
        if self._reading is not None:
            self._reading.cancel()

    def drain(self) -> None:
        """The shard goes away: calls that may take as long as they like are over, and none begins."""
        self._draining = True
        self._end_waits()

    def _check_permission(self, function: Function) -> None:
        grant = self._context.grant
        if not grant.allows(function.permission):  # the words of the refusal are made only for one: this is hot
            grant.check_permission(function.permission, f"call {function.name}")

    def _refusal(self, function: Function) -> GatewayError | None:
        try:
            self._check_permission(function)
        except GatewayError as error:
            return error
        return None

    def _rights_changed(self) -> None:
        """End the patient calls that the key may not make any more; others are over in a moment."""
        for task, function in self._patient.items():
            if self._refusal(function) is not None:
                task.cancel()

    def _end_waits(self) -> None:
        for task in self._patient:
            task.cancel()

    def _start(self) -> None:
        """Start what waits, in its order, as far as it may start now."""
        while self._waiting and not self._starting and not self._is_at_gate:
            reply, function, _ = self._waiting[0]
            if refusal := self._refusal(function):  # the key's rights have changed meanwhile
                self._waiting.popleft()
                reply(refusal)
            elif function.direct:
                self._run_now(*self._waiting.popleft())
            elif function.waits:
                self._start_wait(*self._waiting.popleft())
            elif self._running >= _AT_A_TIME:
                return
            elif self._client.write_buffer_size >= self._limits.size:
                self._await_reading()
                return
            elif function.heavy and not self._enter_gate():
                return
            else:
                self._start_task(*self._waiting.popleft())

    def _enter_gate(self) -> bool:
        """Take a place among the heavy calls of the shard, or line up for one: each connection once, which is fair."""
        if self._has_place:
            self._has_place = False
            return True
        self._is_at_gate = not self._context.broker.gate.enter(self._pass_gate)
        return not self._is_at_gate

    def _pass_gate(self) -> bool:
        """A place is there; returns whether it is taken: much may have changed while it was waited for."""
        self._is_at_gate, self._has_place = False, True
        self._start()
        is_taken, self._has_place = not self._has_place, False
        return is_taken

    def _run_now(self, reply: Sink, function: Function, bound: list[Any]) -> None:
        try:
            if function.in_context:
                rest = function.run(self._target, *bound, sink=reply, context=self._context)
            else:
                rest = function.run(self._target, *bound, sink=reply)
            if rest is not None:
                self._starting = True
                task = asyncio.create_task(self._run_rest(reply, function, rest), name=function.name)
                self._tasks[task] = function
                task.add_done_callback(self._tasks.pop)
        except GatewayError as error:
            reply(error)
        except Exception:
            log.exception("%s failed", function.name)
            reply(_INTERNAL)

    async def _run_rest(self, reply: Sink, function: Function, rest: Coroutine[Any, Any, None]) -> None:
        """What a hot function does over several turns of the loop; what comes behind it waits for the end of that."""
        try:
            await rest
        except GatewayError as error:
            reply(error)
        except Exception:
            log.exception("%s failed", function.name)
            reply(_INTERNAL)
        finally:
            self._started()

    def _start_wait(self, reply: Sink, function: Function, bound: list[Any]) -> None:
        if self._draining:
            reply(_SHUTTING_DOWN)
        elif len(self._patient) >= self._limits.calls:
            reply(_TOO_MANY_WAIT)
        else:
            self._context.rights.watchers.add(self._rights_changed)
            self._start_task(reply, function, bound)
            self._proceed_if_room()

    def _start_task(self, reply: Sink, function: Function, bound: list[Any]) -> None:
        self._running += not function.waits
        self._starting = True
        task = asyncio.create_task(self._run(reply, function, bound), name=function.name)
        self._tasks[task] = function
        if function.waits:
            self._patient[task] = function
        task.add_done_callback(partial(self._ended, reply, function))
        asyncio.get_running_loop().call_soon(self._started)  # comes behind the task's first step

    def _ended(self, reply: Sink, function: Function, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task)
        self._patient.pop(task, None)
        if function.heavy:
            self._context.broker.gate.leave()
        if task.cancelled():  # before its first step: then nothing of `_run` was executed
            reply(self._refusal(function) or _SHUTTING_DOWN)

    def _started(self) -> None:
        self._starting = False
        self._start()

    async def _run(self, reply: Sink, function: Function, bound: list[Any]) -> None:
        try:
            provided = {"context": self._context} if function.in_context else {}
            reply(encode(await function.run(self._target, *bound, **provided)))
        except GatewayError as error:
            reply(of_read(error) if not function.writes else error)
        except asyncio.CancelledError:  # the connection is gone or will be, or, for those that wait, the permission is
            reply(self._refusal(function) or _SHUTTING_DOWN)
        except Exception:
            log.exception("%s failed", function.name)
            reply(_INTERNAL)
        finally:
            self._running -= not function.waits
            self._start()

    def _reply(self, id: bytes, size: int, result: Any) -> None:
        if isinstance(result, bytes):
            self._client.send(*ok(id, result))
        elif isinstance(result, tuple):
            self._client.send(*ok(id, *result))
        else:
            self._counters.refused_calls += 1
            self._client.send(err(id, result))
        self._end(size)

    # Backpressure

    def _begin(self, size: int) -> None:
        self.in_flight += 1
        self._size += size
        if not self._held and self._is_full():
            self._held = True
            self._client.pause_reading()

    def _is_full(self) -> bool:
        limits = self._limits
        return (
            self._impatient >= limits.calls
            or self._size >= limits.size
            or self._client.write_buffer_size >= limits.size
        )

    def _end(self, size: int) -> None:
        self.in_flight -= 1
        self._size -= size
        self._proceed_if_room()

    @property
    def _impatient(self) -> int:
        """Calls under way but for those that may take as long as they like."""
        return self.in_flight - len(self._patient)

    def _proceed_if_room(self) -> None:
        if self._held and self._impatient <= self._limits.calls // 2 and self._size <= self._limits.size // 2:
            self._held = False
            if self._client.write_buffer_size < self._limits.size:
                self._client.resume_reading()
            else:
                self._await_reading()

    def _await_reading(self) -> None:
        """A client that asks for much reads its replies before more of its calls are read, or started."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._go_on_when_read(), name="unread replies")

    async def _go_on_when_read(self) -> None:
        with suppress(OSError):  # the connection ended while it was waited for
            await self._client.wait_writable()
            self._reading = None
            if not self._held:
                self._client.resume_reading()
            self._start()
