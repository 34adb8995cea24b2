"""The pipelined link: one connection to Redis that carries the commands of everybody in this shard.

redis-py's asyncio client waits for each reply before it sends the next command. This link writes all commands of one
turn of the loop with one `write`, and matches the replies in order. It manages its connection: AUTH, SELECT, name,
reconnect, a deadline, and a bounded backlog while Redis is away. It never sends a command twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.errors import (
    PERMANENT,
    GreetingRefused,
    LostReply,
    RedisRefused,
    unavailable,
)
from bullmq_proxy.gateway.broker.redis.socket import Chunk, Entry, OnPush, RedisSocket, Sink, pack_command, resolve
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT: Final = 5.0  # s, for TCP and TLS; the handshake has the link's own deadline
_TLS_TIMEOUT: Final = 2.5  # s, for TLS: a server without it may wait for the rest of a command
_LONGEST_PAUSE: Final = 2.0  # s between two attempts to connect
_SHORTEST_PAUSE: Final = 0.05  # s

_STOPPING: Final = GatewayError(ErrorCode.SHUTTING_DOWN, "The gateway is shutting down")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """The limits of a shard's links.

    Attributes:
        name: for CLIENT SETNAME.
        deadline: seconds; a connection on which a command waits and no reply comes for this long is given up.
        backlog: the most commands that are kept while Redis is away.
        backlog_size: the most bytes of them.
        backlog_timeout: seconds that they are kept for; later ones fail at once until Redis is back.
        seats: how many queues may wait for jobs on a link of their own, and as many for events.
    """

    name: str
    deadline: float
    backlog: int
    backlog_size: int
    backlog_timeout: float
    seats: int


Setup = Callable[[Callable[..., Awaitable[Any]]], Awaitable[None]]
"""Prepares each new connection before its first command; takes a function that sends one command."""


class Link:
    """One pipelined connection, kept up until `close`."""

    def __init__(
        self, address: Address, options: LinkOptions, setup: Setup | None = None, on_push: OnPush | None = None
    ) -> None:
        """Make a link; `start` connects it. `on_push` takes what the server says unasked, if `setup` asks for it."""
        self.address = address
        self.times_up = 0  # connections made so far
        self.on_up: list[Callable[[], None]] = []
        self._options = options
        self._setup = setup
        self._make_socket = partial(RedisSocket, on_push)
        self._loop = asyncio.get_running_loop()
        self._out: list[Entry] = []  # not yet written; the backlog while there is no connection
        self._chunks: list[Chunk] = []  # of these commands
        self._size = 0  # of those bytes that came while there was no connection
        self._connection: RedisSocket | None = None
        self._up = asyncio.Event()
        self._failing = False  # Redis is away for longer than the backlog waits
        self._closed = False
        self._reason = "no answer in time"
        self._refused: RedisRefused | None = None  # at the start
        self._last_error: GatewayError = unavailable("not connected yet")
        self._task: asyncio.Task[None] | None = None
        self._check: asyncio.TimerHandle | None = None  # the next check of the deadline
        self._give_up: asyncio.TimerHandle | None = None  # when the backlog stops waiting
        self._seen: tuple[RedisSocket | None, int, float] = (None, 0, 0.0)  # at the last progress: its replies, when

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, so that commands are sent at once."""
        return self._connection is not None

    @property
    def last_error(self) -> GatewayError:
        """The reason for the last outage, as a new exception each time: raising one adds to its traceback."""
        return GatewayError(self._last_error.code, self._last_error.message)

    def open(self, *, give_in: bool = False) -> None:
        """Start to connect, and try again until it works; `give_in` ends that when the server refuses the login."""
        self._give_up_later()
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
            raise self._refused or GatewayError(
                ErrorCode.REDIS_UNAVAILABLE, f"{self.address.shown} cannot be reached: {self._reason}"
            )

    async def wait_up(self) -> None:
        """Wait until there is a connection."""
        await self._up.wait()

    async def close(self) -> None:
        """Close the connection; commands that still wait for a reply fail."""
        self._closed = True
        self._last_error = _STOPPING
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None  # what cancelled it holds its frames, and they hold us
        for timer in (self._give_up, self._check):
            if timer is not None:
                timer.cancel()
        if (connection := self._connection) is not None:
            self._drop(connection)
            await asyncio.wait((connection.lost,))
        self._fail_backlog()

    # Commands

    def send(
        self,
        command: bytes | list[Chunk],
        sink: Sink,
        *,
        decode: bool = False,
        replies: int = 1,
    ) -> None:
        """Send packed commands, in order with all others on this link.

        Args:
            command: in Redis protocol, as `pack_command` makes it, or in chunks.
            sink: takes the reply, which may be an error reply; or `LostReply`, or REDIS_UNAVAILABLE if it was not sent.
            decode: whether texts in the reply are str rather than bytes.
            replies: how many commands there are; the reply to the last one goes to the sink.
        """
        if self._connection is None:
            size = sum(map(len, command)) if isinstance(command, list) else len(command)
            if self._failing or self._closed or self._is_full(size):
                self._loop.call_soon(sink, self.last_error)
                return
            self._size += size
        elif not self._out:
            self._loop.call_soon(self._flush)
        self._out.append((sink, decode, replies))
        if isinstance(command, list):
            self._chunks += command
        else:
            self._chunks.append(command)

    def _is_full(self, size: int) -> bool:
        options = self._options
        return len(self._out) >= options.backlog or self._size + size > options.backlog_size

    def call(self, *args: Any, decode: bool = True) -> asyncio.Future[Any]:
        """Send one command and get a future of its reply; error replies raise GatewayError."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(pack_command(*args), partial(resolve, future), decode=decode)
        return future

    def _flush(self) -> None:
        connection = self._connection
        if connection is None or not self._out:
            return
        out, chunks = self._take_out()
        connection.transport.write(b"".join(chunks))
        connection.pending.extend(out)

    def _take_out(self) -> tuple[list[Entry], list[Chunk]]:
        out, chunks = self._out, self._chunks
        self._out, self._chunks, self._size = [], [], 0
        return out, chunks

    # The connection

    async def _stay_connected(self, *, give_in: bool) -> None:
        """Keep the connection up; with `give_in` stop if the server refuses the first one."""
        pause = _SHORTEST_PAUSE
        while not self._closed:
            try:
                connection = await self._connect()
            except RedisRefused as error:
                self._note(error, starts=give_in and self._seen[0] is None)
                if self._refused:
                    return  # `start` reports it
                pause = _LONGEST_PAUSE
            except (OSError, TimeoutError, GatewayError) as error:
                self._note(error, starts=give_in and self._seen[0] is None)
                pause = min(_LONGEST_PAUSE, pause * 2)
            else:
                since = self._loop.time()
                await connection.lost
                if self._loop.time() - since > _LONGEST_PAUSE:  # else the server accepts connections only to close them
                    pause = _SHORTEST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _connect(self) -> RedisSocket:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            connection = await self._open()
        try:
            async with asyncio.timeout(self._options.deadline):
                await self._greet(connection)
                if self._setup is not None:
                    await self._prepare(connection, self._setup)
        except BaseException:
            connection.transport.abort()
            if connection.fault:
                raise RedisRefused(f"{self.address.shown} does not answer as Redis does: {connection.fault}") from None
            self._check_open(connection)
            raise
        self._check_open(connection)
        self._connection = connection
        self.times_up += 1
        connection.on_lost = self._drop
        self._seen = (connection, connection.replies, self._loop.time())
        self._failing = False
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        self._up.set()
        self._flush()
        for hook in self.on_up:
            hook()
        return connection

    def _check_open(self, connection: RedisSocket) -> None:
        if connection.lost.done():
            hint = "" if self.address.tls else " (if it wants TLS, write rediss:// for redis://)"
            raise ConnectionResetError(f"it closes the connection at once{hint}")

    async def _open(self) -> RedisSocket:
        address = self.address
        if address.path is not None:
            _, connection = await self._loop.create_unix_connection(self._make_socket, address.path)
        else:
            try:
                _, connection = await self._loop.create_connection(
                    self._make_socket,
                    address.host,
                    address.port,
                    ssl=address.tls,
                    ssl_handshake_timeout=_TLS_TIMEOUT if address.tls else None,
                )
            except ssl.SSLCertVerificationError as error:
                raise RedisRefused(
                    f"The certificate of {address.shown} is not trusted ({error.verify_message}): name its CA with"
                    " ?ssl_ca_certs=FILE"
                ) from None
            except (ssl.SSLError, ConnectionAbortedError):
                raise RedisRefused(f"{address.shown} does not speak TLS: write redis:// for rediss://") from None
        return connection

    async def _greet(self, connection: RedisSocket) -> None:
        address = self.address
        commands: list[tuple[Any, ...]] = []
        if address.password is not None:
            commands.append(("AUTH", *filter(None, (address.username,)), address.password))
        if address.db:
            commands.append(("SELECT", address.db))
        commands.append(("PING",))
        try:
            for command in commands:
                await connection.ask(*command)
        except GatewayError as error:
            raise self._refusal(error) from None
        await self._set_name(connection)

    async def _prepare(self, connection: RedisSocket, setup: Setup) -> None:
        try:
            await setup(connection.ask)
        except GatewayError as error:
            raise self._refusal(error) from None

    async def _set_name(self, connection: RedisSocket) -> None:
        try:
            await connection.ask("CLIENT", "SETNAME", self._options.name)
        except GatewayError:
            log.debug("redis link: CLIENT SETNAME was refused", exc_info=True)  # some hosted servers do not have it

    def _refusal(self, error: GatewayError) -> GatewayError:
        text = self._masked(error.message.removeprefix("Redis refused the command: "))
        if text.startswith(PERMANENT):
            return RedisRefused(f"Redis at {self.address.shown} refused the login: {text[:100]}")
        if "DB index" in text:
            return RedisRefused(f"Redis at {self.address.shown} has no database {self.address.db}: {text[:100]}")
        return error if error.code is ErrorCode.REDIS_UNAVAILABLE else GreetingRefused(text[:200])

    def _masked(self, text: str) -> str:
        """Return an error of Redis' without the password: a server that does not know AUTH repeats its arguments."""
        return text.replace(self.address.password, "***") if self.address.password else text

    def _note(self, error: OSError | GatewayError, *, starts: bool) -> None:
        """Keep why there is no connection, and log each new reason; while the link `starts`, `start` reports it.

        Clients are not told where Redis is, nor how the gateway logs in there.
        """
        if isinstance(error, GreetingRefused):
            reason = error.why
        else:
            reason = error.message if isinstance(error, GatewayError) else _why(error)
        if starts:
            self._refused = error if isinstance(error, RedisRefused) else None
        elif reason != self._reason:
            log.warning("redis link to %s: %s", self.address.shown, reason)
        self._reason = reason
        if isinstance(error, RedisRefused):
            self._last_error = unavailable("the gateway is not let in, and its log says why")
        else:
            self._last_error = error if isinstance(error, GatewayError) else unavailable(reason)

    def _give_up_later(self) -> None:
        """Give the backlog up after `backlog_timeout`, counted from now, when the connection was lost."""
        self._give_up = self._loop.call_later(self._options.backlog_timeout, self._stop_waiting)

    def _stop_waiting(self) -> None:
        self._give_up = None
        if self._connection is None:
            self._failing = True
            self._fail_backlog()

    def _fail_backlog(self) -> None:
        out, _ = self._take_out()
        for sink, *_ in out:
            self._loop.call_soon(sink, self.last_error)

    def _drop(self, connection: RedisSocket, *, timed_out: bool = False) -> None:
        """Abort a connection and fail what waits on it for a reply. Commands that were not written stay queued."""
        if self._connection is connection:
            self._connection = None
            self._up.clear()
            if not self._closed:
                self._last_error = unavailable("the connection was lost")
                log.warning("redis link to %s: the connection was lost", self.address.shown)
                self._give_up_later()
        connection.on_lost = None
        connection.transport.abort()
        connection.fail(partial(LostReply, "no reply in time" if timed_out else "the connection was lost"))

    def _watch(self) -> None:
        """Check the deadline from time to time. Replies come in order, so that no command needs a timer of its own."""
        if self._closed:
            return
        self._check = self._loop.call_later(self._options.deadline / 4, self._watch)
        connection, now = self._connection, self._loop.time()
        if connection is None:
            return
        seen, replies, since = self._seen
        if seen is not connection or replies != connection.replies or not connection.pending:
            self._seen = (connection, connection.replies, now)
        elif now - since >= self._options.deadline:
            log.error("redis link to %s: no reply for %.0f s", self.address.shown, now - since)
            self._drop(connection, timed_out=True)


def _why(error: OSError) -> str:
    """Return the reason in the system's words. They name no address: event loops put it into their own texts."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return "TLS has failed"
    if isinstance(error, socket.gaierror):
        return error.strerror or "its name is not known"
    if error.errno is not None:
        return os.strerror(error.errno)
    # Without a number: a word of ours or of the loop's on one connection, or on several at once, each with its address.
    return str(error) if isinstance(error, ConnectionError) else "none of its addresses can be connected to"
