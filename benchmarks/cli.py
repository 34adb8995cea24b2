"""The command line: `run` and `list`. Results go to stdout, progress to stderr."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import silence
from benchmarks.lab.processes import LabError
from benchmarks.machine import machine, versions
from benchmarks.report import document, table, write_json
from benchmarks.runner import Plan, run_plan
from benchmarks.scenarios import ALL, KIN, SCENARIOS, Scenario, chosen
from benchmarks.svg import write_charts
from bullmq_proxy.supervisor.slots import StartError

_FILES = 65_536


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Measure the gateway against its peers."""


@commands.command("list")
def show() -> None:
    """List the scenarios; * marks those that `run` takes when none is named."""
    width = max(len(scenario.name) for scenario in SCENARIOS)
    for scenario in SCENARIOS:
        click.echo(f"{'*' if scenario.default else ' '} {scenario.name:<{width}}  {scenario.about}")


@commands.command("silence")
@click.argument("names", nargs=-1, metavar="[FUNCTION]...")
@click.option("--jobs", default=100_000, type=click.IntRange(100), show_default=True, help="In each state.")
def show_silences(names: tuple[str, ...], jobs: int) -> None:
    """Show how long each function keeps Redis from answering others."""
    found = asyncio.run(silence.run(jobs, names, lambda line: click.echo(line, err=True)))
    click.echo(silence.table(found))


@commands.command()
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option(
    "--peers",
    default=",".join(ALL),
    show_default=True,
    help="Who takes part; one-shard and raw-procs show what several processes cost.",
)
@click.option("--procs", default=1, type=click.IntRange(1, 64), show_default=True, help="Shards of the gateway.")
@click.option(
    "--apart", is_flag=True, help="Valkey and the load client on the last core, what is measured on the others."
)
@click.option(
    "--duration",
    default=1.5,
    type=click.FloatRange(0.05, 600),
    show_default=True,
    help="Measured seconds of each run.",
)
@click.option("--repeats", default=5, type=click.IntRange(1, 100), show_default=True, help="Runs of each peer.")
@click.option(
    "--connections",
    type=click.IntRange(1, 15_000),
    help="Instead of the scenario's own number (of watchers in `events`, of queues in `sleep`).",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every run there.")
@click.option("--svg", "svg_dir", type=click.Path(file_okay=False, path_type=Path), help="Write charts there.")
def run(
    names: tuple[str, ...],
    peers: str,
    procs: int,
    apart: bool,
    duration: float,
    repeats: int,
    connections: int | None,
    json_file: Path | None,
    svg_dir: Path | None,
) -> None:
    """Run scenarios, by name or by group (`add`, `process`, …, `all`); without any, a representative few."""
    plan = Plan(
        scenarios=_scenarios(names, connections),
        peers=_peers(peers),
        procs=procs,
        apart=apart,
        duration=duration,
        repeats=repeats,
    )
    before = machine()
    results, valkey = run_plan(plan, lambda line: click.echo(line, err=True))
    made_with = versions(valkey)
    click.echo("\n\n".join(table(result) for result in results))
    settings: dict[str, Any] = {"procs": procs, "apart": apart, "duration": duration, "repeats": repeats}
    click.echo("\n".join(["", _facts(before), _facts(made_with), _facts(settings)]))
    if json_file is not None:
        write_json(json_file, document(results, plan, before, made_with))
    if svg_dir is not None:
        write_charts(results, svg_dir)


def _scenarios(names: tuple[str, ...], connections: int | None) -> list[Scenario]:
    try:
        scenarios = chosen(names)
    except KeyError as name:
        raise click.UsageError(f"no scenario {name}; `list` shows them all") from None
    return [each.with_connections(connections) for each in scenarios] if connections else scenarios


def _peers(text: str) -> tuple[str, ...]:
    peers = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    known = (*ALL, *KIN)
    unknown = [name for name in peers if name not in known]
    if unknown or not peers:
        raise click.UsageError(f"unknown peer {', '.join(unknown) or text!r}; there are {', '.join(known)}")
    return peers


def _facts(members: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in members.items())


def _allow_many_files() -> None:
    """For all that we start: 10,000 connections are as many files, and the usual limit is 1,024."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, wanted), most))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _allow_many_files()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what was started then, too
    try:
        commands.main(arguments, prog_name="benchmarks", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (LabError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    return 0
