"""Calls of the Queue API: from a function's name and arguments to the reply, on whatever connection they came."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Coroutine
from functools import partial
from itertools import takewhile
from time import perf_counter
from typing import Any, Final

from msgspec import Raw

from bullmq_proxy.gateway.broker.functions import MANAGING
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.held import check_held
from bullmq_proxy.gateway.broker.functions.table import Function, FunctionTable
from bullmq_proxy.gateway.broker.redis.errors import of_read
from bullmq_proxy.gateway.broker.redis.socket import Sink, TwoStepSink
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.sessions.interfaces import CallClient
from bullmq_proxy.gateway.sessions.results import encoded
from bullmq_proxy.gateway.sessions.under_way import CallLimits, UnderWay
from bullmq_proxy.gateway.turns import COMMAND_SIZE
from bullmq_proxy.gateway.values.histogram import CALLS

log = logging.getLogger(__name__)

_INTERNAL = GatewayError(ErrorCode.INTERNAL, "Internal error; the gateway's log has the details")
_SHUTTING_DOWN = GatewayError(ErrorCode.SHUTTING_DOWN, "The gateway is shutting down")
_TOO_MANY_WAIT = GatewayError(
    ErrorCode.TOO_MANY_REQUESTS, "Too many calls of this connection wait already; another connection can make more"
)


HEAVY_CALLS: Final = 32  # of a shard that run at a time: each may need many commands, and much memory
_REFUSALS: Final = frozenset(
    {
        ErrorCode.FORBIDDEN,
        ErrorCode.INVALID_ARGUMENTS,
        ErrorCode.TOO_MANY_REQUESTS,
        ErrorCode.UNAUTHORIZED,
        ErrorCode.UNKNOWN_FUNCTION,
    }
)
"""Codes of calls that were not carried out because of the client: a flood of them closes its connection."""

_Waiting = tuple[Sink, Function, list[Any], int]  # the last one: bytes of the arguments
_NONE: Final[deque[_Waiting]] = deque()  # stands for a line that nothing has stood in: one takes 0.6 KiB
_AT_A_TIME: Final = 4  # calls of one connection that run in tasks: each may read much, in Redis and for us


class Caller:
    """Runs the calls of one connection: they start in the order received, replies leave when they are ready.

    Hot functions run straight from the socket's callback and need no task. The others run in one each: a few at a time
    on each connection, and those that may be heavy a few at a time on all of them together. Functions that may take as
    long as the client likes are not among the few, and end with the connection. While calls wait, a pump starts them:
    one after the other, each when the one before has taken its first step.
    """

    __slots__ = (
        "__weakref__",
        "_audited",
        "_client",
        "_context",
        "_counters",
        "_draining",
        "_in_line",
        "_limits",
        "_patient",
        "_pump",
        "_running",
        "_table",
        "_target",
        "_tasks",
        "_turns",
        "_under_way",
        "_waiting",
        "in_flight",
    )

    def __init__(
        self,
        table: FunctionTable,
        target: Any,
        context: Context,
        client: CallClient,
        limits: CallLimits,
        under_way: UnderWay | None = None,
    ) -> None:
        """Make a caller whose replies go to `client`.

        Args:
            table: of the functions that can be called.
            target: what they are functions of, such as a queue.
            context: what else they can ask for; its grant decides which may be called.
            client: the way to the client.
            limits: of the calls under way.
            under_way: counts them, with what else is under way on the connection.
        """
        self.in_flight = 0  # unanswered calls
        self._table = table
        self._target = target
        self._context = context
        self._counters = context.broker.counters
        self._client = client
        self._limits = limits
        self._audited: frozenset[str] = MANAGING if limits.audits else frozenset()
        self._turns = limits.budget.turns
        self._under_way = under_way or UnderWay(client, limits)
        self._waiting: deque[_Waiting] = _NONE  # checked, and not started
        self._pump: asyncio.Task[None] | None = None  # starts them
        self._running = asyncio.Semaphore(_AT_A_TIME)  # calls in tasks
        self._tasks: dict[asyncio.Task[None], Function] = {}  # the loop holds tasks only weakly
        self._patient: dict[asyncio.Task[None], Function] = {}  # those that may take as long as they like
        self._draining = False
        self._in_line = False  # the first of those that wait is a hot one, and waits for its turn

    def call(self, id: Any, fn: str, args: list[Raw], size: int) -> None:
        """Run one call and reply to it.

        Args:
            id: what the client knows the call by.
            fn: the function's Node name.
            args: its arguments, each as JSON text.
            size: bytes of the message, or of its part, that asks for it.
        """
        self.in_flight += 1
        self._under_way.begin(size)
        self._counters.begun_calls += 1
        reply = partial(self._reply, id, size, fn, perf_counter())
        rights = self._context.rights
        try:
            rights.check_rate()
            function = self._table[fn]
            if not rights.grant.allows_any(function.permissions) and (refusal := self._refusal(function)):
                raise refusal
            bound = function.bind(args)
        except GatewayError as error:
            reply(error)
            return
        if function.direct and self._pump is None and not (self._turns.are_taken and self._under_way.takes_turns):
            rest = self._run_now(reply, function, bound)
            if rest is not None:
                self._pump = asyncio.create_task(self._run_waiting(rest), name="calls")
            return
        if self._waiting is _NONE:
            self._waiting = deque()
        self._waiting.append((reply, function, bound, size))
        if self._pump is None:
            self._pump = asyncio.create_task(self._run_waiting(), name="calls")

    def close(self) -> None:
        """Start no more calls: the connection is gone. Of those under way the ones that write end with their slice.

        Hot ones that wait for nothing but their turn are started: the client may ask for them on another connection.
        """
        if self._in_line:
            for reply, function, bound, _ in takewhile(_is_direct, self._waiting):
                if self._refusal(function) is None:
                    self._run_now(reply, function, bound)
        self._waiting.clear()
        self._context.has_ended = True
        self._context.rights.watchers.discard(self._rights_changed)
        self._end_waits()
        for task, function in self._tasks.items():
            if not function.writes:
                task.cancel()
        self._under_way.close()
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None

    def drain(self) -> None:
        """End the calls that may take as long as they like, and begin no more of them: the shard goes away."""
        self._draining = True
        self._end_waits()

    def _refusal(self, function: Function) -> GatewayError | None:
        grant = self._context.grant
        if grant.allows_any(function.permissions):  # the words of a refusal are made only for one: this is hot
            return None
        try:
            grant.check_any_permission(function.permissions, f"call {function.name}")
        except GatewayError as error:
            return error
        return None

    def _rights_changed(self) -> None:
        """End the patient calls that the key may not make any more; the others end soon anyway."""
        for task, function in self._patient.items():
            if self._refusal(function) is not None:
                task.cancel()

    def _end_waits(self) -> None:
        for task in self._patient:
            task.cancel()

    async def _run_waiting(self, rest: asyncio.Task[None] | None = None) -> None:
        """Start what waits, in its order, each as soon as it may; `rest` is that of a call that comes before."""
        try:
            if rest is not None:
                await asyncio.wait((rest,))
            while self._waiting:
                await self._run_next()
        except OSError:
            pass  # the connection ended while it was waited for
        finally:
            self._pump = None

    async def _run_next(self) -> None:
        function = self._waiting[0][1]
        refusal = self._refusal(function)  # the key's rights can change while it waits
        if refusal is None and not function.direct and not function.waits:
            await self._wait_for_place(function)
            if refusal := self._refusal(function):
                self._leave_place(function)
        commands = 0
        if refusal is None and function.direct and self._under_way.takes_turns:
            commands = 1 + self._waiting[0][3] // COMMAND_SIZE
            self._in_line = True
            await self._turns.take(commands)
            self._in_line = False
        reply, _, bound, size = self._waiting.popleft()
        if refusal is not None:
            reply(refusal)
        elif function.direct:
            turn = TwoStepSink(reply, partial(self._turns.give_back, commands))
            if (rest := self._run_now(turn, function, bound)) is not None:
                turn.executed()
                await asyncio.wait((rest,))
        else:
            if function.waits:
                self._start_wait(reply, function, bound, size)
            else:
                self._start_task(reply, function, bound, size)
            await asyncio.sleep(0)  # the task takes its first step

    async def _wait_for_place(self, function: Function) -> None:
        await self._running.acquire()
        await self._wait_until_read()
        if not function.heavy:
            return
        await self._limits.heavy.acquire()
        while self._under_way.is_unread:  # leave the place to another meanwhile
            self._limits.heavy.release()
            await self._wait_until_read()
            await self._limits.heavy.acquire()

    async def _wait_until_read(self) -> None:
        """Wait for a client that asks for much to read its replies."""
        if self._under_way.is_unread:
            await self._client.wait_writable()

    def _leave_place(self, function: Function) -> None:
        self._running.release()
        if function.heavy:
            self._limits.heavy.release()

    def _run_now(self, reply: Sink, function: Function, bound: list[Any]) -> asyncio.Task[None] | None:
        """Run a hot function; return the task of what it does over several turns of the loop, if there is any."""
        try:
            if function.in_context:
                rest = function.run(self._target, *bound, sink=reply, context=self._context)
            else:
                rest = function.run(self._target, *bound, sink=reply)
        except GatewayError as error:
            reply(error)
        except Exception:
            log.exception("%s failed", function.name)
            reply(_INTERNAL)
        else:
            if rest is not None:
                task = asyncio.create_task(self._run_rest(reply, function, rest), name=function.name)
                self._tasks[task] = function
                task.add_done_callback(self._tasks.pop)
                return task
        return None

    async def _run_rest(self, reply: Sink, function: Function, rest: Coroutine[Any, Any, None]) -> None:
        try:
            await rest
        except GatewayError as error:
            reply(error)
        except Exception:
            log.exception("%s failed", function.name)
            reply(_INTERNAL)

    def _start_wait(self, reply: Sink, function: Function, bound: list[Any], size: int) -> None:
        if self._draining:
            reply(_SHUTTING_DOWN)
        elif len(self._patient) >= self._limits.calls:
            reply(_TOO_MANY_WAIT)
        else:
            self._context.rights.watchers.add(self._rights_changed)
            self._under_way.begin_patience(size)
            self._start_task(reply, function, bound, size)

    def _start_task(self, reply: Sink, function: Function, bound: list[Any], size: int) -> None:
        task = asyncio.create_task(self._run(reply, function, bound), name=function.name)
        self._tasks[task] = function
        if function.waits:
            self._patient[task] = function
        task.add_done_callback(partial(self._ended, reply, function, size))

    def _ended(self, reply: Sink, function: Function, size: int, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task)
        if self._patient.pop(task, None) is None:
            self._leave_place(function)
        else:
            self._under_way.end_patience(size)
        if task.cancelled():  # before its first step: then nothing of `_run` was executed
            reply(self._refusal(function) or _SHUTTING_DOWN)

    async def _run(self, reply: Sink, function: Function, bound: list[Any]) -> None:
        try:
            provided = {"context": self._context} if function.in_context else {}
            if function.held:
                token = bound.pop()
                await check_held(self._target, bound[0], token, self._context.grant, f"call {function.name} for it")
            replicas = self._context.broker.replicas
            if replicas is None or not function.writes or function.waits:
                reply(await encoded(await function.run(self._target, *bound, **provided), self._turns))
                return
            # Of those that may take long one adds a job, which waits for the replicas by itself, and one hands out a
            # job, which does no harm a second time.
            link = self._target.link
            since = replicas.mark(link)
            text = await encoded(await function.run(self._target, *bound, **provided), self._turns)
            replicas.confirm(link, self._target.prefix, since, lambda error: reply(error or text))  # its place is free
        except GatewayError as error:
            reply(of_read(error) if not function.writes else error)
        except asyncio.CancelledError:  # the connection is gone or will be, or, for those that wait, the permission is
            reply(self._refusal(function) or _SHUTTING_DOWN)
        except Exception:
            log.exception("%s failed", function.name)
            reply(_INTERNAL)

    def _reply(self, id: Any, size: int, fn: str, began: float, result: Any) -> None:
        counters, seconds = self._counters, perf_counter() - began
        calls = counters.calls.get(fn) or counters.other_calls
        calls.counts[bisect_left(CALLS, seconds)] += 1  # each call comes by here
        calls.seconds += seconds
        if isinstance(result, GatewayError):
            calls.errors += 1
            counters.call_errors[result.code] += 1
            if result.code in _REFUSALS:
                self._client.penalize(size)
        if fn in self._audited:
            self._audit(fn, result)
        self._client.reply(id, result)
        self.in_flight -= 1
        self._under_way.end(size)

    def _audit(self, fn: str, result: Any) -> None:
        outcome = result.code.value if isinstance(result, GatewayError) else "ok"
        key = self._context.grant.key or "?"
        LogEvent.AUDIT.log(key=key, function=fn, queue=getattr(self._target, "name", "?"), outcome=outcome)


def _is_direct(waiting: _Waiting) -> bool:
    return waiting[1].direct
