"""Path and query of a request to what it asks for: which API, which queue, with which options."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, invalid_arguments
from bullmq_proxy.gateway.rules.ids import check_queue_name
from bullmq_proxy.gateway.rules.options import KeepJobs
from bullmq_proxy.gateway.values.numbers import Whole
from bullmq_proxy.gateway.values.validation import nearest
from bullmq_proxy.gateway.wire.events import StreamId, Subscription, parse_stream_id


class Endpoint(enum.Enum):
    """What a path leads to."""

    ROOT = "/"
    HEALTH = "/health"
    READY = "/ready"
    METRICS = "/metrics"
    QUEUE = "queue"
    WORKER = "worker"
    EVENTS = "events"
    FLOWS = "flows"

    @property
    def is_websocket(self) -> bool:
        """Whether a WebSocket handshake is expected there."""
        return self in (Endpoint.QUEUE, Endpoint.WORKER, Endpoint.EVENTS, Endpoint.FLOWS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings that a route is checked against."""

    max_queue_name: int = 100  # characters
    max_concurrency: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The options of a Worker connection, BullMQ's names and defaults. Times in milliseconds."""

    concurrency: int = 1
    lock_duration: int = 30_000
    stalled_interval: int = 30_000
    max_stalled_count: int = 3
    limiter: tuple[int, int] | None = None  # max jobs, per duration
    remove_on_complete: bool | int | dict[str, Any] | None = None
    remove_on_fail: bool | int | dict[str, Any] | None = None
    name: str | None = None
    max_data_points: int = 0  # minutes of metrics that are kept; 0: none are
    ack_timeout: int = 15_000  # 0: never
    confirm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsOptions:
    """The options of an Events connection."""

    subscription: Subscription
    last_event_id: StreamId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A parsed request line. `token` is the key that came by query string, for the clients that have no other way."""

    kind: Endpoint
    queue: str = ""
    token: str | None = None
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    events: EventsOptions | None = None


class NotFound(GatewayError):
    """No such path: HTTP 404."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.NOT_FOUND,
            "Nothing here. WebSocket: /queue/NAME, /queue/NAME/process/CONCURRENCY, /queue/NAME/events, /flows;"
            " plain HTTP: /, /health, /ready, /metrics",
        )


_PLAIN: Final = {kind.value: kind for kind in Endpoint if not kind.is_websocket}
_QUEUES: Final = ("queue", "queues")


@dataclass(frozen=True, slots=True)
class Target:
    """A request line taken apart but not yet checked: enough to know whether a key is needed, and which one came."""

    kind: Endpoint
    queue: str
    concurrency: str
    query: dict[str, str]

    @property
    def token(self) -> str | None:
        """The key in the query string, if any."""
        return self.query.get("token")


def locate(target: str) -> Target:
    """Take a request target apart.

    Raises:
        NotFound: no route has this shape.
        GatewayError: INVALID_ARGUMENTS for a name that is not percent-encoded UTF-8.
    """
    path, _, query = target.partition("?")
    query = query.partition("#")[0]
    if kind := _PLAIN.get(path):
        return Target(kind, "", "", _query(query))
    segments = path.removesuffix("/").split("/")[1:]
    if segments[:1] == ["ws"] and segments[1:2] == ["queues"]:
        segments = segments[1:]
    match segments:
        case ["flows"]:
            return Target(Endpoint.FLOWS, "", "", _query(query))
        case [first, name] if first in _QUEUES:
            return Target(Endpoint.QUEUE, _name(name), "", _query(query))
        case [first, name, "process", concurrency] if first in _QUEUES:
            return Target(Endpoint.WORKER, _name(name), concurrency, _query(query))
        case [first, name, "events"] if first in _QUEUES:
            return Target(Endpoint.EVENTS, _name(name), "", _query(query))
        case _:
            raise NotFound


def _query(query: str) -> dict[str, str]:
    return dict(parse_qsl(query, keep_blank_values=True))


def _name(segment: str) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise invalid_arguments("The queue name is not percent-encoded UTF-8 - at the path") from None


def check(target: Target, limits: Limits) -> Route:
    """Check what `locate` found.

    Raises:
        GatewayError: INVALID_ARGUMENTS that names the place and what would be right.
    """
    if not target.kind.is_websocket:
        return Route(kind=target.kind, token=target.token)
    if target.kind is not Endpoint.FLOWS:
        check_queue_name(target.queue, limits.max_queue_name, "the path")
    query = {name: value for name, value in target.query.items() if name != "token"}
    route = Route(kind=target.kind, queue=target.queue, token=target.token)
    match target.kind:
        case Endpoint.WORKER:
            options = _worker_options(_concurrency(target.concurrency, limits), query)
            return Route(kind=route.kind, queue=route.queue, token=route.token, worker=options)
        case Endpoint.EVENTS:
            return Route(kind=route.kind, queue=route.queue, token=route.token, events=_events_options(query))
        case _:
            _refuse_unknown(query, ())
            return route


def _concurrency(text: str, limits: Limits) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= value <= limits.max_concurrency:
        raise invalid_arguments(
            f"Expected a whole number from 1 to {limits.max_concurrency} as concurrency, got `{text[:100]}`"
            " - at the path"
        )
    return value


_WORKER_QUERY: Final = (
    "lockDuration",
    "stalledInterval",
    "maxStalledCount",
    "limiter.max",
    "limiter.duration",
    "removeOnComplete",
    "removeOnFail",
    "name",
    "metrics.maxDataPoints",
    "ackTimeout",
    "confirm",
)
_SHORTEST_LOCK: Final = 500  # ms; locks are renewed at half of it, shorter ones would be lost to a hiccup
_DAY: Final = 86_400_000
_DEFAULTS: Final = WorkerOptions()

WORKER_BOUNDS: Final = {
    "lockDuration": (_SHORTEST_LOCK, _DAY),
    "stalledInterval": (_SHORTEST_LOCK, _DAY),
    "maxStalledCount": (0, 1_000_000),
    "limiter.max": (1, 10**9),
    "limiter.duration": (1, _DAY),
    "metrics.maxDataPoints": (0, 1_000_000),  # a minute each: nearly two years
    "ackTimeout": (0, _DAY),
}
"""The least and the most that a numeric option of a Worker connection can be."""


def _worker_options(concurrency: int, query: dict[str, str]) -> WorkerOptions:
    _refuse_unknown(query, _WORKER_QUERY)
    return WorkerOptions(
        concurrency=concurrency,
        lock_duration=_whole(query, "lockDuration", _DEFAULTS.lock_duration),
        stalled_interval=_whole(query, "stalledInterval", _DEFAULTS.stalled_interval),
        max_stalled_count=_whole(query, "maxStalledCount", _DEFAULTS.max_stalled_count),
        limiter=_limiter(query),
        remove_on_complete=_keep_jobs(query, "removeOnComplete"),
        remove_on_fail=_keep_jobs(query, "removeOnFail"),
        name=query.get("name") or None,
        max_data_points=_whole(query, "metrics.maxDataPoints", _DEFAULTS.max_data_points),
        ack_timeout=_whole(query, "ackTimeout", _DEFAULTS.ack_timeout),
        confirm=_flag(query, "confirm"),
    )


def _limiter(query: dict[str, str]) -> tuple[int, int] | None:
    if "limiter.max" not in query and "limiter.duration" not in query:
        return None
    for name in ("limiter.max", "limiter.duration"):
        if name not in query:
            raise invalid_arguments(f"limiter.max and limiter.duration go together - at `?{name}`")
    return _whole(query, "limiter.max", 0), _whole(query, "limiter.duration", 0)


_keep_jobs_decoder: Final = msgspec.json.Decoder(bool | Whole | KeepJobs)


def _keep_jobs(query: dict[str, str], name: str) -> bool | int | dict[str, Any] | None:
    if name not in query:
        return None
    try:
        value: bool | int | dict[str, Any] = msgspec.to_builtins(_keep_jobs_decoder.decode(query[name].encode()))
    except (msgspec.MsgspecError, RecursionError):
        raise invalid_arguments(
            f'Expected true, false, a number, or JSON such as {{"age":3600,"count":100}} - at `?{name}`'
        ) from None
    return value


_EVENTS_QUERY: Final = ("events", "lastEventId")


def _events_options(query: dict[str, str]) -> EventsOptions:
    _refuse_unknown(query, _EVENTS_QUERY)
    names = [name.strip() for name in query.get("events", "").split(",") if name.strip()]
    last = query.get("lastEventId")
    return EventsOptions(
        subscription=Subscription(names), last_event_id=parse_stream_id(last) if last is not None else None
    )


def _refuse_unknown(query: dict[str, str], known: tuple[str, ...]) -> None:
    for name in query:
        if name not in known:
            takes = ", ".join((*known, "token"))
            raise invalid_arguments(f"Unknown option{nearest(name, known)} - at `?{name[:100]}`; known are {takes}")


def _whole(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    least, most = WORKER_BOUNDS[name]
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1
    if not least <= value <= most:
        raise invalid_arguments(f"Expected a whole number from {least} to {most} - at `?{name}`")
    return value


def _flag(query: dict[str, str], name: str) -> bool:
    text = query.get(name, "0").lower()
    if text in ("1", "true", "yes", ""):
        return True
    if text in ("0", "false", "no"):
        return False
    raise invalid_arguments(f"Expected 1 or 0 - at `?{name}`")


def known_options(kind: Endpoint) -> tuple[str, ...]:
    """The names that the query string of such a connection may have."""
    return (*{Endpoint.WORKER: _WORKER_QUERY, Endpoint.EVENTS: _EVENTS_QUERY}.get(kind, ()), "token")
