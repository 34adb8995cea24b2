"""The pipelined link: one connection to Redis that carries the commands of everybody in this shard.

redis-py's asyncio client waits for each reply before it sends the next command. This link writes the commands of one
turn of the loop together, and matches the replies in order. It manages its connection: AUTH, SELECT, name,
reconnect, a deadline, and a bounded backlog while Redis is away. It never sends a command twice that may have been
executed; what a server has refused for being no master goes to the one that is.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink, LinkOptions
from bullmq_proxy.gateway.broker.redis.errors import OF_SLOTS, REFUSALS, LostReply, RedisRefused, unavailable
from bullmq_proxy.gateway.broker.redis.greeting import NotMaster, check_open, greet, open_socket, reason_of
from bullmq_proxy.gateway.broker.redis.patience import Patience
from bullmq_proxy.gateway.broker.redis.server import LEFT, Server
from bullmq_proxy.gateway.broker.redis.socket import (
    Chunk,
    Entry,
    OnPush,
    RedisSocket,
    Setup,
    Sink,
    chunks_of,
    future_of,
    pack_command,
)
from bullmq_proxy.gateway.broker.redis.stale import take_reads
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.flushing import flush_soon

log = logging.getLogger(__name__)

BURST: Final = 16  # commands that are written at once: Redis begins with them while more are read
_CONNECT_TIMEOUT: Final = 5.0  # s, for TCP and TLS; the handshake has the link's own deadline
_SHORTEST_PAUSE: Final = 0.05  # s between two attempts to connect
_LONGEST_PAUSE: Final = 2.0  # s
_LEAVING: Final = 1.0  # s for the replies to what was written, on a connection that is given up

_STOPPING: Final = GatewayError(ErrorCode.SHUTTING_DOWN, "The gateway is shutting down")


class Link:
    """One pipelined connection, kept up until `close`. It follows its server when that moves.

    Attributes:
        server: that it leads to.
        leads_to: the address of the last attempt to connect.
        times_up: connections made so far.
        on_up: called after each of them.
        on_closed: called once it is closed.
        reason: why there is no connection, for the log; empty while there is one.
        is_failing: whether there has been none for longer than commands wait for one.
        is_closed: whether it is given up.
    """

    def __init__(
        self, server: Server | Address, options: LinkOptions, setup: Setup | None = None, on_push: OnPush | None = None
    ) -> None:
        """Make a link; `start` connects it. `on_push` takes what the server says unasked, if `setup` asks for it."""
        self.server = Server(server) if isinstance(server, Address) else server
        self.leads_to = self.server.address
        self.times_up = 0
        self.on_up: list[Callable[[], None]] = []
        self.on_closed: list[Callable[[], Awaitable[None]]] = []
        self._options = options
        self._setup = setup
        self._make_socket = partial(RedisSocket, on_push)
        self._loop = asyncio.get_running_loop()
        self._out: list[Entry] = []  # not yet written; the backlog while there is no connection
        self._chunks: list[Chunk] = []  # of these commands
        self._size = 0  # of those bytes that came while there was no connection
        self._refused: list[Entry] = []  # by the server that is being left; they come first at the next one
        self._patience = Patience(options.backlog_timeout)
        self._connection: RedisSocket | None = None
        self._leaving: RedisSocket | None = None  # the last one that was left in good order
        self._up = asyncio.Event()
        self.is_failing = False
        self.is_closed = False
        self.reason = "no answer in time"
        self._given_in: RedisRefused | None = None  # at the start
        self._last_error: GatewayError = unavailable("not connected yet")
        self._task: asyncio.Task[None] | None = None
        self._pause: asyncio.Future[None] | None = None  # between two attempts to connect
        self._check: asyncio.TimerHandle | None = None  # the next check of the deadline
        self._give_up: asyncio.TimerHandle | None = None  # when the backlog stops waiting
        self._seen: tuple[RedisSocket | None, int, float] = (None, 0, 0.0)  # at the last progress: its replies, when

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, so that commands are sent at once."""
        return self._connection is not None

    @property
    def epoch(self) -> int:
        """The number of the connection on which a command that is sent now is written."""
        return self.times_up + (self._connection is None)

    @property
    def backlog(self) -> int:
        """Commands that wait for a connection."""
        return len(self._refused) + len(self._out) if self._connection is None else 0

    @property
    def is_steady(self) -> bool:
        """Whether there is a connection, and no former one is left on which replies may come."""
        return self._connection is not None and (self._leaving is None or self._leaving.lost.done())

    @property
    def db(self) -> int:
        """The number of the database."""
        return self.server.address.db

    @property
    def last_error(self) -> GatewayError:
        """The reason for the last outage, as a new exception each time: raising one adds to its traceback."""
        return GatewayError(self._last_error.code, self._last_error.message)

    def open(self, *, give_in: bool = False) -> None:
        """Start to connect, and try again until it works; `give_in` ends that when the server refuses the login."""
        self.give_up_later()
        self.server.joined(self)
        self._task = asyncio.create_task(self._stay_connected(give_in=give_in), name="redis-link")
        self._watch()

    async def start(self, timeout: float | None = None) -> None:
        """Start to connect.

        Args:
            timeout: seconds to wait for the first connection; None does not wait.

        Raises:
            RedisRefused: the server refuses the login or the database.
            GatewayError: REDIS_UNAVAILABLE, not connected in time; the text says why.
        """
        self.open(give_in=timeout is not None)
        if timeout is None:
            return
        assert self._task is not None
        up = asyncio.create_task(self._up.wait())
        try:
            await asyncio.wait((up, self._task), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if not self._up.is_set():
            await self.close()
            raise self._given_in or GatewayError(
                ErrorCode.REDIS_UNAVAILABLE, f"{self.server.shown} cannot be reached: {self.reason}"
            )

    async def wait_up(self) -> None:
        """Wait until there is a connection."""
        await self._up.wait()

    async def close(self, error: GatewayError = _STOPPING) -> None:
        """Close the connection; commands that were not sent yet fail with `error`, and those that wait for a reply."""
        self.is_closed = True
        self._last_error = error
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None  # what cancelled it holds its frames, and they hold us
        for timer in (self._give_up, self._check):
            if timer is not None:
                timer.cancel()
        for connection in filter(None, (self._connection, self._leaving)):
            self._drop(connection)
            await asyncio.wait((connection.lost,))
        self._fail_backlog()
        await self.server.left(self)
        for hook in self.on_closed:
            await hook()

    def of(self, base: str) -> CommandLink:
        """Return the link for the queue whose keys begin with `base`: there is one for all."""
        return self

    def executors(self) -> tuple[Link, ...]:
        """Return the links to the masters that may have executed what was answered in this moment: this one."""
        return (self,)

    def sibling(self, options: LinkOptions, setup: Setup | None = None, on_push: OnPush | None = None) -> Link:
        """Make a further link to the same server, for commands that block; wherever the server goes, it follows."""
        return Link(self.server, options, setup, on_push)

    # Commands

    def send(
        self,
        command: bytes | list[Chunk],
        sink: Sink,
        *,
        decode: bool = False,
        replies: int = 1,
        route: Any = None,
    ) -> None:
        """Send packed commands, in order with all others on this link.

        Args:
            command: in Redis protocol, as `pack_command` makes it, or in chunks.
            sink: takes the reply, which may be an error reply; or `LostReply`, or REDIS_UNAVAILABLE if it was not sent.
            decode: whether texts in the reply are str rather than bytes.
            replies: how many commands there are; the reply to the last one goes to the sink.
            route: of a cluster, that sends it here and is told when it is refused.
        """
        if self._connection is None:
            size = sum(map(len, command)) if isinstance(command, list) else len(command)
            if self.is_failing or self.is_closed or self._is_full(size):
                self._loop.call_soon(sink, self.last_error)
                return
            self._size += size
        elif not self._out:
            flush_soon(self._loop, self._flush)
        self._out.append((sink, decode, replies, command, route))
        if isinstance(command, list):
            self._chunks += command
        else:
            self._chunks.append(command)
        if len(self._out) == BURST:
            self._flush()

    def _is_full(self, size: int) -> bool:
        return len(self._out) >= self._options.backlog or self._size + size > self._options.backlog_size

    def call(self, *args: Any, decode: bool = True) -> asyncio.Future[Any]:
        """Send one command and get a future of its reply; error replies raise GatewayError."""
        return future_of(lambda sink: self.send(pack_command(*args), sink, decode=decode))

    def _flush(self) -> None:
        connection = self._connection
        if connection is None or not self._out:
            return
        out, chunks = self._take_out()
        connection.write(b"".join(chunks))
        connection.pending.extend(out)

    def _take_out(self) -> tuple[list[Entry], list[Chunk]]:
        out, chunks = self._out, self._chunks
        self._out, self._chunks, self._size = [], [], 0
        return out, chunks

    # Commands that were not executed

    def take(self, route: Any) -> list[Entry]:
        """Take back the commands of a route that were not written, or refused."""
        taken = [entry for entry in self._refused + self._out if entry[4] is route]
        if taken:
            self._refused = [entry for entry in self._refused if entry[4] is not route]
            self._out = [entry for entry in self._out if entry[4] is not route]
            self._chunks = chunks_of(self._out)
        return taken

    def after_all(self, then: Callable[[], None]) -> None:
        """Call `then` once everything that was written before is answered, or will not be."""
        if self._connection is None:
            self._loop.call_soon(then)
        else:
            self._flush()
            self._connection.beat().add_done_callback(lambda _: then())

    def _take_refused(self, connection: RedisSocket, entry: Entry, word: str, reply: Any) -> bool:
        """Take a command that the server did not execute: it comes first on the next connection.

        Within the time that a backlog waits, counted from the first one that was refused; later ones fail.
        """
        if word in OF_SLOTS:
            if entry[4] is not None:
                return bool(entry[4].refused(entry, word, reply))
            if not self.server.has_slots:
                return False
            self.server.moved(word, reply)
        is_first = connection is self._connection
        self.leave(REFUSALS[word], connection)
        if self._patience.has_ended() or self.is_closed:
            return False
        self._refused.append(entry)
        if is_first:
            take_reads(connection.pending, self._refused.append)
        return True

    def leave(self, reason: str, connection: RedisSocket | None = None) -> None:
        """Move to where the server is now. What was written is answered first, if it is soon; the rest waits.

        Args:
            reason: for the log and for clients.
            connection: that a reply came on; nothing happens if it is left already.
        """
        leaving = self._connection
        if leaving is None or (connection is not None and connection is not leaving):
            return
        self._leaving = leaving
        self._lost(leaving, reason)
        timer = self._loop.call_later(_LEAVING, leaving.transport.abort)
        leaving.lost.add_done_callback(lambda _: timer.cancel())
        leaving.beat().add_done_callback(lambda _: leaving.transport.abort())

    def give_up(self, reason: str) -> None:
        """Give a connection up at once that does not answer, and make another one."""
        if (connection := self._connection) is not None:
            connection.take_back_unsent()
            self._drop(connection, reason)

    # The connection

    async def _stay_connected(self, *, give_in: bool) -> None:
        """Keep the connection up; with `give_in` stop if the server refuses the first one."""
        pause = _SHORTEST_PAUSE
        while not self.is_closed:
            try:
                connection = await self._connect()
            except (OSError, TimeoutError, GatewayError) as error:
                starts = give_in and self._seen[0] is None
                refusal = self._note(error, starts=starts)
                if starts and refusal is not None:
                    self._given_in = refusal
                    return  # `start` reports it
                pause = min(self.server.retry, pause * 2) if refusal is None else _LONGEST_PAUSE
            else:
                since = self._loop.time()
                await connection.lost
                if self._loop.time() - since > _LONGEST_PAUSE:  # else the server accepts connections only to close them
                    pause = _SHORTEST_PAUSE
            self._pause = self._loop.create_future()
            await asyncio.wait((self._pause,), timeout=pause * random.uniform(0.5, 1.0))
            self._pause = None

    def hurry(self) -> None:
        """Try to connect now, if the next attempt is still to come."""
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)

    async def _connect(self) -> RedisSocket:
        address = self.leads_to = await self.server.locate(self)
        async with asyncio.timeout(min(_CONNECT_TIMEOUT, self._options.silence)):
            connection = await open_socket(address, self._make_socket, self._options.silence)
        try:
            async with asyncio.timeout(min(self._options.deadline, self._options.silence)):
                await greet(connection, address, self._options.name, self._setup, needs_master=self.server.needs_master)
            if self.server.has_left(address):  # told of meanwhile: a master that was replaced may not know it yet
                raise unavailable(LEFT)
        except BaseException as error:
            connection.transport.abort()
            if not isinstance(error, RedisRefused):  # which says more than that the connection was closed
                check_open(connection, address)
            raise
        check_open(connection, address)
        self._connected(connection)
        return connection

    def _connected(self, connection: RedisSocket) -> None:
        self._connection = connection
        self.times_up += 1
        connection.on_lost = self._drop
        connection.on_refused = self._take_refused
        self._seen = (connection, connection.replies, self._loop.time())
        self.is_failing = False
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        self.reason = ""
        self._up.set()
        if self._refused:
            self._out, self._refused = self._refused + self._out, []
            self._chunks = chunks_of(self._out)
        self._flush()
        self.server.up(self)
        for hook in self.on_up:
            hook()

    def _note(self, error: OSError | GatewayError, *, starts: bool) -> RedisRefused | None:
        """Keep why there is no connection, and return an error that another try would not change.

        The log gets the reason, unless the link `starts`: then `start` reports it. Clients are not told where Redis is,
        nor how the gateway logs in there.
        """
        refusal = error if isinstance(error, RedisRefused) else None
        if isinstance(error, NotMaster) and not self.server.is_found:
            refusal = RedisRefused(error.why)
        self.reason = reason_of(error)
        if not starts:
            self.server.down(self, self.reason)
        if isinstance(error, RedisRefused):
            self._last_error = unavailable("the gateway is not let in, and its log says why")
        else:
            self._last_error = error if isinstance(error, GatewayError) else unavailable(self.reason)
        return refusal

    def give_up_later(self) -> None:
        """Give the backlog up after `backlog_timeout`, counted from now, when the connection was lost."""
        if self._give_up is not None:
            self._give_up.cancel()
        self._give_up = self._loop.call_later(self._options.backlog_timeout, self._stop_waiting)

    def _stop_waiting(self) -> None:
        self._give_up = None
        if self._connection is None:
            self.is_failing = True
            self._fail_backlog()

    def _fail_backlog(self) -> None:
        refused, self._refused = self._refused, []
        for sink, *_ in refused + self._take_out()[0]:
            self._loop.call_soon(sink, self.last_error)

    def _lost(self, connection: RedisSocket, reason: str) -> None:
        """Take note that the connection has gone, or is being left."""
        if self._connection is connection:
            self._connection = None
            self._up.clear()
            self.reason = reason
            if not self.is_closed:
                self._last_error = unavailable(reason)
                self.server.down(self, reason)
                self.give_up_later()

    def _drop(self, connection: RedisSocket, reason: str = "the connection was lost") -> None:
        """Abort a connection and fail what waits on it for a reply. Commands that were not written stay queued."""
        self._lost(connection, reason)
        connection.on_lost = None
        connection.transport.abort()
        connection.fail(partial(LostReply, reason))

    def _watch(self) -> None:
        """Check the deadline from time to time. Replies come in order, so that no command needs a timer of its own.

        A connection on which nothing is under way is asked for a sign of life.
        """
        if self.is_closed:
            return
        self._check = self._loop.call_later(self._options.deadline / 4, self._watch)
        connection, now = self._connection, self._loop.time()
        if connection is None:
            return
        seen, replies, since = self._seen
        if seen is not connection or replies != connection.replies or not connection.pending:
            if seen is connection and replies == connection.replies:
                connection.beat()
            self._seen = (connection, connection.replies, now)
        elif now - since >= self._options.deadline:
            log.error("redis link to %s: no reply for %.0f s", self.server.shown, now - since)
            self.give_up("no reply in time")
            self.server.silent(self)
