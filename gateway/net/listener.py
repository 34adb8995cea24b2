"""The listener: from a TCP connection to a session, or to the answer that refuses it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from msgspec.structs import replace
from websockets.http11 import Request, Response

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.access.credentials import offered_version
from bullmq_proxy.gateway.access.grants import Rights
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.access.tokens import TICK
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net import handshake, http
from bullmq_proxy.gateway.net.access_log import LoggedConnection, LoggedHttpConnection
from bullmq_proxy.gateway.net.admission import Admission
from bullmq_proxy.gateway.net.ages import Ages
from bullmq_proxy.gateway.net.balance import Balance
from bullmq_proxy.gateway.net.connection import Connection
from bullmq_proxy.gateway.net.event_stream import EventStream, accepts_stream
from bullmq_proxy.gateway.net.exchange import accepts_json, cross_origin, prefers_html, refusal, with_lines
from bullmq_proxy.gateway.net.front import Front
from bullmq_proxy.gateway.net.http_connection import HttpConnection
from bullmq_proxy.gateway.net.keepalive import Keepalive
from bullmq_proxy.gateway.net.places import Place
from bullmq_proxy.gateway.net.proxies import ProxyHeader
from bullmq_proxy.gateway.net.shared import Shared
from bullmq_proxy.gateway.net.site import Admitted
from bullmq_proxy.gateway.net.tls import Tls, TlsTransport
from bullmq_proxy.gateway.net.unopened import Unopened
from bullmq_proxy.gateway.rules import trace_context
from bullmq_proxy.gateway.rules.trace_context import PARENT, STATE
from bullmq_proxy.gateway.sessions.budget import Budget
from bullmq_proxy.gateway.sessions.interfaces import CallClient, CallSession, Client, EventClient, Session
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.connection_options import LAST_EVENT_ID
from bullmq_proxy.gateway.wire.endpoints import PageEndpoint, RequestEndpoint, SessionEndpoint
from bullmq_proxy.gateway.wire.routes import (
    RouteParameters,
    Target,
    is_of_session,
    methods_of,
    parse_request,
    parse_target,
    validate,
)

log = logging.getLogger(__name__)

_BACKLOG: Final = 4096


Where = socket.socket | tuple[str, int]
"""Where to listen: a listening socket, or a host and a port, of which 0 picks a free one."""

OpenSession = Callable[[SessionEndpoint, RouteParameters, Rights, Client], Session]
OpenEvents = Callable[[RouteParameters, EventClient], Session]
OpenCalls = Callable[[RequestEndpoint, RouteParameters, Rights, CallClient], CallSession]
ReadPage = Callable[[Target], http.Page | Awaitable[http.Page]]


class Listener:
    """Accepts connections on one socket."""

    def __init__(
        self,
        admission: Admission,
        budget: Budget,
        open_session: OpenSession,
        open_events: OpenEvents,
        open_calls: OpenCalls,
        read_page: ReadPage,
    ) -> None:
        """Make a listener; `start` begins to accept.

        Args:
            admission: who is let in, and the limits of a connection.
            budget: of the shard, to which what is read counts.
            open_session: makes the session of an endpoint, with the rights of the client's key.
            open_events: makes the session of a stream of server-sent events.
            open_calls: makes the session of an endpoint whose requests call functions.
            read_page: answers a request for a page.
        """
        self._admission = admission
        self._open_session = open_session
        self._open_events = open_events
        self._open_calls = open_calls
        self._read_page = read_page
        self._server: asyncio.Server | None = None
        self._admin: asyncio.Server | None = None
        self._port = 0
        self._others: dict[int, asyncio.Server] = {}  # that accept on the sockets of others, by slot
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._shared = Shared(
            admission.max_message_size,
            admission.max_write_buffer,
            admission.bad_messages_per_second,
            budget,
            Unopened(admission.max_connections, admission.max_connections_per_address, admission.links),
        )
        logs = admission.access_log
        self._connection = LoggedConnection if logs else Connection
        self._http_connection = LoggedHttpConnection if logs else HttpConnection
        self._tls: Tls | None = None
        self._balance: Balance | None = None
        self._accepting = True
        self._draining = False
        self.accepted = 0

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS with all who connect from now on; before `start`, or to replace the certificate."""
        if self._tls is None:
            self._tls = Tls(context)
        self._tls.context = context

    def balance_by(self, balance: Balance) -> None:
        """Hand sockets on to other shards that have less to do, and take theirs; before `start`."""
        self._balance = balance
        self._shared.unopened.weigh = balance.loads.weigh

    async def start(self, where: Where) -> None:
        """Accept connections on a listening socket, or on a host and a port."""
        admission = self._admission
        await admission.authenticator.start()
        self._server = await self._accept_on(where)
        self._port = self._server.sockets[0].getsockname()[1] if isinstance(where, tuple) else 0
        if admission.admin is not None:  # each shard has a socket of its own there
            loop = asyncio.get_running_loop()
            front = partial(self._make_front, is_public=False)
            self._admin = await loop.create_server(front, *admission.admin, reuse_port=True)
        if self._balance is not None:
            self._balance.join(self._make_front)
        keepalive = Keepalive(lambda: self._shared.open, admission.ping_interval, admission.ping_timeout)
        self._tasks = [
            asyncio.create_task(keepalive.run(), name="keepalive"),
            asyncio.create_task(self._watch_keys(), name="keys"),
            asyncio.create_task(self._shared.watch(), name="who does not get on"),
        ]
        if admission.max_connection_age:
            ages = Ages(self.aging, admission.max_connection_age, admission.patience)
            self._tasks.append(asyncio.create_task(ages.run(), name="ages"))

    async def _accept_on(self, where: Where) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        front: Callable[[], asyncio.Protocol] = self._make_front
        if self._balance is not None:
            front = self._balance.accepted_by(front)
        if isinstance(where, tuple):
            return await loop.create_server(front, *where, backlog=_BACKLOG)
        if where.family != socket.AF_UNIX:
            return await loop.create_server(front, sock=where, backlog=_BACKLOG)
        # The socket's file belongs to whoever has opened it: other shards and our successor listen there, too.
        keep_file: dict[str, Any] = {"cleanup_socket": False}
        return await loop.create_unix_server(front, sock=where, backlog=_BACKLOG, **keep_file)

    def _make_front(self, *, is_public: bool = True) -> asyncio.Protocol:
        front = Front(self._shared, self._hand_on)
        first = front if self._tls is None else TlsTransport(self._tls, front)
        is_behind_proxies = is_public and self._admission.proxy_protocol
        return ProxyHeader(self._admission.proxies, front, first) if is_behind_proxies else first

    def _hand_on(self, front: Front, request: Request, rest: bytes) -> None:
        """Hand a socket on to a connection that speaks what the first request asks for."""
        if _asks_for_websocket(request):
            self.open_websocket(front.transport, front.address, request, rest)
        else:
            client = self._http_connection(self._shared, self, front.transport, front.address, request)
            front.transport.set_protocol(client)
            client.begin(rest)

    def open_websocket(self, transport: asyncio.Transport, address: str, request: Request, early: bytes) -> None:
        """Hand a socket on to a WebSocket, with the first bytes behind its request."""
        connection = self._connection(self._shared)
        transport.set_protocol(connection)
        connection.take(transport, address)
        connection.begin(request, early, self._admit)

    def serve_also(self, others: Mapping[int, socket.socket]) -> None:
        """Accept on the sockets of these slots, too, and no more on those of others that we were told of before."""
        self._tasks.append(asyncio.create_task(self._serve_also(others), name="sockets of others"))

    async def _serve_also(self, others: Mapping[int, socket.socket]) -> None:
        async with self._changing:
            for slot in self._others.keys() - others.keys():
                self._others.pop(slot).close()
            for slot in others.keys() - self._others.keys():
                if self._accepting:
                    log.info("nobody serves slot %d: its connections are taken here, too", slot)
                    self._others[slot] = server = await self._accept_on(others[slot].dup())
                    if not self._accepting:  # that has ended meanwhile
                        server.close()
        self._tasks = [task for task in self._tasks if not task.done()]

    @property
    def connections(self) -> Collection[Connection]:
        """The open connections, without those that somebody has begun to close."""
        return self._shared.open

    @property
    def clients(self) -> list[Connection | HttpConnection | EventStream]:
        """All open connections, those that speak HTTP too."""
        return [*self.connections, *self._shared.http]

    def listed(self) -> Iterator[tuple[Connection | HttpConnection | EventStream, Place]]:
        """Yield the connections that nobody has begun to close, the oldest first, and then those that speak HTTP."""
        yield from self._shared.open.items()
        for client in self._shared.http:
            if client.is_open and client.place is not None:
                yield client, client.place

    def aging(self) -> Iterator[Connection | EventStream]:
        """Yield those that may become old; one for requests can be closed by us at no moment without loss."""
        return (each for each, _ in self.listed() if not isinstance(each, HttpConnection))

    @property
    def open(self) -> int:
        """The number of open connections; to count `connections` means to look at each of them."""
        return len(self._shared.open)

    @property
    def shared(self) -> Shared:
        """All that its connections share."""
        return self._shared

    def kinds(self) -> dict[str, int]:
        """Return the number of open connections of each kind."""
        return {**self._shared.kinds, "http": len(self._shared.http)}

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    # The way in

    async def _admit(self, connection: Connection, request: Request) -> Response:
        """Answer a request for a WebSocket; raises GatewayError, of which a page of a foreign origin learns nothing."""
        try:
            return await self._open(connection, request)
        except GatewayError:
            if offered_version(request.headers):  # then the page sees why, and scripts of anybody could look around
                self._admission.check_origin(request.headers)
            raise

    async def _open(self, connection: Connection, request: Request) -> Response:
        """Check a request in the order that gives nothing away: host, path, key, origin, and only then the details."""
        self._check_client(connection, request)
        target = parse_target(request.path)
        endpoint = target.endpoint
        if not isinstance(endpoint, SessionEndpoint):
            raise GatewayError(ErrorCode.NOT_FOUND, "No WebSocket has this path")
        self._admission.check_port(connection.transport, endpoint)
        account = self._admission.authenticate(target, request.headers, connection).of_connection()
        if refusal := handshake.refusal(request):
            return refusal
        try:
            handshake.check_version(request)
            await self._let_in(connection, target, endpoint, account)
        except GatewayError:
            connection.key_name = account.rights.grant.key
            raise
        self.accepted += not connection.is_lost
        return handshake.acceptance(request)

    async def _let_in(
        self, connection: Connection, target: Target, endpoint: SessionEndpoint, account: Account
    ) -> None:
        """Check what a client wants whose key is right, and make its session."""
        parameters = validate(target, self._admission.limits)
        account.check(endpoint, parameters.queue, parameters.effects)
        self._refuse_when_draining()
        connection.enter(account, endpoint, parameters.queue, parameters.effects)
        await self._prepare(self._open_session(endpoint, parameters, account.rights, connection), connection)
        # Both can have changed meanwhile.
        self._refuse_when_draining()
        account.check(endpoint, parameters.queue, parameters.effects)

    def _check_client(self, connection: Connection | HttpConnection, request: Request) -> None:
        if not connection.is_lost:
            self._shared.unopened.move(connection, self._admission.proxies.client(connection.peer, request.headers))
        self._admission.check_host(connection.transport, request.headers)
        self._shared.unopened.check(connection)

    def admit(self, connection: HttpConnection, request: Request) -> Admitted | Request | Response:
        """Check a request of an HTTP connection, in the same order; one for a WebSocket is checked when it is open."""
        if _asks_for_websocket(request) and handshake.refusal(request) is None:
            return request
        self._check_client(connection, request)
        headers, admission = request.headers, self._admission
        more = cross_origin(headers) if admission.lets_read(headers) else b""
        if request.method == "OPTIONS":
            return self._options(request, more)
        target = parse_request(request.method, request.path)
        admission.check_port(connection.transport, target.endpoint)
        if PARENT in headers:
            found = {name: ", ".join(headers.get_all(name)) for name in (PARENT, STATE) if name in headers}
            target = replace(target, trace=trace_context.headers(found))
        if accepts_json(headers):
            target = replace(target, accepts_json=True)
        if target.endpoint is PageEndpoint.ROOT:
            target = replace(target, prefers_html=prefers_html(headers))
        account = admission.authenticator.nobody
        try:
            account = admission.authenticate(target, headers, connection)
            is_stream = target.endpoint is SessionEndpoint.EVENTS and accepts_stream(headers)
            if is_stream and (ids := headers.get_all("Last-Event-ID")):
                target.query[LAST_EVENT_ID.name] = ids[-1]
            parameters = validate(target, admission.limits)
            account.check(target.endpoint, parameters.queue, parameters.effects)
        except GatewayError as error:
            connection.key_name = account.rights.grant.key
            return with_lines(refusal(target.refused(error)), more)
        if isinstance(target.endpoint, SessionEndpoint) and not is_stream:
            no_websocket = handshake.refusal(request)
            assert no_websocket is not None, "who asks for one has it"
            return with_lines(no_websocket, more)
        scope, known = (type(target.endpoint), parameters.queue, account), ", ".join(headers.get_all("If-None-Match"))
        return Admitted(target, parameters, account, more, scope, known, request.path.partition("?")[0])

    def _options(self, request: Request, more: bytes) -> Response:
        """Answer OPTIONS, and the question of a browser whether a page may ask (Fetch §3.2.2)."""
        methods = methods_of(request.path)
        if "Access-Control-Request-Method" in request.headers:
            self._admission.check_origin(request.headers)
            return with_lines(http.preflight(methods), more)
        return with_lines(http.options(methods), more)

    def open_calls(self, admitted: Admitted, connection: HttpConnection) -> CallSession:
        """Return the session of calls by HTTP."""
        self._refuse_when_draining()
        endpoint = admitted.target.endpoint
        assert isinstance(endpoint, RequestEndpoint)
        return self._open_calls(endpoint, admitted.parameters, admitted.account.rights, connection)

    def open_stream(self, admitted: Admitted, connection: HttpConnection) -> None:
        """Hand the socket of a connection on to a stream of events."""
        self._refuse_when_draining()
        account, parameters, endpoint = admitted.account.of_connection(), admitted.parameters, SessionEndpoint.EVENTS
        account.check(endpoint, parameters.queue, parameters.effects)
        stream = EventStream(self._shared, connection.transport, connection.address, connection.request, admitted.more)
        account.enter(stream, endpoint, parameters.queue, parameters.effects)
        stream.begin(self._open_events(parameters, stream), account, parameters.queue)

    def read_page(self, target: Target) -> http.Page | Awaitable[http.Page]:
        """Return a page, or what it has to wait for."""
        return self._read_page(target)

    @property
    def is_draining(self) -> bool:
        """Whether the gateway stops."""
        return not self._accepting

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

    # Keys

    def replace_keys(self, keys: Iterable[Key]) -> None:
        """Put the keys of a keys file in force, and close connections that they do not allow any more.

        The keys that sign tokens are read again.

        Raises:
            TokenKeysError: these cannot be used; those that were read before stay in force.
        """
        self._admission.authenticator.replace(keys)
        self._admission.authenticator.read_token_keys()

    async def _watch_keys(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._admission.authenticator.tick(time.time())

    # The end

    def stop_accepting(self) -> None:
        """Take no more connections; those that came before are served, and end with their next response by HTTP."""
        self._accepting = False
        if self._balance is not None:
            self._balance.leave()
        for server in (self._server, self._admin, *self._others.values()):
            if server is not None:
                server.close()

    def drain(self) -> None:
        """Take no more connections, and refuse those whose handshake or call comes only now."""
        self._draining = True
        self.stop_accepting()

    async def close(self, code: CloseCode) -> None:
        """Close all connections with `code` and wait until they are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._admission.authenticator.close()
        if self._server is None:
            return
        self.drain()
        if self._balance is not None:
            self._balance.close()
        for connection in self.clients:
            connection.close_with(code, "the gateway stops" if code is CloseCode.GOING_AWAY else "")
        self._shared.unopened.give_up_all()  # a scanner that says nothing would hold us up for the whole timeout
        await self._shared.unopened.wait_empty()
        if self._shared.handshakes:
            await asyncio.wait(self._shared.handshakes)


def _asks_for_websocket(request: Request) -> bool:
    headers = request.headers
    if request.method != "GET" or "Upgrade" not in headers:
        return False
    return is_of_session(request.path) or offered_version(headers) is not None
