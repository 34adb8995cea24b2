"""The table of metrics: names, kinds and labels, and where the values come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from msgspec import Struct

from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.counters import OTHER, OUTCOMES, STATES, CallCounts
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.errors import ErrorCode
from bullmq_proxy.gateway.net.ends import END_CODES
from bullmq_proxy.gateway.net.listener import Listener
from bullmq_proxy.gateway.net.places import ALL_KINDS
from bullmq_proxy.gateway.net.refusals import CODES
from bullmq_proxy.gateway.values.histogram import CALLS, JOBS

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"

FUNCTIONS: Final = tuple(dict.fromkeys([*(each.name for table in (TABLE, FLOWS) for each in table), OTHER]))
"""The names of functions whose calls are counted one by one."""


class Shard(Protocol):
    """The shard that the figures are of.

    Attributes:
        calls: the counts of each function, in the order of `FUNCTIONS`.
        lag: in seconds.
        started_at: Unix time.
    """

    broker: Broker
    listener: Listener
    calls: list[CallCounts]
    lag: float
    started_at: float


class Metric(Struct, frozen=True):
    """Lines for each shard.

    Attributes:
        name: without the prefix of all our names.
        kind: as Prometheus names them. Counters and histograms go on when a shard takes the place of another.
        help: one sentence.
        read: the values now: one for each label; of a histogram its figures, one after the other.
        label: beside `slot`, such as `code`; empty for none.
        values: of the label.
        bounds: of a histogram.
        is_lag: it is at least as much as the shard is late with its next look.
        is_sparse: lines of 0 are left out: there are many.
    """

    name: str
    kind: str
    help: str
    read: Callable[[Shard], Iterable[float]]
    label: str = ""
    values: tuple[str, ...] = ("",)
    bounds: Sequence[float] = ()
    is_lag: bool = False
    is_sparse: bool = False

    @property
    def width(self) -> int:
        """Figures of a value of the label."""
        return len(self.bounds) + 2 if self.kind == HISTOGRAM else 1

    @property
    def size(self) -> int:
        """Figures of a shard."""
        return len(self.values) * self.width


def _one(name: str, kind: str, help: str, read: Callable[[Shard], float], *, is_lag: bool = False) -> Metric:
    return Metric(name, kind, help, lambda shard: (read(shard),), is_lag=is_lag)


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, values))


def _outcomes(shard: Shard) -> Iterable[float]:
    for calls in shard.calls:
        yield sum(calls.counts) - calls.errors
        yield calls.errors


METRICS: Final = (
    _one("connections", GAUGE, "Open WebSocket connections.", lambda shard: shard.listener.open),
    Metric(
        "clients",
        GAUGE,
        "Open connections whose key was right, by what they have connected to.",
        lambda shard: shard.listener.kinds().values(),
        "kind",
        ALL_KINDS,
    ),
    _one(
        "connections_unopened",
        GAUGE,
        "Connections whose handshake or first call is not answered yet.",
        lambda shard: len(shard.listener.shared.unopened),
    ),
    _one(
        "connections_accepted_total", COUNTER, "WebSocket handshakes completed.", lambda shard: shard.listener.accepted
    ),
    Metric(
        "connections_closed_total",
        COUNTER,
        "WebSocket connections that have ended, by the code of the first close frame; 1006 for none.",
        lambda shard: shard.listener.shared.ends.values(),
        "code",
        _texts(END_CODES),
    ),
    Metric(
        "refusals_total",
        COUNTER,
        "Refused handshakes and requests, by the status or close code that the client got; 0 for other statuses.",
        lambda shard: shard.listener.shared.refusals.counts.values(),
        "code",
        _texts(CODES),
    ),
    _one(
        "connections_given_up_total",
        COUNTER,
        "Connections closed without an answer: too many, or too late.",
        lambda shard: shard.listener.shared.unopened.given_up,
    ),
    _one(
        "calls_begun_total",
        COUNTER,
        "Calls of functions, answered or not.",
        lambda shard: shard.broker.counters.begun_calls,
    ),
    Metric(
        "calls_total",
        COUNTER,
        "Calls of functions that were answered, by function and whether with an error.",
        _outcomes,
        "",
        tuple(f'function="{name}",outcome="{outcome}"' for name in FUNCTIONS for outcome in ("ok", "error")),
        is_sparse=True,
    ),
    Metric(
        "call_errors_total",
        COUNTER,
        "Calls of functions that were answered with an error, by its code.",
        lambda shard: shard.broker.counters.call_errors.values(),
        "code",
        _texts(ErrorCode),
    ),
    Metric(
        "call_seconds",
        HISTOGRAM,
        "How long calls took, from the message to its reply.",
        lambda shard: (figure for calls in shard.calls for figure in calls.figures),
        "function",
        FUNCTIONS,
        CALLS,
        is_sparse=True,
    ),
    _one("jobs_held", GAUGE, "Jobs in clients' hands.", lambda shard: len(shard.broker.leases)),
    _one("jobs_pushed_total", COUNTER, "Jobs pushed to workers.", lambda shard: shard.broker.counters.pushed_jobs),
    Metric(
        "jobs_answered_total",
        COUNTER,
        "Final answers of workers that Redis has stored, by the job's state then.",
        lambda shard: shard.broker.counters.answered_jobs.values(),
        "state",
        STATES,
    ),
    _one(
        "jobs_lost_total",
        COUNTER,
        "Jobs that were lost while a client had them: their locks have run out, or somebody has moved them.",
        lambda shard: shard.broker.leases.lost,
    ),
    _one(
        "workers_lost_total",
        COUNTER,
        "Workers that have vanished with jobs in hand.",
        lambda shard: shard.broker.counters.lost_workers,
    ),
    Metric(
        "job_waiting_seconds",
        HISTOGRAM,
        "How long jobs had waited that were given to a worker for the first time.",
        lambda shard: shard.broker.queues.counts.waiting.figures,
        bounds=JOBS,
    ),
    Metric(
        "job_running_seconds",
        HISTOGRAM,
        "How long jobs were in a worker's hands whose final answers Redis has stored.",
        lambda shard: shard.broker.queues.counts.running.figures,
        bounds=JOBS,
    ),
    _one(
        "events_delivered_total",
        COUNTER,
        "Events delivered, once for each watcher.",
        lambda shard: shard.broker.counters.events,
    ),
    _one("event_gaps_total", COUNTER, "Gaps told to watchers.", lambda shard: shard.broker.counters.gaps),
    Metric(
        "webhook_deliveries_total",
        COUNTER,
        "Requests to the endpoints of webhook workers, by what came of them.",
        lambda shard: shard.broker.counters.deliveries.values(),
        "outcome",
        OUTCOMES,
    ),
    _one(
        "webhook_workers", GAUGE, "Webhook workers that the shard runs.", lambda shard: shard.broker.counters.webhooks
    ),
    _one(
        "webhook_breakers_open",
        GAUGE,
        "Webhook workers that leave their endpoint alone, since it is down.",
        lambda shard: shard.broker.counters.open_breakers,
    ),
    _one("redis_up", GAUGE, "Whether Redis is connected.", lambda shard: shard.broker.link.is_up),
    _one(
        "redis_connected_total",
        COUNTER,
        "Times that the connection for commands was made.",
        lambda shard: shard.broker.link.times_up,
    ),
    Metric(
        "redis_latency_seconds",
        HISTOGRAM,
        "How long Redis took for the shard's sign of life, a script that is sent each second.",
        lambda shard: shard.broker.presence.latency.figures,
        bounds=CALLS,
    ),
    _one(
        "redis_backlog",
        GAUGE,
        "Commands that wait for a connection to Redis.",
        lambda shard: sum(link.backlog for link in shard.broker.link.nodes),
    ),
    _one("budget_bytes", GAUGE, "Bytes under way of all connections.", lambda shard: shard.listener.shared.budget.size),
    _one(
        "budget_messages",
        GAUGE,
        "Calls, progress and log rows under way.",
        lambda shard: shard.listener.shared.budget.messages,
    ),
    _one(
        "unread_bytes",
        GAUGE,
        "Output that slow clients have not read.",
        lambda shard: sum(shard.listener.shared.unread.values()),
    ),
    _one(
        "event_loop_lag_seconds",
        GAUGE,
        "How much too late the event loop came to its last look at these figures, due each second, or is for the next.",
        lambda shard: shard.lag,
        is_lag=True,
    ),
    _one("starts_total", COUNTER, "Shards that have started in this slot.", lambda shard: 1),
    _one("start_time_seconds", GAUGE, "When the shard started.", lambda shard: shard.started_at),
)
