"""A fraction of a second of each kind of load: the benchmark's parts work together. Nothing here asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.figures import Run, Summary, ratio, summary
from benchmarks.load.frames import Splitter, frame
from benchmarks.load.histogram import Histogram, bucket, middle
from benchmarks.load.task import Load, Outcome, Task, job_data
from benchmarks.report import table
from benchmarks.runner import Plan, Result, run_plan
from benchmarks.scenarios import ALL, SCENARIOS, Scenario, chosen
from benchmarks.silence import calls_of
from benchmarks.svg import chart
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from tests.benchmarks.test_work_per_operation import BOUNDS, check_work
from tests.support.service import ROOT
from tests.support.waiting import TIMEOUT

BOTH = ("gateway", "raw")
_TRIES = (1, 4, 16)  # times as long: on a busy machine nothing may end in a tenth of a second


def _scenario(name: str) -> Scenario:
    (found,) = [scenario for scenario in SCENARIOS if scenario.name == name]
    return replace(found, least_duration=0.0)


def _run(
    scenario: Scenario, duration: float = 0.1, peers: tuple[str, ...] = BOTH, **more: Any
) -> tuple[Result, dict[str, Run]]:
    """One run of each peer, and its figures; a run that failed fails the test."""
    for longer in _TRIES:
        plan = Plan(scenarios=[scenario], peers=peers, duration=longer * duration, repeats=1, warmup=0.05, **more)
        ((result,), _) = run_plan(plan, lambda line: None)
        assert not result.failures
        runs = {peer: run for peer, (run,) in result.runs.items() if run is not None}
        if all(run.operations for run in runs.values()):
            break
    return result, runs


def _assert_sane(run: Run, *, is_proxy: bool) -> None:
    assert run.operations > 0
    assert run.errors == 0
    assert run.per_second > 0
    assert run.redis_us is not None and run.redis_us > 0
    assert run.client_us is not None and run.client_us > 0
    assert run.redis_connections >= 1
    assert run.commands_per_op is not None and run.commands_per_op > 0
    assert (run.proxy_us is not None and run.proxy_us > 0) == is_proxy
    assert (run.peak_mib is not None and run.peak_mib > 5) == is_proxy


@pytest.mark.parametrize("name", ["addBulk-8x1", "roundtrip-4x16"])
def test_gateway_and_raw_do_the_same_work(name: str) -> None:
    _, runs = _run(_scenario(name))
    assert set(runs) == set(BOTH)
    for peer, run in runs.items():
        _assert_sane(run, is_proxy=peer == "gateway")
        assert run.p50_ms is not None and run.p99_ms is not None and 0 < run.p50_ms <= run.p99_ms
    if name in BOUNDS:
        check_work(name, runs["gateway"])


@pytest.mark.parametrize("name", ["add-8x32", "process-4x50"])
def test_several_processes_are_compared_with_one(name: str) -> None:
    result, runs = _run(_scenario(name), 0.1, ("gateway", "one-shard", "raw", "raw-procs"), procs=2, apart=True)
    for peer, run in runs.items():
        _assert_sane(run, is_proxy=peer in ("gateway", "one-shard"))
    assert runs["gateway"].redis_connections > runs["one-shard"].redis_connections
    assert runs["raw-procs"].redis_connections == 2 * runs["raw"].redis_connections
    lines = table(result)
    assert "gateway / one-shard: throughput" in lines
    assert "raw-procs / raw: throughput" in lines
    assert "gateway / raw-procs" not in lines
    check_work(name, runs["one-shard"])


def test_adds_by_http_are_counted_as_those_by_websocket() -> None:
    result, runs = _run(_scenario("http-add-8x8"), peers=("gateway",))
    _assert_sane(runs["gateway"], is_proxy=True)
    assert result.scenario.group == "http"


@pytest.mark.parametrize("name", ["events-100", "sse-100"])
def test_a_delivery_counts_once_for_each_watcher(name: str) -> None:
    scenario = _scenario(name).with_connections(5)
    result, runs = _run(scenario)
    _assert_sane(runs["gateway"], is_proxy=True)
    assert result.absent == {"raw": "not applicable"}


def test_idle_connections_answer_pings() -> None:
    scenario = replace(_scenario("idle-queue-1000").with_connections(100), flags=("--ping-interval", "0.1"))
    _, runs = _run(scenario, duration=0.4)
    _assert_sane(runs["gateway"], is_proxy=True)
    assert runs["gateway"].kib_per_connection is not None


def test_queues_that_sleep_share_connections_and_have_a_first_push() -> None:
    scenario = _scenario("sleep-1000").with_connections(40)
    result, runs = _run(replace(scenario, flags=("--ping-interval", "0.1", "--queue-links", "2")), duration=0.4)
    run = runs["gateway"]
    _assert_sane(run, is_proxy=True)
    assert run.p50_ms is not None and run.p50_ms > 0
    assert run.redis_connections == 1 + 2 + 2 + 1  # for commands, for jobs, for events, the one that is shared
    assert "commands/s" in table(result)


def test_every_cancel_across_two_gateways_is_answered_truthfully() -> None:
    _, runs = _run(_scenario("cancel-2x4"), duration=0.3, peers=("gateway",), procs=2)
    _assert_sane(runs["gateway"], is_proxy=True)
    assert runs["gateway"].extra["cancels"] > 0
    assert runs["gateway"].extra["untruthful"] == 0


def test_a_stuck_client_has_neighbours_with_figures() -> None:
    _, runs = _run(_scenario("slow-client"))
    _assert_sane(runs["gateway"], is_proxy=True)
    assert runs["gateway"].extra["per_second_while_they_read"] > 0


def test_the_command_writes_table_json_and_charts_and_names_what_is_missing(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "benchmarks", "run", "add-8x32", "--peers", "gateway,node,bun-proxy"]
    words += ["--repeats", "1", "--duration", "0.2", "--json", str(tmp_path / "all.json"), "--svg", str(tmp_path)]
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "node: missing: no npm" in done.stdout
    document = json.loads((tmp_path / "all.json").read_text())
    assert document["settings"]["repeats"] == 1
    assert document["versions"]["valkey"]
    (scenario,) = document["scenarios"]
    assert scenario["absent"] == {"node": "missing: no npm", "bun-proxy": "missing: no npm"}
    assert scenario["runs"]["gateway"][0]["operations"] > 0
    assert scenario["medians"]["gateway"]["per_second"] > 0
    assert ElementTree.parse(tmp_path / "add-8x32-throughput.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(("words", "says"), [(["nonsense"], "no scenario"), (["--peers", "php"], "unknown peer")])
def test_the_command_says_what_it_does_not_know(words: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "run", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr


# The parts without processes


def test_the_silence_of_every_function_is_looked_at() -> None:
    calls = calls_of(1000)
    assert {call.fn for call in calls if not call.flows} == {function.name for function in TABLE}
    assert {call.fn for call in calls if call.flows} == {function.name for function in FLOWS}


def test_scenarios_have_names_of_their_own_and_groups_select_them() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert {scenario.name for scenario in chosen(("process",))} == {n for n in names if n.startswith("process-")}
    assert chosen(()) == [scenario for scenario in SCENARIOS if scenario.default]
    assert all(set(scenario.peers) <= set(ALL) for scenario in SCENARIOS)


def test_a_task_survives_the_way_to_another_process() -> None:
    task = Task(load=Load(kind="add", window=32), warmup=0.1, duration=1.0, deadline=9.0, redis_port=1, key="k")
    assert Task.from_json(task.to_json()) == task
    members = {"operations": 3, "seconds": 0.5, "errors": 0, "latency": {"7": 3}}
    assert Outcome.from_members(members) == Outcome(3, 0.5, latency={7: 3})


def test_a_load_is_divided_among_clients() -> None:
    assert [load.connections for load in Load(kind="add", connections=8, window=32).split(3)] == [3, 3, 2]
    assert [load.workers for load in Load(kind="process", workers=2).split(8)] == [1, 1]
    assert Outcome(3, 0.5, 1, {7: 3}, before=1) + Outcome(4, 0.7, 0, {7: 1, 9: 3}) == Outcome(
        7, 0.7, 1, {7: 4, 9: 3}, before=1
    )


def test_job_data_has_the_size_that_was_asked_for() -> None:
    for size in (100, 10_000):
        for number in (None, 5):
            assert len(job_data(size, number)) == size
            json.loads(job_data(size, number))


def test_buckets_count_up_without_a_gap_and_keep_three_percent() -> None:
    assert [bucket(value) for value in range(130)] == sorted(bucket(value) for value in range(130))
    assert sorted({bucket(value) for value in range(4096)}) == list(range(bucket(4095) + 1))
    for value in (1, 63, 64, 1000, 123_456):
        assert middle(bucket(value)) == pytest.approx(value, rel=0.02)


def test_quantiles_of_a_histogram() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    histogram.record(0.000_010, 98)
    histogram.record(0.000_020, 2)
    assert histogram.quantile(0.5) == pytest.approx(0.010)
    assert histogram.quantile(0.99) == pytest.approx(0.020)


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_the_splitter_finds_frames_however_they_are_cut(step: int) -> None:
    sizes = (0, 5, 125, 126, 65_535, 65_536)
    stream = b"\x89\x00".join(_server_frame(b"a" * size) for size in sizes)
    splitter, found = Splitter(), []
    for start in range(0, len(stream), step):
        found += splitter.feed(stream[start : start + step])
    assert [len(message) for message in found] == list(sizes)
    assert len(splitter.pings) == len(sizes) - 1


def _server_frame(message: bytes) -> bytes:
    """A client's frame without its mask."""
    masked = frame(message)
    head = masked[: len(masked) - len(message) - 4]
    return bytes((head[0], head[1] & 0x7F)) + head[2:] + message


def test_ratios_are_made_pair_by_pair() -> None:
    assert summary([]) is None
    assert summary([3.0, 1.0, 2.0]) == Summary(2.0, 1.5, 2.5)
    ours: list[Run | None] = [_a_run(10.0), _a_run(40.0), None]
    theirs: list[Run | None] = [_a_run(5.0), _a_run(10.0), _a_run(1.0)]
    assert ratio(ours, theirs, lambda run: run.per_second) == Summary(3.0, 2.5, 3.5)


def _a_run(per_second: float) -> Run:
    none = {name: None for name in Run.__dataclass_fields__ if name not in ("extra", "operations", "errors")}
    members = {**none, "per_second": per_second, "operations": 1, "errors": 0, "redis_connections": 1}
    return Run(**{**members, "proxy_cores": 0.0})  # type: ignore[arg-type]


def test_a_chart_shows_what_is_missing_and_nothing_that_could_be_markup() -> None:
    text = chart("a < b", {"gateway": Summary(2.0, 1.0, 3.0)}, "ms", {"node": "missing: no node", "raw": "n/a"})
    root = ElementTree.fromstring(text)
    words = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert "a < b" in words and "missing: no node" in words and "2 ms" in words
    assert "n/a" not in words
