"""Spans: made by OpenTelemetry's SDK, sent in batches by a thread of its own.

The standard environment variables say where they go, which of them, and under what name. A collector that is down costs
the spans that do not fit into the SDK's queue, and a line in the log now and then.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from bullmq_proxy.gateway import __version__
from bullmq_proxy.gateway.rules.trace_context import PARENT, STATE, Headers
from bullmq_proxy.gateway.tracing.extra import exporter
from bullmq_proxy.gateway.values.text import printable

log = logging.getLogger(__name__)

FLUSH_TIMEOUT: Final = 2.0
"""Seconds that a shard which ends waits for its last spans to be sent."""

LONGEST_TEXT: Final = 1000
"""Characters of each name, id and reason that a span shows."""

_NOTHING: Final = Context()
_PARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_FLAGS: Final = 0b11  # sampled, and random, the two that are defined (W3C Trace Context Level 2 §3.2.2.5)

Attributes = Mapping[str, str | int | list[str]]


class Tracer:
    """Makes the spans of one shard, and sends them."""

    def __init__(self, instance: str, environ: Mapping[str, str]) -> None:
        """Begin with the settings in the environment.

        Args:
            instance: names the shard.
            environ: has the variables of OpenTelemetry, which the SDK reads by itself for the most part.

        Raises:
            TracingError: a variable asks for what is not here.
        """
        own = {SERVICE_NAME: "bullmq-proxy", "service.version": __version__, "service.instance.id": instance}
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if (exports_by := _exporter(exporter(environ))) is not None:
            self._provider.add_span_processor(BatchSpanProcessor(exports_by))
        self._tracer = self._provider.get_tracer("bullmq-proxy", __version__)

    def start(
        self, name: str, kind: SpanKind, attributes: Attributes, parent: Headers, start_time: int | None = None
    ) -> Span:
        """Begin a span.

        Args:
            name: `OPERATION DESTINATION`, as Node's BullMQ names them.
            kind: producer or consumer.
            attributes: under Node's names.
            parent: headers that name the span before it; empty for the first one of a trace.
            start_time: ns since 1970; None for now.
        """
        return self._tracer.start_span(name, _context(parent), kind, attributes, start_time=start_time)

    async def close(self) -> None:
        """Send the last spans, for a limited time."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            _tell(loop, closed)

        # Not the loop's executor, for whose threads its end would wait.
        threading.Thread(target=close, name="last spans", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await closed.wait()
        except TimeoutError:
            log.warning("tracing: the last spans could not be sent in %g s", FLUSH_TIMEOUT)


def _tell(loop: asyncio.AbstractEventLoop, closed: asyncio.Event) -> None:
    """Set an event of a loop that may be gone."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(closed.set)


def shown(text: str) -> str:
    """Return a text of a client's, or of Redis, as a span may show it."""
    return printable(text[:LONGEST_TEXT])


def headers_of(span: Span) -> Headers:
    """Return the headers by which others go on from a span."""
    context = span.get_span_context()
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return {PARENT: parent, STATE: state.to_header()} if (state := context.trace_state) else {PARENT: parent}


def _context(parent: Headers) -> Context:
    """Return what a span begins in (W3C Trace Context §3.2)."""
    found = _PARENT.fullmatch(parent.get(PARENT, ""))
    if found is None or (found[1] == "00" and len(found[0]) > 55):
        return _NOTHING
    state = TraceState.from_header([parent[STATE]]) if STATE in parent else None
    flags = TraceFlags(int(found[4], 16) & _FLAGS)
    context = SpanContext(int(found[2], 16), int(found[3], 16), is_remote=True, trace_flags=flags, trace_state=state)
    return set_span_in_context(NonRecordingSpan(context), _NOTHING) if context.is_valid else _NOTHING


def _exporter(name: str) -> SpanExporter | None:
    if name == "console":
        return ConsoleSpanExporter(out=sys.stdout)
    if name == "none":
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - 11 MiB

    return OTLPSpanExporter()
