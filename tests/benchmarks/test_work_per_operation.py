"""The guard: how many Redis commands, reads and writes an add and a job may cost. They depend little on the machine.

Commands count those inside BullMQ's scripts, so that a new version of BullMQ may change them: then look, and write down
the new number. Reads and writes are those of the server: how well commands are pipelined.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from benchmarks.figures import Run
from benchmarks.runner import Plan, run_plan
from benchmarks.scenarios import SCENARIOS
from tests.support.waiting import stretched

# The readings themselves, and what happens once a run, come on top of what the operations need.
_SLACK = 1.05
# So do signs of life and the like; where other processes have the machine, there are few operations beside them.
_A_SECOND = 40
_DURATION = 0.2  # s
# On a busy machine fewer commands leave in one write, since turns end by the clock; several do all the same.
_BUSY_TRANSFERS = 0.3
SCENARIO = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass(frozen=True)
class Bound:
    """The most that one operation may cost."""

    commands: float
    scripts: float
    transfers: float  # reads, and as many writes
    connections: int


# Some are checked in test_benchmarks.py, with runs that are made there anyway.
BOUNDS = {
    # One script with 8 commands; 256 adds under way leave in bursts: measured 0.01 reads each on a quiet machine.
    "add-8x32": Bound(commands=9.0, scripts=1.0, transfers=0.1, connections=2),
    # Of the two connections one is for what Redis tells unasked.
    # Alone, an add is one read and one write, and not a command more.
    "add-1x1": Bound(commands=9.0, scripts=1.0, transfers=1.0, connections=2),
    "addBulk-8x1": Bound(commands=9.0, scripts=1.0, transfers=0.1, connections=2),
    # moveToFinished brings the next job along: one script a job. The third connection waits at the marker.
    "process-4x50": Bound(commands=26.0, scripts=1.1, transfers=0.1, connections=3),
    "process-1x1": Bound(commands=26.0, scripts=1.0, transfers=1.0, connections=3),
    # Many workers share one connection and one waiter.
    "process-64x1": Bound(commands=26.0, scripts=1.1, transfers=0.25, connections=3),
}


@pytest.mark.parametrize("name", ["add-1x1", "process-1x1", "process-64x1"])
def test_work_per_operation_stays_within_bounds(name: str) -> None:
    check_work(name)


def check_work(name: str, run: Run | None = None) -> None:
    """Fail if an operation costs more than it may, in `run`, or in one that is made here."""
    run = run or _run(name)
    assert run.redis_connections <= BOUNDS[name].connections
    assert not _excess(run, BOUNDS[name], _under_way(name))


def _under_way(name: str) -> int:
    """The most operations that may have begun and not ended at a reading."""
    load = SCENARIO[name].load
    return load.workers * load.concurrency or load.connections * load.window * max(load.bulk, 1)


def _excess(run: Run, bound: Bound, under_way: int) -> dict[str, float | None]:
    """What a run cost more than it may."""
    slack, beside = _SLACK * (1 + under_way / run.operations), _A_SECOND / run.per_second
    transfers = max(bound.transfers, min(stretched(bound.transfers), _BUSY_TRANSFERS))
    allowed = {
        "commands_per_op": bound.commands,
        "scripts_per_op": bound.scripts,
        "reads_per_op": transfers,
        "writes_per_op": transfers,
    }
    counted = {name: getattr(run, name) for name in allowed}
    return {name: count for name, count in counted.items() if count is None or count > allowed[name] * slack + beside}


def test_events_cost_redis_the_same_however_many_watch() -> None:
    few, many = _run("events-1", connections=3), _run("events-1", connections=40)
    assert few.commands_per_op is not None and many.commands_per_op is not None
    # An operation is a delivery. How many events one XREAD brings is chance; how many watch must not matter.
    assert many.commands_per_op * 40 < few.commands_per_op * 3 * 2
    assert many.redis_connections == few.redis_connections <= 3


def _run(name: str, connections: int | None = None) -> Run:
    scenario = SCENARIO[name]
    if connections is not None:
        scenario = scenario.with_connections(connections)
    plan = Plan(
        scenarios=[replace(scenario, least_duration=0.0)], peers=("gateway",), duration=_DURATION, repeats=1, warmup=0.1
    )
    ((result,), _) = run_plan(plan, lambda line: None)
    assert not result.failures
    (run,) = result.runs["gateway"]
    assert run is not None and run.operations > 20
    return run
