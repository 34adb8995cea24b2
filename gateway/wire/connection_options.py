"""The options of a connection: the query string's names, ranges, defaults and meanings, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, cast, get_args

import msgspec
from msgspec import Meta, Struct

from bullmq_proxy.gateway.access.grants import TUNERS, Effect
from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.rules.effects import KEEPS_SOME, Acting
from bullmq_proxy.gateway.rules.options import KeepJobs
from bullmq_proxy.gateway.values.numbers import Whole
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import nearest
from bullmq_proxy.gateway.wire.asked_lists import ConnectionsOptions, HistoryOptions, QueuesOptions, ScaleOptions
from bullmq_proxy.gateway.wire.events import ALL, StreamId, Subscription, parse_stream_id

T = TypeVar("T")
D = TypeVar("D")

SHORTEST_LOCK: Final = 500  # ms; locks are renewed at half of it, shorter ones would be lost to a hiccup
LONGEST_LOCK: Final = 86_400_000  # ms; a day
_DAY: Final = 86_400_000  # ms


class Limits(Struct, frozen=True, kw_only=True):
    """The settings that a path is checked against."""

    max_queue_name: int  # characters
    max_concurrency: int
    min_queue_name: int = 3  # characters, on the routes of the ancestor
    cluster_prefix: str | None = None  # of the keys, on a cluster: there they need a hash tag


Overrun = Literal["fail", "release"]
"""What becomes of a job that has run for too long."""


class WorkerOptions(Struct, frozen=True, kw_only=True):
    """The options of a Worker connection, BullMQ's names and defaults. Times in milliseconds."""

    concurrency: int = 1
    lock_duration: int = 30_000
    stalled_interval: int = 30_000
    max_stalled_count: int = 3
    limiter: tuple[int, int] | None = None  # max jobs, per duration
    remove_on_complete: bool | int | dict[str, Any] | None = None
    remove_on_fail: bool | int | dict[str, Any] | None = None
    name: str | None = None
    max_data_points: int = 0  # minutes for which metrics are kept; 0: none are kept
    ack_timeout: int = 15_000  # 0: never
    max_runtime: int = 0  # 0: no limit
    overrun: Overrun = "fail"
    grace: int = 0  # 0: none
    consumer: str | None = None
    confirm: bool = False


class EventsOptions(Struct, frozen=True, kw_only=True):
    """The options of an Events connection; without `last_event_id` only new events are sent."""

    subscription: Subscription
    last_event_id: StreamId | None


Options = WorkerOptions | EventsOptions | QueuesOptions | ConnectionsOptions | HistoryOptions | ScaleOptions | None
"""What a connection was opened with; None where its endpoint takes no options."""


class QueryOption(Struct, Generic[T], frozen=True, kw_only=True):
    """One option of the query string.

    Attributes:
        name: as clients write it.
        description: for the documents.
        type: of the value, for the documents.
        default: the value of an option that is not given.
        parse: reads the text; a ValueError says what was expected.
        acting: how it acts on the jobs of others; None where no value does.
    """

    name: str
    description: str
    type: Any
    default: T
    parse: Callable[[str], T]
    acting: Acting | None

    def effects(self, query: Mapping[str, str]) -> tuple[Effect, ...]:
        """Return what the option's value does to the jobs of others."""
        return () if self.acting is None else self.acting.effects(self.name, self.read(query))

    def read(self, query: Mapping[str, str]) -> T:
        """Return the option's value.

        Raises:
            GatewayError: INVALID_ARGUMENTS.
        """
        text = query.get(self.name)
        if text is None:
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise invalid_arguments(f"{error} - at `?{self.name}`") from None


def _number(text: str) -> int:
    """Return a whole number, -1 for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


def whole(name: str, description: str, *, least: int, most: int, default: D, does: str = "") -> QueryOption[int | D]:
    """Return an option that is a whole number; `does` says how any but the default acts on the jobs of others."""

    def parse(text: str) -> int:
        value = _number(text)
        if not least <= value <= most:
            raise ValueError(f"Expected a whole number from {least} to {most}")
        return value

    shown = Annotated[int, Meta(ge=least, le=most)]
    return QueryOption(
        name=name,
        description=description,
        type=shown,
        default=default,
        parse=parse,
        acting=Acting("other than the default", lambda value: value != default, does, TUNERS) if does else None,
    )


def parse_flag(text: str) -> bool:
    """Read `1` or `0`, or what stands for them."""
    value = text.lower()
    if value in ("1", "true", "yes", ""):
        return True
    if value in ("0", "false", "no"):
        return False
    raise ValueError("Expected 1 or 0")


_keep_jobs_reader: Final[Reader[bool | int | KeepJobs]] = Reader(bool | Whole | KeepJobs)


def _parse_keep_jobs(text: str) -> bool | int | dict[str, Any]:
    try:
        value: bool | int | dict[str, Any] = msgspec.to_builtins(_keep_jobs_reader.read(text.encode()))
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError('Expected true, false, a number, or JSON such as {"age":3600,"count":100}') from None
    return value


def _keep_jobs(name: str) -> QueryOption[bool | int | dict[str, Any] | None]:
    return QueryOption(
        name=name,
        description="How many finished jobs stay, unless the job option of this name says it; an object as JSON.",
        type=bool | int | KeepJobs,
        default=None,
        parse=_parse_keep_jobs,
        acting=KEEPS_SOME,
    )


TOKEN: Final[QueryOption[str | None]] = QueryOption(
    name="token",
    description="The key, for clients that have no other way to show it.",
    type=str,
    default=None,
    parse=str,
    acting=None,
)
"""Every connection has this option; it is read before all others."""

_DEFAULTS: Final = WorkerOptions()
_LOCK_DURATION: Final = whole(
    "lockDuration",
    "Milliseconds that a job's lock lasts; it is renewed at half of them.",
    least=SHORTEST_LOCK,
    most=LONGEST_LOCK,
    default=_DEFAULTS.lock_duration,
)
_STALLED_INTERVAL: Final = whole(
    "stalledInterval",
    "Milliseconds between BullMQ's checks for jobs without a lock. Connections that differ share the shortest.",
    least=SHORTEST_LOCK,
    most=_DAY,
    default=_DEFAULTS.stalled_interval,
    does="says when lost jobs of others are found",
)
_MAX_STALLED_COUNT: Final = whole(
    "maxStalledCount",
    "A job that has lost its worker more often than this fails.",
    least=0,
    most=1_000_000,
    default=_DEFAULTS.max_stalled_count,
    does="says when lost jobs of others fail",
)
_LIMITS_OTHERS: Final = "limits how many jobs others may start"
_LIMITER_MAX: Final = whole(
    "limiter.max",
    "Most jobs per `limiter.duration`, over all workers of the queue; both or none.",
    least=1,
    most=10**9,
    default=None,
    does=_LIMITS_OTHERS,
)
_LIMITER_DURATION: Final = whole(
    "limiter.duration",
    "Milliseconds that `limiter.max` is for.",
    least=1,
    most=_DAY,
    default=None,
    does=_LIMITS_OTHERS,
)
_REMOVE_ON_COMPLETE: Final = _keep_jobs("removeOnComplete")
_REMOVE_ON_FAIL: Final = _keep_jobs("removeOnFail")
_NAME: Final[QueryOption[str | None]] = QueryOption(
    name="name",
    description="This worker's name, which BullMQ stores as the job's `processedBy`.",
    type=str,
    default=None,
    parse=lambda text: text or None,
    acting=None,
)
_MAX_DATA_POINTS: Final = whole(
    "metrics.maxDataPoints",
    "Minutes for which `getMetrics` keeps the numbers of this worker's finished jobs; 0: none are kept.",
    least=0,
    most=100_000,  # ten weeks: after a pause moveToFinished writes a zero for each minute of it, at once
    default=_DEFAULTS.max_data_points,
    does="cuts the figures of all workers to these minutes",
)
_ACK_TIMEOUT: Final = whole(
    "ackTimeout",
    "Milliseconds until a pushed job of which nothing is heard goes back, once the client has said `ack`; 0: never.",
    least=0,
    most=_DAY,
    default=_DEFAULTS.ack_timeout,
)
_MAX_RUNTIME: Final = whole(
    "maxRuntime",
    "Milliseconds that a started job may take: then the client gets `cancel`; 0: any time.",
    least=0,
    most=2**31 - 1,  # 24 days
    default=_DEFAULTS.max_runtime,
)


def _parse_overrun(text: str) -> Overrun:
    for value in get_args(Overrun):
        if text == value:
            return cast(Overrun, value)
    raise ValueError("Expected fail or release")


_OVERRUN: Final[QueryOption[Overrun]] = QueryOption(
    name="overrun",
    description=(
        "`fail`: a job that takes longer than `maxRuntime` fails, and is tried again as its `attempts` say;"
        " `release`: it goes back as one that has lost its worker."
    ),
    type=Overrun,
    default=_DEFAULTS.overrun,
    parse=_parse_overrun,
    acting=None,
)
_GRACE: Final = whole(
    "grace",
    "Milliseconds for which the jobs in hand are kept when the connection breaks, for a client that comes back; 0: no.",
    least=0,
    most=600_000,  # ten minutes
    default=_DEFAULTS.grace,
)
_LONGEST_SECRET: Final = 200


def _parse_secret(text: str) -> str:
    if not 0 < len(text) <= _LONGEST_SECRET:
        raise ValueError("Expected the `consumer` of the `welcome` on an earlier connection")
    return text


_CONSUMER: Final[QueryOption[str | None]] = QueryOption(
    name="consumer",
    description="The `consumer` of the `welcome` on an earlier connection, whose jobs are taken up; with `grace`.",
    type=str,
    default=None,
    parse=_parse_secret,
    acting=None,
)
_CONFIRM: Final = QueryOption(
    name="confirm",
    description="1: each final answer is confirmed by `finished`.",
    type=Literal[0, 1],
    default=_DEFAULTS.confirm,
    parse=parse_flag,
    acting=None,
)


def _read_worker_options(path: Mapping[str, str], query: Mapping[str, str], limits: Limits) -> WorkerOptions:
    grace, consumer = _GRACE.read(query), _CONSUMER.read(query)
    if consumer is not None and not grace:
        raise invalid_arguments("consumer needs grace, too - at `?grace`")
    return WorkerOptions(
        concurrency=_concurrency(path["concurrency"], limits.max_concurrency),
        lock_duration=_LOCK_DURATION.read(query),
        stalled_interval=_STALLED_INTERVAL.read(query),
        max_stalled_count=_MAX_STALLED_COUNT.read(query),
        limiter=_limiter(query),
        remove_on_complete=_REMOVE_ON_COMPLETE.read(query),
        remove_on_fail=_REMOVE_ON_FAIL.read(query),
        name=_NAME.read(query),
        max_data_points=_MAX_DATA_POINTS.read(query),
        ack_timeout=_ACK_TIMEOUT.read(query),
        max_runtime=_MAX_RUNTIME.read(query),
        overrun=_OVERRUN.read(query),
        grace=grace,
        consumer=consumer,
        confirm=_CONFIRM.read(query),
    )


def _concurrency(text: str, most: int) -> int:
    value = _number(text)
    if not 1 <= value <= most:
        raise invalid_arguments(
            f"Expected a whole number from 1 to {most} as concurrency, got `{text[:100]}` - at the path"
        )
    return value


def _limiter(query: Mapping[str, str]) -> tuple[int, int] | None:
    most, duration = _LIMITER_MAX.read(query), _LIMITER_DURATION.read(query)
    if most is None and duration is None:
        return None
    if most is None or duration is None:
        missing = _LIMITER_MAX if most is None else _LIMITER_DURATION
        raise invalid_arguments(f"limiter.max and limiter.duration go together - at `?{missing.name}`")
    return most, duration


_EVENTS: Final[QueryOption[tuple[str, ...]]] = QueryOption(
    name="events",
    description="Names with commas between them, `*` for all, `custom:NAME` for an event of a producer's own; or none.",
    type=str,
    default=(ALL,),
    parse=lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
    acting=None,
)
LAST_EVENT_ID: Final[QueryOption[StreamId | None]] = QueryOption(
    name="lastEventId",
    description="A stream id: first come the events after it, then the new ones.",
    type=Annotated[str, Meta(pattern="^[0-9]{1,20}(-[0-9]{1,20})?$")],
    default=None,
    parse=parse_stream_id,
    acting=None,
)


def _read_events_options(path: Mapping[str, str], query: Mapping[str, str], limits: Limits) -> EventsOptions:
    return EventsOptions(subscription=Subscription(list(_EVENTS.read(query))), last_event_id=LAST_EVENT_ID.read(query))


def _read_nothing(path: Mapping[str, str], query: Mapping[str, str], limits: Limits) -> None:
    return None


class OptionSet(Struct, frozen=True):
    """The options that one kind of connection takes; any other name is refused.

    Attributes:
        known: the options of the query string, TOKEN included.
        convert: makes the session's options from the path's parameters, the query string and the limits.
    """

    known: tuple[QueryOption[Any], ...]
    convert: Callable[[Mapping[str, str], Mapping[str, str], Limits], Options]

    def read(self, path: Mapping[str, str], query: Mapping[str, str], limits: Limits) -> Options:
        """Check and convert the options.

        Raises:
            GatewayError: INVALID_ARGUMENTS with the place, and the nearest name for an unknown one.
        """
        names = [option.name for option in self.known]
        for name in query:
            if name not in names:
                raise invalid_arguments(
                    f"Unknown option{nearest(name, names)} - at `?{name[:100]}`; known are {', '.join(names)}"
                )
        return self.convert(path, query, limits)

    def effects(self, query: Mapping[str, str]) -> tuple[Effect, ...]:
        """Return what options that have been read do to the jobs of others."""
        return tuple(effect for option in self.known for effect in option.effects(query))


WORKER_OPTIONS: Final = OptionSet(
    (
        _LOCK_DURATION,
        _STALLED_INTERVAL,
        _MAX_STALLED_COUNT,
        _LIMITER_MAX,
        _LIMITER_DURATION,
        _REMOVE_ON_COMPLETE,
        _REMOVE_ON_FAIL,
        _NAME,
        _MAX_DATA_POINTS,
        _ACK_TIMEOUT,
        _MAX_RUNTIME,
        _OVERRUN,
        _GRACE,
        _CONSUMER,
        _CONFIRM,
        TOKEN,
    ),
    _read_worker_options,
)
EVENTS_OPTIONS: Final = OptionSet((_EVENTS, LAST_EVENT_ID, TOKEN), _read_events_options)
NO_OPTIONS: Final = OptionSet((TOKEN,), _read_nothing)
ARGS: Final[QueryOption[str | None]] = QueryOption(
    name="args",
    description="The array of arguments as JSON, percent-encoded, for requests without a body.",
    type=str,
    default=None,
    parse=str,
    acting=None,
)
CALL_OPTIONS: Final = OptionSet((ARGS, TOKEN), _read_nothing)
