"""All scenarios as data: a name, what it shows, the load, and which peers can take part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.load.flooder import FLOODS
from benchmarks.load.task import Load

ALL: Final = ("gateway", "raw", "node", "python", "bun-proxy", "fastify")
_ON_SOCKETS: Final = ALL[:-1]
PROXIES: Final = ("gateway", "bun-proxy")
# What the growth of the cost with the processes is measured against; both take part only when they are named.
KIN: Final = {"one-shard": "gateway", "raw-procs": "raw"}
KB, MB = 1000, 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario.

    Attributes:
        name: unique.
        about: one line.
        unit: of an operation.
        load: what clients do.
        peers: that can take part; the others are shown as not applicable.
        default: in the representative subset.
        flags: of the gateway, where a default would hide within a few seconds what is to be seen.
        least_duration: seconds that a run must last to mean something.
        gateways: how many of them there are, on the same Redis, each with all its shards.
    """

    name: str
    about: str
    unit: str
    load: Load
    peers: tuple[str, ...] = _ON_SOCKETS
    default: bool = False
    flags: tuple[str, ...] = ()
    least_duration: float = 0.0
    gateways: int = 1

    @property
    def group(self) -> str:
        """The name's first word, which selects all scenarios of a kind."""
        return self.name.partition("-")[0]

    def is_for(self, peer: str) -> bool:
        """Whether the peer can take part."""
        return KIN.get(peer, peer) in self.peers and (peer != "raw-procs" or self.load.kind in ("add", "process"))

    def with_connections(self, count: int) -> Scenario:
        """The same with another number of connections (of watchers or queues, where those are the subject)."""
        load = self.load
        name = {"events": "watchers", "sse": "watchers", "sleep": "queues"}.get(load.kind, "connections")
        change: dict[str, Any] = {name: count}
        return replace(self, load=replace(load, **change))


def _add(connections: int, window: int, payload: int = 100, *, default: bool = False) -> Scenario:
    size = {100: "", 10 * KB: "-10kb", MB: "-1mb"}[payload]
    return Scenario(
        name=f"add-{connections}x{window}{size}",
        about=f"{connections} connections, {window} adds under way on each, {payload} bytes of data",
        unit="job",
        load=Load(kind="add", connections=connections, window=window, payload=payload),
        default=default,
    )


def _http_add(connections: int, window: int) -> Scenario:
    return Scenario(
        name=f"http-add-{connections}x{window}",
        about=f"{connections} HTTP connections that are kept alive, {window} requests under way on each, each an add",
        unit="job",
        load=Load(kind="http-add", connections=connections, window=window),
        # Bun 1.4 closes a connection on which a second request comes before the first one is answered.
        peers=(*PROXIES, "fastify") if window == 1 else ("gateway", "fastify"),
    )


def _process(workers: int, concurrency: int, rate: int, *, default: bool = False) -> Scenario:
    return Scenario(
        name=f"process-{workers}x{concurrency}",
        about=f"{workers} workers with {concurrency} jobs at a time; the jobs are there beforehand",
        unit="job",
        load=Load(kind="process", workers=workers, concurrency=concurrency, rate=rate),
        default=default,
    )


def _webhook(concurrency: int) -> Scenario:
    return Scenario(
        name=f"webhook-{concurrency}",
        about=f"jobs that are there beforehand go to a URL, {concurrency} at a time; its endpoint answers at once",
        unit="job",
        load=Load(kind="webhook", concurrency=concurrency, rate=12_000),
        peers=PROXIES,
        flags=("--webhook-allow", "127.0.0.1"),
    )


def _events(watchers: int, window: int, peers: tuple[str, ...], *, default: bool = False) -> Scenario:
    return Scenario(
        name=f"events-{watchers}",
        about=f"{watchers} watchers; batches of {window} adds, the next one when everybody has every event",
        unit="delivery",
        load=Load(kind="events", watchers=watchers, window=window),
        peers=peers,
        default=default,
    )


def _streams(watchers: int, window: int) -> Scenario:
    return replace(
        _events(watchers, window, ("gateway",)),
        name=f"sse-{watchers}",
        about=f"{watchers} watchers by HTTP; batches of {window} adds, as in events-{watchers}",
        load=Load(kind="sse", watchers=watchers, window=window),
    )


def _idle(kind: str, count: int, *, default: bool = False) -> Scenario:
    return Scenario(
        name=f"idle-{kind}-{count}",
        about=f"{count} {kind} connections that only answer pings, which come every 2 s (by default every 40 s)",
        unit="ping",
        load=Load(kind="idle", idle=kind, connections=count),
        # A QueueEvents or Worker is one Redis connection of its own, and half a megabyte: 10,000 are no idle matter.
        peers=PROXIES if count <= 1000 or kind == "queue" else ("gateway",),
        default=default,
        flags=("--ping-interval", "1"),  # of clients with work
        least_duration=4.0,  # two rounds of pings
    )


def _sleep(count: int, *flags: str, name: str = "") -> Scenario:
    return Scenario(
        name=f"sleep-{count}{name}",
        about=f"{count} queues with an idle worker and a watcher each; the latency is that of a first job",
        unit="ping",
        load=Load(kind="sleep", queues=count),
        peers=("gateway",),
        flags=flags,
        least_duration=40.0,  # a round of pings, and more than one of the checks for stalled jobs
    )


def _round_trip(name: str, about: str, load: Load, *, default: bool = False) -> Scenario:
    return Scenario(name=name, about=about, unit="job", load=load, default=default)


SCENARIOS: Final = (
    *(_add(connections, 1, default=connections == 1) for connections in (1, 8, 64)),
    _add(8, 8),
    *(_add(connections, 32, default=connections == 8) for connections in (1, 8, 64)),
    *(_add(connections, window, 10 * KB) for connections in (1, 8) for window in (1, 32)),
    _add(1, 1, MB),
    _add(8, 1, MB, default=True),
    _add(1, 32, MB),
    Scenario(
        name="addBulk-8x1",
        about="8 connections, one addBulk of 50 jobs under way on each",
        unit="job",
        load=Load(kind="add", connections=8, window=1, bulk=50),
    ),
    *(_http_add(connections, window) for connections, window in ((8, 8), (64, 1))),
    _process(1, 1, 12_000),
    _process(1, 50, 35_000),
    _process(4, 50, 35_000, default=True),
    _process(64, 1, 35_000),
    _process(64, 50, 35_000),
    *(_webhook(concurrency) for concurrency in (1, 50)),
    _round_trip(
        "roundtrip-1x1",
        "one job at a time, from add until its completed event",
        Load(kind="roundtrip", connections=1, window=1, workers=1, concurrency=1, watchers=1),
        default=True,
    ),
    _round_trip(
        "roundtrip-4x16",
        "4 connections with 16 jobs under way each, from add until the completed event; 2 workers of 32",
        Load(kind="roundtrip", connections=4, window=16, workers=2, concurrency=32, watchers=1),
    ),
    _round_trip(
        "mixed",
        "8 connections with 16 jobs under way each, 4 workers of 50, 20 watchers of completed",
        Load(kind="roundtrip", connections=8, window=16, workers=4, concurrency=50, watchers=20),
    ),
    _events(1, 32, ("gateway", "node", "bun-proxy")),
    _events(100, 16, ("gateway", "node", "bun-proxy")),
    _events(1000, 8, ("gateway", "node", "bun-proxy"), default=True),
    *(_streams(watchers, window) for watchers, window in ((100, 16), (1000, 8))),
    *(
        _idle(kind, count, default=(kind, count) == ("queue", 1000))
        for kind in ("queue", "worker", "events")
        for count in (1000, 10_000)
    ),
    *(_sleep(count) for count in (1000, 10_000)),
    _sleep(10_000, "--ping-interval", "3600", name="-unpinged"),
    Scenario(
        name="slow-client",
        about="8 connections add, 8 under way on each, beside 4 watchers: first these read, then they do not",
        unit="job",
        load=Load(kind="slow", connections=8, window=8, slow=4),
        peers=PROXIES,
        default=True,
        flags=("--max-write-buffer", "512KiB"),  # the default of 16 MiB takes longer to fill
        least_duration=3.0,
    ),
    *(
        Scenario(
            name=f"floods-{kind}",
            about=f"a job at a time, from add until its completed event, beside {flood.clients} clients: {flood.about}",
            unit="job",
            load=Load(kind="floods", connections=1, window=1, workers=1, concurrency=1, watchers=1, flood=kind),
            peers=("gateway",),
            least_duration=2.0,
        )
        for kind, flood in FLOODS.items()
    ),
    Scenario(
        name="cancel-2x4",
        about="jobs are cancelled in the hands of 4 workers of each of two gateways, while as many are processed",
        unit="cancel",
        load=Load(kind="cancel", connections=2, workers=4, concurrency=8),
        peers=("gateway",),
        gateways=2,
    ),
)


def chosen(names: tuple[str, ...]) -> list[Scenario]:
    """The scenarios of these names, or of groups of that name; none means the representative subset.

    Raises:
        KeyError: there is none of that name.
    """
    if not names:
        return [scenario for scenario in SCENARIOS if scenario.default]
    found: list[Scenario] = []
    for name in names:
        matching = [each for each in SCENARIOS if name in (each.name, each.group, "all")]
        if name == "all":
            matching = list(SCENARIOS)
        if not matching:
            raise KeyError(name)
        found += [each for each in matching if each not in found]
    return found
