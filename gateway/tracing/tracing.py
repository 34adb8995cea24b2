"""Tracing of one shard: all that the gateway needs of it when it is switched on."""

from __future__ import annotations

from collections.abc import Mapping

from bullmq_proxy.gateway.rules.trace_context import NO_HEADERS
from bullmq_proxy.gateway.sessions.interfaces import CallSession, Exchange, Work
from bullmq_proxy.gateway.tracing.consuming import Deliveries
from bullmq_proxy.gateway.tracing.producing import ASKED, Producers
from bullmq_proxy.gateway.tracing.spans import Tracer
from bullmq_proxy.gateway.wire.connection_options import Options
from bullmq_proxy.gateway.wire.routes import Target


class Tracing:
    """The spans of one shard.

    Attributes:
        tables: the functions that clients call.
        ancestor: those of the ancestor's routes.
        deliveries: puts spans around the jobs that are handed out.
    """

    def __init__(self, instance: str, environ: Mapping[str, str]) -> None:
        """Begin; arguments and errors as those of `Tracer`."""
        self._tracer = Tracer(instance, environ)
        producers = Producers(self._tracer)
        self.tables, self.ancestor = producers.tables(), producers.ancestor()
        self.deliveries = Deliveries(self._tracer)

    def requests(self, session: CallSession) -> CallSession:
        """Return a session of HTTP requests whose calls belong to the traces that the requests name."""
        return _TracedRequests(session)

    async def close(self) -> None:
        """Send the last spans, for a limited time."""
        await self._tracer.close()


class _TracedRequests:
    """A session that lets each call know the trace headers of its request."""

    def __init__(self, session: CallSession) -> None:
        self._session = session

    def requested(self, exchange: Exchange, target: Target, options: Options, body: bytes, *, writes: bool) -> None:
        """Carry one request out."""
        token = ASKED.set(target.trace or NO_HEADERS)
        try:
            self._session.requested(exchange, target, options, body, writes=writes)
        finally:
            ASKED.reset(token)

    def connection_lost(self) -> None:
        """Release everything that the session holds."""
        self._session.connection_lost()

    def drain(self, deadline: float) -> None:
        """Let nobody wait any more."""
        self._session.drain(deadline)

    @property
    def work(self) -> Work:
        """The work under way."""
        return self._session.work

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self._session.is_idle
