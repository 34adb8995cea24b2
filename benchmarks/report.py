"""Results as a table for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Run, Summary, ratio, summary
from benchmarks.runner import Plan, Result

OURS: Final = "gateway"
ONE, MANY = "raw", "raw-procs"

Figure = Callable[[Run], float | None]


def attribute(name: str) -> Figure:
    """The figure of this name."""
    return lambda run: getattr(run, name)


# Heading, figure, digits behind the point.
COLUMNS: Final[tuple[tuple[str, str, int], ...]] = (
    ("ops/s", "per_second", 0),
    ("p50 ms", "p50_ms", 2),
    ("p99 ms", "p99_ms", 2),
    ("p99.9", "p999_ms", 2),
    ("proxy µs", "proxy_us", 1),
    ("parent", "parent_us", 1),
    ("redis µs", "redis_us", 1),
    ("client µs", "client_us", 1),
    ("PSS idle", "idle_mib", 0),
    ("RSS peak", "peak_mib", 0),
    ("KiB/conn", "kib_per_connection", 1),
    ("r-conns", "redis_connections", 0),
    ("cmds", "commands_per_op", 1),
    ("scripts", "scripts_per_op", 2),
    ("reads", "reads_per_op", 3),
    ("writes", "writes_per_op", 3),
)
# What the ratios below each table compare: ours by theirs; and of a bare client, several processes by one.
RATIOS: Final = (("throughput", "per_second"), ("p50", "p50_ms"), ("p99", "p99_ms"), ("proxy CPU", "proxy_us"))
CLIENT_RATIOS: Final = (("throughput", "per_second"), ("client CPU", "client_us"))


def table(result: Result) -> str:
    """One scenario: a row of medians for each peer, what is absent and why, and the ratios."""
    scenario = result.scenario
    rows = [["", *(heading for heading, _, _ in COLUMNS), "spread"]]
    for peer, runs in result.runs.items():
        good = [run for run in runs if run is not None]
        cells = [_cell(summary(map(attribute(name), good)), digits) for _, name, digits in COLUMNS]
        throughput = summary(run.per_second for run in good)
        rows.append([peer, *cells, f"±{throughput.spread * 50:.0f} %" if throughput else "-"])
    lines = [f"{scenario.name}: {scenario.about}  [operation: {scenario.unit}]", *_aligned(rows)]
    lines += [f"  {peer}: {reason}" for peer, reason in result.absent.items()]
    lines += [f"  failed: {failure}" for failure in result.failures]
    lines += [f"  {line}" for line in (*_ratios(result), *_extras(result))]
    return "\n".join(lines)


def document(results: list[Result], plan: Plan, machine: dict[str, Any], versions: dict[str, str]) -> dict[str, Any]:
    """Everything as JSON: machine, versions, settings, every single run, medians and ratios."""
    return {
        "machine": machine,
        "versions": versions,
        "settings": {
            "procs": plan.procs,
            "apart": plan.apart,
            "duration": plan.duration,
            "repeats": plan.repeats,
            "peers": list(plan.peers),
        },
        "scenarios": [_scenario(result) for result in results],
    }


def write_json(path: Path, members: dict[str, Any]) -> None:
    """Write the document."""
    path.write_text(json.dumps(members, indent=1, ensure_ascii=False) + "\n")


def _scenario(result: Result) -> dict[str, Any]:
    scenario = result.scenario
    return {
        "name": scenario.name,
        "about": scenario.about,
        "unit": scenario.unit,
        "load": asdict(scenario.load),
        "absent": result.absent,
        "failures": result.failures,
        "runs": {peer: [run and run.members() for run in runs] for peer, runs in result.runs.items()},
        "medians": {peer: _medians(runs) for peer, runs in result.runs.items()},
        "ratios": {
            (theirs if ours == OURS else f"{ours} / {theirs}"): {
                name: asdict(value) for name, value in _ratios_of(result, ours, theirs).items()
            }
            for ours, theirs in _pairs(result)
        },
    }


def _medians(runs: list[Run | None]) -> dict[str, float]:
    good = [run for run in runs if run is not None]
    found = {name: summary(map(attribute(name), good)) for name in Run.__dataclass_fields__ if name != "extra"}
    return {name: value.median for name, value in found.items() if value is not None}


def _pairs(result: Result) -> list[tuple[str, str]]:
    """Who is compared with whom: we with all others, and several processes of the bare client with one."""
    pairs = [(OURS, peer) for peer in result.runs if peer not in (OURS, MANY)] if OURS in result.runs else []
    return [*pairs, *([(MANY, ONE)] if {MANY, ONE} <= result.runs.keys() else [])]


def _ratios_of(result: Result, ours: str, theirs: str) -> dict[str, Summary]:
    found = {
        name: ratio(result.runs[ours], result.runs[theirs], attribute(figure))
        for name, figure in (RATIOS if ours == OURS else CLIENT_RATIOS)
    }
    return {name: value for name, value in found.items() if value is not None}


def _ratios(result: Result) -> list[str]:
    lines = []
    for ours, theirs in _pairs(result):
        if ratios := _ratios_of(result, ours, theirs):
            words = (f"{name} {each.median:.2f} ({each.low:.2f} to {each.high:.2f})" for name, each in ratios.items())
            lines.append(f"{ours} / {theirs}: {', '.join(words)}")
    return lines


def _extras(result: Result) -> list[str]:
    lines = []
    for peer, runs in result.runs.items():
        good = [run for run in runs if run is not None]
        names = dict.fromkeys(name for run in good for name in run.extra)
        medians = {name: summary(run.extra.get(name) for run in good) for name in names}
        words = [f"{name} {value.median:,.2f}" for name, value in medians.items() if value is not None]
        if result.scenario.load.kind == "idle" and (busy := summary(run.proxy_cores for run in good)):
            words.append(f"share of a core {busy.median:.2%}, a tenth of that at the default ping interval")
        if result.scenario.load.kind == "sleep":
            words += _asleep(good)
        if words:
            lines.append(f"{peer}: {', '.join(words)}")
    return lines


def _asleep(runs: list[Run]) -> list[str]:
    """Describe the cost of an idle gateway: shares of a core, and commands."""
    shown: tuple[tuple[str, Figure], ...] = (
        ("gateway {:.2%} of a core", lambda run: run.proxy_cores),
        ("Redis {:.2%}", lambda run: run.redis_cores),
        ("{:.0f} commands/s", lambda run: run.commands_per_second),
    )
    return [words.format(value.median) for words, figure in shown if (value := summary(map(figure, runs)))]


def _cell(value: Summary | None, digits: int) -> str:
    return "-" if value is None else f"{value.median:,.{digits}f}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
