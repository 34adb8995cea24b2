"""The page of metrics: the figures of all shards, from whichever of them is asked.

Each shard writes its own into shared memory once a second; the one that is asked adds what is written there. By this
writing the supervisor sees that the shard's event loop goes on.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from bullmq_proxy.gateway import log_events
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.counters import OUTCOMES, STATES
from bullmq_proxy.gateway.history import History
from bullmq_proxy.gateway.net.listener import Listener
from bullmq_proxy.gateway.shared_memory import FIGURES, ShardMemory

_PERIOD: Final = 1.0  # s between two looks at the own figures


@dataclass(frozen=True, slots=True)
class Metric:
    """One line for each shard.

    Attributes:
        name: without the prefix of all our names; figures of one name stand together.
        kind: counter or gauge, as Prometheus names them.
        help: one sentence.
        read: its value now.
        label: beside `slot`, as it is written.
        is_lag: it is at least as much as the shard is late with its next look.
    """

    name: str
    kind: str
    help: str
    read: Callable[[Metrics], float]
    label: str = ""
    is_lag: bool = False


def _answered(state: str) -> Metric:
    return Metric(
        "jobs_answered_total",
        "counter",
        "Final answers of workers that Redis has stored, by the job's state then.",
        lambda shard: shard.broker.counters.answered_jobs[state],
        f',state="{state}"',
    )


def _delivered(outcome: str) -> Metric:
    return Metric(
        "webhook_deliveries_total",
        "counter",
        "Requests to the endpoints of webhook workers, by what came of them.",
        lambda shard: shard.broker.counters.deliveries[outcome],
        f',outcome="{outcome}"',
    )


METRICS: Final = (
    Metric("connections", "gauge", "Open WebSocket connections.", lambda shard: shard.listener.open),
    Metric(
        "connections_accepted_total",
        "counter",
        "WebSocket handshakes completed.",
        lambda shard: shard.listener.accepted,
    ),
    Metric("calls_total", "counter", "Calls of functions.", lambda shard: shard.broker.counters.calls),
    Metric(
        "call_errors_total",
        "counter",
        "Calls of functions that were answered with an error.",
        lambda shard: shard.broker.counters.refused_calls,
    ),
    Metric("jobs_held", "gauge", "Jobs in clients' hands.", lambda shard: len(shard.broker.leases)),
    Metric("jobs_pushed_total", "counter", "Jobs pushed to workers.", lambda shard: shard.broker.counters.pushed_jobs),
    *map(_answered, STATES),
    Metric(
        "events_delivered_total",
        "counter",
        "Events delivered, once for each watcher.",
        lambda shard: shard.broker.counters.events,
    ),
    *map(_delivered, OUTCOMES),
    Metric(
        "webhook_workers", "gauge", "Webhook workers that the shard runs.", lambda shard: shard.broker.counters.webhooks
    ),
    Metric(
        "webhook_breakers_open",
        "gauge",
        "Webhook workers that leave their endpoint alone, since it is down.",
        lambda shard: shard.broker.counters.open_breakers,
    ),
    Metric("redis_up", "gauge", "Whether Redis is connected.", lambda shard: shard.broker.link.is_up),
    Metric(
        "redis_connected_total",
        "counter",
        "Times that the connection for commands was made.",
        lambda shard: shard.broker.link.times_up,
    ),
    Metric(
        "event_loop_lag_seconds",
        "gauge",
        "How much too late the event loop came to its last look at these figures, due each second, or is for the next.",
        lambda shard: shard.lag,
        is_lag=True,
    ),
    Metric("start_time_seconds", "gauge", "When the shard started.", lambda shard: shard.started_at),
)
assert len(METRICS) <= FIGURES
# A shard runs the code that is installed when it starts: its siblings may know other figures, which it leaves out.
_LAYOUT: Final = zlib.crc32("".join(figure.name + figure.label for figure in METRICS).encode())


class Metrics:
    """The figures of one shard, and the page of all.

    Attributes:
        history: of the last hour, to which each look adds what was counted since the one before.
    """

    def __init__(self, broker: Broker, listener: Listener, row: ShardMemory) -> None:
        """Begin to count; `row` is where this shard's figures stand for all to see."""
        self.broker: Broker = broker
        self.listener: Listener = listener
        self.lag: float = 0.0  # s
        self.started_at: float = round(time.time(), 3)
        self.history = History(row, broker.queues.counts)
        self._row = row
        self._look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Write the figures down from now on."""
        self._publish()
        self._look_later()
        self.broker.link.on_up.append(self._publish)

    def close(self) -> None:
        """Write them down for the last time."""
        self.history.collect_all()
        if self._look is not None:
            self._look.cancel()

    def page(self) -> str:
        """Return all figures in Prometheus's text format, each with the label `slot`."""
        self._publish()
        return "".join(_lines(self._row.published(_LAYOUT)))

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(_PERIOD, self._look_again, loop.time() + _PERIOD)

    def _look_again(self, due: float) -> None:
        self.lag = max(0.0, asyncio.get_running_loop().time() - due)
        self._look_later()  # before what could raise
        self._publish()
        self._collect()
        log_events.tick()

    def _collect(self) -> None:
        if self.history.collect():
            asyncio.get_running_loop().call_soon(self._collect)

    def _publish(self) -> None:
        self._row.publish(_LAYOUT, [float(figure.read(self)) for figure in METRICS])


def _lines(rows: dict[int, tuple[float, list[float]]]) -> Iterator[str]:
    for name, group in groupby(enumerate(METRICS), key=lambda item: item[1].name):
        figures = list(group)
        first = figures[0][1]
        yield f"# HELP bullmq_proxy_{name} {first.help}\n# TYPE bullmq_proxy_{name} {first.kind}\n"
        for slot, (age, values) in rows.items():
            for column, figure in figures:
                value = max(values[column], age - _PERIOD) if figure.is_lag else values[column]
                yield f'bullmq_proxy_{name}{{slot="{slot}"{figure.label}}} {_number(value)}\n'


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(round(value, 6))
