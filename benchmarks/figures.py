"""From one run's readings to figures, from many runs to medians, spreads and ratios. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.lab.accounting import Memory
from benchmarks.lab.valkey import Work
from benchmarks.load.histogram import Histogram
from benchmarks.load.task import Outcome

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What was read around one run. Processor times in seconds."""

    outcome: Outcome
    wall: float  # s between the two readings of the processor times
    proxy_cpu: float
    parent_cpu: float
    redis_cpu: float
    client_cpu: float
    work: Work
    done: int  # operations that Redis has counted between the readings, or 0
    before: Memory  # of the proxy, before any client
    during: Memory  # with all clients connected, at the end of the run
    redis_connections: int
    connections: int  # of clients to the proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The figures of one run. None: this peer or kind has no such figure."""

    operations: int
    per_second: float
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    proxy_us: float | None  # processor time per operation
    parent_us: float | None
    redis_us: float | None
    client_us: float | None
    proxy_cores: float  # cores that the proxy kept busy
    redis_cores: float
    commands_per_second: float
    idle_mib: float | None  # PSS of the proxy before any client
    pss_mib: float | None  # and with all clients
    rss_mib: float | None
    peak_mib: float | None
    kib_per_connection: float | None
    redis_connections: int
    commands_per_op: float | None  # those inside scripts counted
    scripts_per_op: float | None
    reads_per_op: float | None
    writes_per_op: float | None
    errors: int
    extra: dict[str, float] = field(default_factory=dict)

    def members(self) -> dict[str, Any]:
        """As JSON, rounded to what means something."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def figures(readings: Readings, *, has_proxy: bool) -> Run:
    """The figures of one run."""
    outcome, work = readings.outcome, readings.work
    latency = Histogram(outcome.latency)

    operations = readings.done or outcome.operations + outcome.before

    def per_operation(value: float, scale: float = 1.0) -> float | None:
        return value * scale / operations if operations else None

    def of_proxy(value: float | None) -> float | None:
        return value if has_proxy else None

    grown = (readings.during.pss - readings.before.pss) / 1024 / max(1, readings.connections)
    return Run(
        operations=outcome.operations,
        per_second=outcome.operations / outcome.seconds if outcome.seconds else 0.0,
        p50_ms=latency.quantile(0.5),
        p99_ms=latency.quantile(0.99),
        p999_ms=latency.quantile(0.999),
        proxy_us=of_proxy(per_operation(readings.proxy_cpu, 1e6)),
        parent_us=of_proxy(per_operation(readings.parent_cpu, 1e6)),
        redis_us=per_operation(readings.redis_cpu, 1e6),
        client_us=per_operation(readings.client_cpu, 1e6),
        proxy_cores=readings.proxy_cpu / readings.wall,
        redis_cores=readings.redis_cpu / readings.wall,
        commands_per_second=work.commands / readings.wall,
        idle_mib=of_proxy(readings.before.pss / MIB),
        pss_mib=of_proxy(readings.during.pss / MIB),
        rss_mib=of_proxy(readings.during.rss / MIB),
        peak_mib=of_proxy(readings.during.peak / MIB),
        kib_per_connection=of_proxy(grown) if readings.connections >= 100 else None,
        redis_connections=readings.redis_connections,
        commands_per_op=per_operation(work.commands),
        scripts_per_op=per_operation(work.scripts),
        reads_per_op=per_operation(work.reads),
        writes_per_op=per_operation(work.writes),
        errors=outcome.errors,
        extra=dict(outcome.extra),
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """The median of some runs, and the two quarters around it."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """The distance between the quarters as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def summary(values: Iterable[float | None]) -> Summary | None:
    """Median and quartiles; None when there are no values."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    if len(known) == 1:
        return Summary(known[0], known[0], known[0])
    low, _, high = statistics.quantiles(known, n=4, method="inclusive")
    return Summary(statistics.median(known), low, high)


def ratio(
    ours: Sequence[Run | None], theirs: Sequence[Run | None], figure: Callable[[Run], float | None]
) -> Summary | None:
    """Ours by theirs, repeat by repeat, and the median of that: what disturbs the machine disturbs both of a pair."""
    pairs = zip(ours, theirs, strict=True)
    values = [(figure(one), figure(other)) for one, other in pairs if one is not None and other is not None]
    return summary(one / other for one, other in values if one is not None and other)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return value
