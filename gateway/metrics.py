"""The page of metrics: the figures of all shards, from whichever of them is asked.

Each shard writes its own into shared memory once a second; the one that is asked adds what is written there. By this
writing the supervisor sees that the shard's event loop goes on. The memory outlives the shards: what is counted goes on
where the one before in the slot has stopped.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from bullmq_proxy.gateway import log_events
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.counters import OTHER, CallCounts
from bullmq_proxy.gateway.history import History
from bullmq_proxy.gateway.metrics_table import FUNCTIONS, GAUGE, HISTOGRAM, METRICS, Metric
from bullmq_proxy.gateway.net.listener import Listener
from bullmq_proxy.gateway.shared_memory import FIGURES, Published, ShardMemory

_PERIOD: Final = 1.0  # s between two looks at the own figures
_KINDS: Final = [metric.kind for metric in METRICS for _ in range(metric.size)]  # of each figure
assert len(_KINDS) <= FIGURES
# A shard runs the code that is installed when it starts: its siblings may know other figures, which it leaves out.
_LAYOUT: Final = zlib.crc32(repr([(each.name, each.values, each.bounds) for each in METRICS]).encode())


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
        calls = broker.counters.calls = {name: CallCounts() for name in FUNCTIONS if name != OTHER}
        self.calls = [*calls.values(), broker.counters.other_calls]  # in the order of their names
        self._row = row
        before = row.counted(_LAYOUT, len(_KINDS))
        self._before = [0.0 if kind == GAUGE else figure for kind, figure in zip(_KINDS, before, strict=True)]
        self._look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Write the figures down from now on."""
        self._publish()
        self._look_later()
        self.broker.link.on_up.append(self._publish)

    def close(self) -> None:
        """Write them down for the last time."""
        self.history.collect_all()
        self._publish()
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
        figures = (figure for metric in METRICS for figure in metric.read(self))
        self._row.publish(_LAYOUT, [before + now for before, now in zip(self._before, figures, strict=True)])


def _lines(rows: dict[int, Published]) -> Iterator[str]:
    at = 0
    for metric in METRICS:
        yield f"# HELP bullmq_proxy_{metric.name} {metric.help}\n# TYPE bullmq_proxy_{metric.name} {metric.kind}\n"
        for slot, (age, figures) in rows.items():
            if age is not None or metric.kind != GAUGE:  # nobody serves the slot now, but somebody did
                yield from _lines_of(metric, f'slot="{slot}"', age or 0.0, figures[at : at + metric.size])
        at += metric.size


def _lines_of(metric: Metric, slot: str, age: float, figures: Sequence[float]) -> Iterator[str]:
    for place, value in enumerate(metric.values):
        labels = f'{slot},{metric.label}="{value}"' if metric.label else f"{slot},{value}".removesuffix(",")
        own = figures[place * metric.width : (place + 1) * metric.width]
        if metric.is_sparse and not any(own):
            continue
        if metric.kind == HISTOGRAM:
            yield from _histogram(metric, labels, own)
        else:
            figure = max(own[0], age - _PERIOD) if metric.is_lag else own[0]
            yield f"bullmq_proxy_{metric.name}{{{labels}}} {_number(figure)}\n"


def _histogram(metric: Metric, labels: str, figures: Sequence[float]) -> Iterator[str]:
    name, *counts = f"bullmq_proxy_{metric.name}", *accumulate(figures[:-1])
    for bound, count in zip([*map(_number, map(float, metric.bounds)), "+Inf"], counts, strict=True):
        yield f'{name}_bucket{{{labels},le="{bound}"}} {_number(count)}\n'
    yield f"{name}_sum{{{labels}}} {_number(figures[-1])}\n{name}_count{{{labels}}} {_number(counts[-1])}\n"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(round(value, 6))
