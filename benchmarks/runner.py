"""Runs scenarios: in each repeat every peer once, in rotating order, with fresh processes and an empty Redis."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Readings, Run, figures
from benchmarks.lab.accounting import Memory, cpu_seconds, forget_peak, memory
from benchmarks.lab.bench import PREFIX, Bench, Proxy, missing
from benchmarks.lab.cores import Cores, on
from benchmarks.lab.npm import Missing
from benchmarks.lab.preload import preload
from benchmarks.lab.processes import LabError, Process
from benchmarks.lab.valkey import Valkey, Work
from benchmarks.load.task import Load, Outcome, Task
from benchmarks.scenarios import Scenario

_CONNECT: Final = 240.0  # s until all connections are open and warm
_LATE: Final = 0.5  # s that each further client of a peer may need to start
_GRACE: Final = 20.0  # s beyond the measured time
_END: Final = 3.0  # s for a client to leave by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run; `duration` and `warmup` in seconds per run.

    `apart` gives Valkey and the load client the last core, and what is measured the others.
    """

    scenarios: list[Scenario]
    peers: tuple[str, ...]
    procs: int = 1
    apart: bool = False
    duration: float = 1.5
    repeats: int = 5
    warmup: float = 0.4


@dataclass(slots=True)
class Result:
    """All runs of one scenario.

    Attributes:
        runs: by peer, one for each repeat; None where a run failed.
        absent: peers without runs, and why.
        failures: what went wrong in single runs.
    """

    scenario: Scenario
    runs: dict[str, list[Run | None]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def run_plan(plan: Plan, tell: Callable[[str], None]) -> tuple[list[Result], str]:
    """Run everything.

    Args:
        plan: what to run.
        tell: gets a line on each run.

    Returns:
        The results, and the version of the server they were made with.
    """
    reasons = {peer: reason for peer in plan.peers if (reason := missing(peer)) is not None}
    for peer, reason in reasons.items():
        tell(f"{peer} is missing here: {reason}")
    cores = Cores.apart() if plan.apart else Cores.shared()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        with on(cores.rest):
            valkey = stack.enter_context(Valkey(directory))
        runner = _Runner(plan, valkey, Bench(valkey.port, directory, plan.procs, cores), tell)
        results = [runner.scenario(scenario, reasons) for scenario in plan.scenarios]
        return results, valkey.version


class _Runner:
    """One plan on one Valkey."""

    def __init__(self, plan: Plan, valkey: Valkey, bench: Bench, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._valkey = valkey
        self._bench = bench
        self._tell = tell

    def scenario(self, scenario: Scenario, reasons: dict[str, str]) -> Result:
        result = Result(scenario)
        for peer in self._plan.peers:
            if not scenario.is_for(peer):
                result.absent[peer] = "not applicable"
            elif peer == "raw-procs" and len(scenario.load.split(self._plan.procs)) < self._plan.procs:
                result.absent[peer] = "not applicable: fewer connections than processes"
            elif peer in reasons:
                result.absent[peer] = f"missing: {reasons[peer]}"
            else:
                result.runs[peer] = []
        peers = list(result.runs)
        for repeat in range(self._plan.repeats):
            turn = repeat % len(peers) if peers else 0
            for peer in peers[turn:] + peers[:turn]:
                result.runs[peer].append(self._attempt(scenario, peer, repeat, result.failures))
        return result

    def _attempt(self, scenario: Scenario, peer: str, repeat: int, failures: list[str]) -> Run | None:
        try:
            run = self._run(scenario, peer)
        except (LabError, Missing, OSError) as error:
            failures.append(f"{peer}, repeat {repeat + 1}: {error}")
            self._tell(f"{scenario.name} {repeat + 1}/{self._plan.repeats} {peer}: FAILED, {error}")
            return None
        self._tell(f"{scenario.name} {repeat + 1}/{self._plan.repeats} {peer}: {run.per_second:,.0f} ops/s")
        return run

    def _run(self, scenario: Scenario, peer: str) -> Run:
        load, duration = scenario.load, max(self._plan.duration, scenario.least_duration)
        self._valkey.forget()
        # Several clients are not there at the same moment: the first ones load while the others still start.
        early = _LATE * self._plan.procs if peer == "raw-procs" else 0.0
        jobs = int(load.rate * (early + self._plan.warmup + duration))
        if jobs:
            preload(self._valkey.port, PREFIX, "bench", jobs, load.payload)
        with ExitStack() as stack:
            proxy = self._bench.proxy(peer, scenario, stack)
            before = memory(proxy.shards)
            task = Task(
                load=load,
                warmup=self._plan.warmup,
                duration=duration,
                deadline=_CONNECT + 2 * duration + _GRACE,
                redis_port=self._valkey.port,
                port=proxy.ports[0],
                more_ports=proxy.ports[1:],
                key=proxy.key,
                prefix=PREFIX,
                jobs=jobs,
            )
            clients = self._bench.clients(peer, task, stack)
            for client in clients:
                _expect(client, "warm", _CONNECT)
            readings = self._measured(clients, proxy, before, task)
            if len(clients) > 1 and jobs and not self._valkey.has(f"{PREFIX}:{task.queue}:wait"):
                raise LabError("the queue ran empty before the end, so that idle time was measured")
            for client in clients:
                client.tell("end")
            for client in clients:
                client.wait(_END)
        if readings.outcome.errors:
            words = next(filter(None, (client.last_words() for client in clients)), "")
            raise LabError(f"{readings.outcome.errors} errors, the first: {words}")
        return figures(readings, has_proxy=bool(proxy.shards))

    def _measured(self, clients: list[Process], proxy: Proxy, before: Memory, task: Task) -> Readings:
        """Let the clients measure, with a reading of everything right before and right after."""
        forget_peak(proxy.shards)
        queue = f"{PREFIX}:{task.queue}"
        first = self._reading(clients, proxy, queue)
        for client in clients:
            client.tell("go")
        outcomes = [Outcome.from_members(_expect(client, "done", 2 * task.duration + _GRACE)) for client in clients]
        last = self._reading(clients, proxy, queue)
        work = last.work - first.work
        change = {name: last.cpu[name] - first.cpu[name] for name in last.cpu}
        return Readings(
            outcome=reduce(add, outcomes),
            wall=last.at - first.at,
            proxy_cpu=change["proxy"],
            parent_cpu=change["parent"],
            redis_cpu=change["redis"],
            client_cpu=change["client"],
            work=work,
            done={"add": work.added, "process": work.completed}.get(task.load.kind, 0),
            before=before,
            during=memory(proxy.shards),
            redis_connections=self._valkey.clients(),
            connections=_connections(task.load),
        )

    def _reading(self, clients: list[Process], proxy: Proxy, queue: str) -> _Reading:
        cpu = {
            "proxy": cpu_seconds(proxy.shards),
            "parent": cpu_seconds(proxy.parents),
            "redis": cpu_seconds((self._valkey.pid,)),
            "client": cpu_seconds(client.pid for client in clients),
        }
        return _Reading(time.monotonic(), cpu, self._valkey.work(queue))


@dataclass(frozen=True, slots=True)
class _Reading:
    """One look at the clocks and counters."""

    at: float
    cpu: dict[str, float]
    work: Work


def _expect(client: Process, what: str, deadline: float) -> dict[str, Any]:
    members = client.message(deadline)
    if members.get("at") != what:
        raise LabError(f"{client.name}: expected {what!r}, got {members}")
    return members


def _connections(load: Load) -> int:
    """Client connections that the memory is divided among: those of the kind that is measured."""
    return {"events": load.watchers, "sse": load.watchers, "process": load.workers, "sleep": 2 * load.queues}.get(
        load.kind, load.connections
    )
