"""Requirements of tracing: the packages of the extra `otel`, and variables that can be understood."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

log = logging.getLogger(__name__)

REMARK_PAUSE: Final = 60.0
"""Seconds between two lines of the log about spans that cannot be sent."""
_SDK: Final = "opentelemetry.sdk.trace"
_OTLP: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_TRANSPORT: Final = "requests"  # which the exporter imports when it is made
EXPORTERS: Final = ("otlp", "console", "none")
"""Values of OTEL_TRACES_EXPORTER."""
_PROTOCOL: Final = "http/protobuf"


class TracingError(ValueError):
    """Spans cannot be made, or sent; the text says what to do."""


def require_library(environ: Mapping[str, str]) -> None:
    """Check, without importing much, that spans can be made and sent.

    Args:
        environ: has the variables of OpenTelemetry.

    Raises:
        TracingError: packages are missing, or a variable asks for what is not here.
    """
    if not all(map(_is_there, (_SDK, _OTLP))):
        raise TracingError("the packages of OpenTelemetry are missing: pip install 'bullmq-proxy[otel]'")
    exporter(environ)


def exporter(environ: Mapping[str, str]) -> str:
    """Return which of `EXPORTERS` is asked for.

    Raises:
        TracingError: none of them, or one that speaks another protocol.
    """
    name = environ.get("OTEL_TRACES_EXPORTER", "").strip() or EXPORTERS[0]
    if name not in EXPORTERS:
        raise TracingError(f"OTEL_TRACES_EXPORTER is {name!r}: expected {', '.join(EXPORTERS)}")
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environ.get(variable, "").strip() or _PROTOCOL
        if name == "otlp" and protocol != _PROTOCOL:
            raise TracingError(f"{variable} is {protocol!r}: spans are sent by {_PROTOCOL}, to port 4318 as a rule")
    return name


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Return whether OpenTelemetry is switched off for all that the environment is for."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def load_library() -> None:
    """Import what makes and sends spans, where it is there: 24 MiB, which shards share that are forked after that.

    Its lines in the log go through ours, so that this is for a process of ours alone.
    """
    for module in (_SDK, _OTLP, _TRANSPORT):
        with suppress(ImportError):
            importlib.import_module(module)
    library = logging.getLogger("opentelemetry")
    library.handlers[:] = [Remarks()]
    library.propagate = False


class Remarks(logging.Handler):
    """Passes on what OpenTelemetry says about its failures, a line a minute: it may have some for each batch."""

    def __init__(self) -> None:
        super().__init__()
        self._due = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record, or leave it out."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + REMARK_PAUSE
            log.warning("tracing: %s - spans may be lost; said at most once in %g s", record.getMessage(), REMARK_PAUSE)
