"""The listener: from a TCP connection to a session, or to the answer that refuses it."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from bullmq_proxy import gateway
from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.access.authenticator import Authenticator
from bullmq_proxy.gateway.access.credentials import is_host_allowed, is_origin_allowed, presented_key
from bullmq_proxy.gateway.access.grants import Rights
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net import handshake, http
from bullmq_proxy.gateway.net.connection import Connection, closed
from bullmq_proxy.gateway.net.keepalive import Keepalive
from bullmq_proxy.gateway.net.shared import Shared
from bullmq_proxy.gateway.net.unopened import Unopened
from bullmq_proxy.gateway.sessions.budget import Budget
from bullmq_proxy.gateway.sessions.interfaces import Client, Session
from bullmq_proxy.gateway.value_types import is_loopback
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.connection_options import Limits
from bullmq_proxy.gateway.wire.endpoints import PageEndpoint, SessionEndpoint
from bullmq_proxy.gateway.wire.routes import RouteParameters, Target, parse_target, validate

log = logging.getLogger(__name__)

# The library logs each connection, and each scanner that sends no handshake, as it would for one user's own program;
# on `debug` it would log keys and payloads. A logger of its own leaves the one of an embedding program alone.
_QUIET: Final = logging.getLogger(f"{__name__}.websockets")

_OPEN_TIMEOUT: Final = 10.0  # s from accept to handshake
_BACKLOG: Final = 4096
_KEYS_PERIOD: Final = 1.0  # s between two looks for keys that have expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The settings of a listener: who is let in, and the limits of a connection."""

    authenticator: Authenticator
    allowed_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...] | None  # None: any
    limits: Limits
    max_message_size: int  # bytes
    max_write_buffer: int  # bytes
    bad_messages_per_second: int
    max_connections: int | None
    max_connections_per_address: int | None
    links: int  # to Redis, as many as there may be
    ping_interval: float  # s
    ping_timeout: float  # s


Where = socket.socket | tuple[str, int]
"""Where to listen: a listening socket, or a host and a port, of which 0 picks a free one."""

OpenSession = Callable[[SessionEndpoint, RouteParameters, Rights, Client], Session]
ReadPage = Callable[[PageEndpoint], Awaitable[Response]]


class Listener:
    """Accepts connections on one socket."""

    def __init__(self, admission: Admission, budget: Budget, open_session: OpenSession, read_page: ReadPage) -> None:
        """Make a listener; `start` begins to accept.

        Args:
            admission: who is let in, and the limits of a connection.
            budget: of the shard, to which what is read counts.
            open_session: makes the session of an endpoint, with the rights of the client's key.
            read_page: answers a request for a page.
        """
        self._admission = admission
        self._open_session = open_session
        self._read_page = read_page
        self._server: Server | None = None
        self._others: dict[int, Server] = {}  # that accept on the sockets of others, by slot
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._shared = Shared(
            admission.max_message_size,
            admission.max_write_buffer,
            admission.bad_messages_per_second,
            budget,
            Unopened(admission.max_connections, admission.max_connections_per_address, admission.links),
        )
        self._draining = False
        self.accepted = 0

    async def start(self, where: Where) -> None:
        """Accept connections on a listening socket, or on a host and a port."""
        admission = self._admission
        _QUIET.setLevel(max(logging.WARNING, log.getEffectiveLevel()))
        self._server = await self._accept_on(where, partial(Connection, self._shared))
        keepalive = Keepalive(lambda: self.connections, admission.ping_interval, admission.ping_timeout)
        self._tasks = [
            asyncio.create_task(keepalive.run(), name="keepalive"),
            asyncio.create_task(self._watch_keys(), name="keys"),
            asyncio.create_task(self._shared.watch(), name="who does not get on"),
        ]

    async def _accept_on(self, where: Where, create_connection: Callable[..., Connection]) -> Server:
        admission = self._admission
        if isinstance(where, tuple):
            place: dict[str, Any] = dict(zip(("host", "port"), where, strict=True))
        else:
            place = {"sock": where}
            if where.family == socket.AF_UNIX:
                # The socket's file belongs to whoever has opened it: other shards and our successor listen there, too.
                place |= {"unix": True, "cleanup_socket": False}
        return await serve(
            self._serve,
            **place,
            backlog=_BACKLOG,
            create_connection=create_connection,  # type: ignore[arg-type] # it is only called
            process_request=self._process_request,  # type: ignore[arg-type]
            process_response=self._process_response,
            compression=None,
            server_header=f"bullmq-proxy/{gateway.__version__}",
            open_timeout=_OPEN_TIMEOUT,
            ping_interval=None,  # see keepalive.py
            max_size=admission.max_message_size,
            logger=_QUIET,
        )

    def serve_also(self, others: Mapping[int, socket.socket]) -> None:
        """Accept on the sockets of these slots, too, and no more on those of others that we were told of before."""
        self._tasks.append(asyncio.create_task(self._serve_also(others), name="sockets of others"))

    async def _serve_also(self, others: Mapping[int, socket.socket]) -> None:
        def create_connection(protocol: ServerProtocol, _: Server, **options: Any) -> Connection:
            """Make a connection of our own server: it stays when its socket is served elsewhere again."""
            return Connection(self._shared, protocol, self._server, **options)

        async with self._changing:
            for slot in self._others.keys() - others.keys():
                self._others.pop(slot).close(close_connections=False)
            for slot in others.keys() - self._others.keys():
                if not self._draining:
                    log.info("nobody serves slot %d: its connections are taken here, too", slot)
                    self._others[slot] = await self._accept_on(others[slot].dup(), create_connection)
        self._tasks = [task for task in self._tasks if not task.done()]

    @property
    def connections(self) -> set[Connection]:
        """All open connections."""
        return cast("set[Connection]", self._server.connections if self._server else set())

    @property
    def open(self) -> int:
        """The number of open connections; to count `connections` means to look at each of them."""
        return len(self._shared.open)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        sock: socket.socket = next(iter(self._server.sockets))
        port: int = sock.getsockname()[1]
        return port

    # The way in

    async def _process_request(self, connection: Connection, request: Request) -> Response:
        try:
            return await self._admit(connection, request)
        except GatewayError as error:
            return http.refusal(error)

    async def _admit(self, connection: Connection, request: Request) -> Response:
        """Check a request in the order that gives nothing away: host, path, key, origin, and only then the details."""
        self._check_host(connection, request)
        self._shared.unopened.check(connection)
        target = parse_target(request.path)
        endpoint = target.endpoint
        methods = http.METHODS if isinstance(endpoint, PageEndpoint) else http.METHODS[:1]
        if request.method not in methods:
            return http.method_not_allowed(methods)
        if request.method == "OPTIONS":
            return http.options(methods)
        account = self._authenticate(target, request)
        if isinstance(endpoint, SessionEndpoint) and (refusal := handshake.refusal(request)):
            return refusal
        parameters = validate(target, self._admission.limits)
        account.check(endpoint, parameters.queue, parameters.effects)
        if isinstance(endpoint, PageEndpoint):
            return await self._read_page(endpoint)
        self._refuse_when_draining()
        connection.enter(account, endpoint, parameters.queue, parameters.effects)
        await self._prepare(self._open_session(endpoint, parameters, account.rights, connection), connection)
        # Both can have changed meanwhile.
        self._refuse_when_draining()
        account.check(endpoint, parameters.queue, parameters.effects)
        return handshake.acceptance(request)

    def _check_host(self, connection: Connection, request: Request) -> None:
        """Refuse, where no key is asked for, a browser that was led here over a loopback address."""
        allowed, here = self._admission.allowed_hosts, connection.transport.get_extra_info("sockname")
        if allowed is None or not isinstance(here, tuple) or not is_loopback(here[0]):  # of a unix socket: its path
            return
        if not is_host_allowed(request.headers, allowed):
            raise GatewayError(
                ErrorCode.FORBIDDEN,
                "This host name may not be used here without a key: use localhost, or name it in allowed_hosts",
            )

    def _authenticate(self, target: Target, request: Request) -> Account:
        authenticator = self._admission.authenticator
        if target.endpoint.value.permissions is None:
            return authenticator.nobody
        account = authenticator.authenticate(presented_key(request.headers, target.token))
        if not is_origin_allowed(request.headers, self._admission.allowed_origins):
            raise GatewayError(ErrorCode.FORBIDDEN, "This page's origin is not allowed to connect")
        return account

    def _refuse_when_draining(self) -> None:
        if self._draining:
            raise GatewayError(ErrorCode.SHUTTING_DOWN, "The gateway is shutting down")

    @staticmethod
    async def _prepare(session: Session, connection: Connection) -> None:
        """Prepare the session and hand it to its connection; whoever has it must say once when it has ended."""
        try:
            await session.prepare()
        except BaseException:
            session.connection_lost()
            raise
        if not connection.attach(session):  # the client has gone meanwhile
            session.connection_lost()

    @staticmethod
    def _process_response(connection: ServerConnection, request: Request, response: Response) -> Response | None:
        if response.status_code >= HTTPStatus.BAD_REQUEST and response.headers["Content-Type"] == http.TEXT:
            response = http.unify(response)
        return http.without_body(response) if request.method == "HEAD" else response

    async def _serve(self, connection: ServerConnection) -> None:
        """Wait for the end of an open connection; all that happens on it happens in callbacks."""
        assert isinstance(connection, Connection)
        self.accepted += 1
        connection.opened()
        await closed(connection)

    # Keys

    def replace_keys(self, keys: Iterable[Key]) -> None:
        """Put the keys of a keys file in force, and close connections that they do not allow any more."""
        self._admission.authenticator.replace(keys)

    async def _watch_keys(self) -> None:
        while True:
            await asyncio.sleep(_KEYS_PERIOD)
            self._admission.authenticator.tick(time.time())

    # The end

    def stop_accepting(self) -> None:
        """Take no more connections; the open ones stay."""
        self._draining = True
        for server in (self._server, *self._others.values()):
            if server is not None:
                server.close(close_connections=False)

    async def close(self, code: CloseCode) -> None:
        """Close all connections with `code` and wait until they are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is None:
            return
        self.stop_accepting()
        for connection in self.connections:
            connection.close_with(code, "the gateway stops" if code is CloseCode.GOING_AWAY else "")
        self._shared.unopened.give_up_all()  # a scanner that says nothing would hold us up for the whole timeout
        await self._server.wait_closed()
