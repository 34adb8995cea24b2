"""The gateway in one event loop: built from settings, started, drained. Shards run it, and so does `start_proxy`."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Iterable
from http import HTTPStatus
from math import ceil
from typing import Final, assert_never

from bullmq_proxy.gateway import __version__
from bullmq_proxy.gateway.access.certificates import Certificate
from bullmq_proxy.gateway.access.grants import EVERYTHING, Rights
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.ancestor.functions import ANCESTOR
from bullmq_proxy.gateway.ancestor.session import AncestorSession
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.functions import TABLES
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.queues import QueuesQuery, get_queues
from bullmq_proxy.gateway.broker.jobs.flows import Flows
from bullmq_proxy.gateway.broker.redis.address import Address, Target
from bullmq_proxy.gateway.broker.redis.errors import of_read
from bullmq_proxy.gateway.configured import admission, limits, link_options, tracing_of
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.metrics import Metrics
from bullmq_proxy.gateway.net import files, http
from bullmq_proxy.gateway.net.directory import Directory
from bullmq_proxy.gateway.net.listener import Listener, Where
from bullmq_proxy.gateway.queue_metrics import QueueMetrics
from bullmq_proxy.gateway.redis_url import Kind
from bullmq_proxy.gateway.rules.shapes import FoundQueue
from bullmq_proxy.gateway.sessions.budget import Budget
from bullmq_proxy.gateway.sessions.calling import HEAVY_CALLS
from bullmq_proxy.gateway.sessions.events import EventsSession
from bullmq_proxy.gateway.sessions.interfaces import CallClient, CallSession, Client, EventClient, Session
from bullmq_proxy.gateway.sessions.queue import QueueSession
from bullmq_proxy.gateway.sessions.requests import RequestSession
from bullmq_proxy.gateway.sessions.under_way import CallLimits
from bullmq_proxy.gateway.sessions.worker import WorkerSession
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.shared_memory import ShardMemory, SharedMemory
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.webhooks.registration import read_configured
from bullmq_proxy.gateway.webhooks.session import WorkersSession
from bullmq_proxy.gateway.webhooks.workers import Webhooks
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.connection_options import EventsOptions, WorkerOptions
from bullmq_proxy.gateway.wire.endpoints import CallEndpoint, PageEndpoint, RequestEndpoint, SessionEndpoint
from bullmq_proxy.gateway.wire.guest_endpoints import AncestorEndpoint, WorkersEndpoint
from bullmq_proxy.gateway.wire.routes import RouteParameters
from bullmq_proxy.gateway.wire.routes import Target as RequestTarget

log = logging.getLogger(__name__)

_SHED_PAUSE: Final = 0.01  # s between two times that clients are sent away
_READY_TIMEOUT: Final = 2.0  # s that /ready waits for Redis
_READY_FRESH: Final = 0.5  # s that an answer of Redis counts for: a probe must not become a load
_ALIVE: Final = encode({"status": "alive", "version": __version__})
_READY: Final = encode({"status": "ready"})
_DRAIN_LOOK: Final = 0.05  # s between two looks at what is still under way


class App:
    """One shard's parts, and the order in which they start and stop."""

    def __init__(
        self,
        settings: Settings,
        where: Address | Target,
        identity: Identity,
        keys: Iterable[Key] = (),
        row: ShardMemory | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        """Build everything; nothing is opened before `start`.

        Args:
            settings: complete.
            where: Redis is.
            identity: of this shard.
            keys: those of the keys file.
            row: where this shard counts their connections and shows its figures; None for the only shard of a gateway.
            certificate: of the listener; None for no TLS.
        """
        self.settings = settings
        self._tracing = tracing_of(settings, f"{identity.run}-{identity.slot}")
        self._tables = TABLES if self._tracing is None else self._tracing.tables
        self.broker = Broker(
            where,
            settings.prefix,
            link_options(settings, identity.slot),
            identity,
            max_len_events=settings.max_len_events,
            gateway_timeout=settings.gateway_timeout,
            deliveries=None if self._tracing is None else self._tracing.deliveries,
        )
        on_cluster = isinstance(where, Target) and where.kind is Kind.CLUSTER
        of_webhooks = limits(settings, on_cluster=on_cluster)
        configured = read_configured(settings.webhooks, of_webhooks)
        self._webhooks = Webhooks(self.broker, settings.prefix, of_webhooks, settings.webhook_allow, configured)
        row = row or SharedMemory(1).row(0)
        self._budget = Budget(turns=self.broker.queues.turns)
        self.listener = Listener(
            admission(settings, keys, row, on_cluster=on_cluster),
            self._budget,
            self._open_session,
            self._open_events,
            self._open_calls if self._tracing is None else self._open_traced_calls,
            self._read_page,
        )
        if certificate is not None:
            self.use_certificate(certificate)
        self.broker.reach.connected = Directory(
            self.listener.listed,
            identity.address,
            host=socket.gethostname(),
            gateway=identity.run,
            shard=identity.slot,
        )
        self._metrics = Metrics(self.broker, self.listener, row)
        self._queue_metrics = QueueMetrics(self._find_queues)
        self.broker.history = self._metrics.history.show
        # A quarter of what a client may leave unread: replies to what has been read still find room.
        self._call_limits = CallLimits(
            settings.max_in_flight,
            settings.max_write_buffer // 4,
            asyncio.Semaphore(HEAVY_CALLS),
            self._budget,
            audits=settings.audit_log,
        )
        self._draining = False
        self._is_ending = False
        self._hurried = False
        self._answered_at = float("-inf")

    async def start(self, where: Where, *, redis_timeout: float | None) -> None:
        """Connect to Redis, then accept clients.

        Args:
            where: a listening socket, or a host and a port.
            redis_timeout: seconds to wait for Redis; None accepts clients at once.

        Raises:
            GatewayError: Redis is not there in time, or does not let us in.
            OSError: the address cannot be listened on.
        """
        await self.broker.start(redis_timeout)
        try:
            await self.listener.start(where)
        except BaseException:
            await self.broker.close()
            raise
        self._metrics.start()

    def unready(self) -> None:
        """Say at /ready that this gateway is about to drain; it serves on until then."""
        self._is_ending = True

    async def shed(self, seconds: float) -> None:
        """Close the connections one after the other: thousands of clients that come back at once are slow for all.

        A worker is told to finish what it has. Its connection is closed by `drain` where that takes longer.

        Args:
            seconds: for all of them; a few take less.
        """
        clients = list(self.listener.aging())
        each_time = max(1, ceil(len(clients) * _SHED_PAUSE / seconds)) if seconds else len(clients)
        for start in range(0, len(clients), each_time):
            for client in clients[start : start + each_time]:
                client.expire("the gateway goes on in another process", is_overdue=False)
            await asyncio.sleep(_SHED_PAUSE)

    async def drain(self, timeout: float, code: CloseCode) -> bool:
        """Stop accepting and fetching, let what is under way end, close everything.

        Args:
            timeout: seconds for clients to answer the jobs that they hold; what is left then goes back to wait.
            code: that the connections are closed with.

        Returns:
            Whether everything ended in time.
        """
        self._draining = True
        self.listener.drain()
        self.broker.stop_fetching()
        self._webhooks.drain()
        LogEvent.DRAIN.log(jobs=len(self.broker.leases), seconds=timeout)
        began = asyncio.get_running_loop().time()
        for connection in self.listener.clients:
            if connection.session is not None:
                connection.session.drain(timeout)
        in_time = await self._close_as_they_end(began + timeout, code)
        unanswered = len(self.broker.leases)
        await self.listener.close(code)
        self.broker.roster.stop_waiting()
        await self._webhooks.close()
        await self._jobs_are_back()
        await self.broker.close()
        self._metrics.close()
        if self._tracing is not None:
            await self._tracing.close()
        LogEvent.DRAINED.log(jobs=unanswered, seconds=asyncio.get_running_loop().time() - began)
        return in_time

    def replace_keys(self, keys: Iterable[Key]) -> None:
        """Put what the keys file says now in force, for open connections, too; read the keys of tokens again.

        Raises:
            TokenKeysError: the keys of tokens cannot be used; those that were read before stay in force.
        """
        self.listener.replace_keys(keys)

    def use_certificate(self, certificate: Certificate) -> None:
        """Shake hands with this certificate from now on; open connections stay as they are.

        Raises:
            ssl.SSLError: OpenSSL cannot use it.
        """
        self.listener.speak_tls(certificate.context())

    def hurry(self) -> None:
        """End a drain that is under way now: what clients still hold goes back to wait."""
        self._hurried = True

    async def _close_as_they_end(self, deadline: float, code: CloseCode) -> bool:
        """Close each connection as soon as nothing is under way on it: its client can reconnect elsewhere at once.

        What is kept for clients whose connection is gone stays so: they take it up elsewhere.
        So it is with webhook workers: another shard goes on when the last request of one has been answered.
        """
        while True:
            busy = False
            for connection in self.listener.clients:
                if connection.is_idle:
                    connection.close_with(code, "the gateway stops" if code is CloseCode.GOING_AWAY else "")
                else:
                    busy = True
            self._webhooks.hand_on()
            if not busy and self._webhooks.is_idle and not self.broker.roster.is_waiting:
                return True
            if self._hurried or asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(_DRAIN_LOOK)

    async def _jobs_are_back(self) -> None:
        """Wait until the jobs that the sessions gave back are in Redis: the reply to a last command says so."""
        try:
            async with asyncio.timeout(self.settings.redis_timeout):
                for _ in range(2):  # giving back a counted job takes two commands, one after the other
                    await asyncio.gather(*(link.call("PING") for link in self.broker.link.nodes))
        except (TimeoutError, GatewayError) as error:
            reason = error if isinstance(error, GatewayError) else "Redis does not answer"
            log.warning("drain: jobs in hand may not be back: %s; the stalled check will find them", reason)

    # What the listener asks for

    def _open_session(
        self, endpoint: SessionEndpoint, parameters: RouteParameters, rights: Rights, client: Client
    ) -> Session:
        broker, context = self.broker, Context(self.broker, rights)
        limits = self._call_limits
        match endpoint:
            case SessionEndpoint.QUEUE:
                return QueueSession(broker.queue(parameters.queue), context, client, limits, self._tables.queue)
            case SessionEndpoint.WORKER:
                assert isinstance(parameters.options, WorkerOptions)
                queue, table = broker.queue(parameters.queue), self._tables.queue
                return WorkerSession(queue, parameters.options, context, client, limits, table)
            case SessionEndpoint.EVENTS:
                return self._open_events(parameters, client, rights)
            case SessionEndpoint.FLOWS:
                return QueueSession(self._flows(), context, client, limits, self._tables.flows)
            case _:
                assert_never(endpoint)

    def _open_events(self, parameters: RouteParameters, client: EventClient, rights: Rights | None = None) -> Session:
        assert isinstance(parameters.options, EventsOptions)
        broker, queue = self.broker, self.broker.queue(parameters.queue)
        reader = broker.services(queue).event_reader()
        return EventsSession(queue, reader, parameters.options, client, broker.counters, rights)

    def _open_calls(
        self,
        endpoint: RequestEndpoint,
        parameters: RouteParameters,
        rights: Rights,
        client: CallClient,
    ) -> CallSession:
        broker, context = self.broker, Context(self.broker, rights)
        if isinstance(endpoint, AncestorEndpoint):
            queue, of_path = broker.queue(parameters.queue), limits(self.settings)
            table = ANCESTOR if self._tracing is None else self._tracing.ancestor
            return AncestorSession(queue, context, client, self._call_limits, table, of_path=of_path)
        if isinstance(endpoint, WorkersEndpoint):
            return WorkersSession(self._webhooks, context, client, self._call_limits)
        match endpoint:
            case CallEndpoint.QUEUE | CallEndpoint.QUEUE_FUNCTION:
                queue = broker.queue(parameters.queue)
                return RequestSession(queue, context, client, self._call_limits, self._tables.queue)
            case (
                CallEndpoint.FLOWS
                | CallEndpoint.FLOWS_FUNCTION
                | CallEndpoint.QUEUES
                | CallEndpoint.CONNECTIONS
                | CallEndpoint.DRAIN_CONNECTION
                | CallEndpoint.CLOSE_CONNECTION
                | CallEndpoint.HISTORY
                | CallEndpoint.SCALE
                | CallEndpoint.WHOAMI
            ):
                return RequestSession(self._flows(), context, client, self._call_limits, self._tables.flows)
            case _:
                assert_never(endpoint)

    def _open_traced_calls(
        self, endpoint: RequestEndpoint, parameters: RouteParameters, rights: Rights, client: CallClient
    ) -> CallSession:
        assert self._tracing is not None
        return self._tracing.requests(self._open_calls(endpoint, parameters, rights, client))

    def _flows(self) -> Flows:
        return Flows(self.broker.queues, self.settings.max_queue_name)

    def _read_page(self, target: RequestTarget) -> http.Page | Awaitable[http.Page]:
        endpoint, has_console = target.endpoint, not self.settings.no_console
        assert isinstance(endpoint, PageEndpoint)
        match endpoint:
            case PageEndpoint.ROOT:
                if has_console and target.prefers_html:
                    return files.console()
                return http.text(f"bullmq-proxy {__version__}\n", headers=files.BY_ACCEPT)
            case PageEndpoint.CONSOLE:
                return files.console_file(target.file if has_console else "")
            case PageEndpoint.HEALTH:
                return _ALIVE
            case PageEndpoint.READY:
                return self._ready()
            case PageEndpoint.METRICS:
                if self.settings.metrics_queues:
                    return self._whole_metrics()
                return http.text(self._metrics.page(), http.PROMETHEUS)
            case (
                PageEndpoint.CLIENT
                | PageEndpoint.CLIENT_LINK
                | PageEndpoint.CLIENT_QUEUE
                | PageEndpoint.CLIENT_WORKER
                | PageEndpoint.CLIENT_TYPES
            ):
                return files.file(endpoint.value.path)
            case _:
                assert_never(endpoint)

    async def _whole_metrics(self) -> http.Page:
        return http.text(self._metrics.page() + await self._queue_metrics.page(), http.PROMETHEUS)

    async def _find_queues(self) -> list[FoundQueue]:
        """Return what is in the first queues of the prefix that are found."""
        most, context = self.settings.metrics_queues, Context(self.broker, Rights(EVERYTHING))
        query = QueuesQuery(limit=most, counts=True, oldest=True, connected=True)
        return (await get_queues(self._flows(), query, context=context))["queues"][:most]

    async def _ready(self) -> http.Page:
        try:
            if self._draining or self._is_ending:
                raise GatewayError(ErrorCode.SHUTTING_DOWN, "The gateway is shutting down")
            await self._ask_redis()
        except GatewayError as error:
            return http.refusal(error, HTTPStatus.SERVICE_UNAVAILABLE)
        return _READY

    async def _ask_redis(self) -> None:
        broker, now = self.broker, asyncio.get_running_loop().time
        if broker.link.is_up and now() - self._answered_at < _READY_FRESH:
            return
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                await broker.probe()
        except GatewayError as error:
            raise of_read(error) from None
        except TimeoutError:
            raise GatewayError(ErrorCode.TIMEOUT, f"Redis has not answered for {_READY_TIMEOUT:.0f} s") from None
        self._answered_at = now()
