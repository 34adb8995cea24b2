"""`status` and `top`: the shards of a gateway that runs somewhere, from its page of metrics."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import click

from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.supervisor.daily import Gateway, age, of_gateway, show

_PREFIX: Final = "bullmq_proxy_"
_LINE: Final = re.compile(rf'{_PREFIX}(?P<name>\w+)\{{slot="(?P<slot>\d+)"[^}}]*\}} (?P<value>\S+)')
# Column of the table, and the metric behind it; several lines of one metric are added up.
_NOW: Final = (("connections", "connections"), ("jobs held", "jobs_held"))
_RATES: Final = (
    ("calls", "calls_total"),
    ("errors", "call_errors_total"),
    ("pushed", "jobs_pushed_total"),
    ("answered", "jobs_answered_total"),
    ("events", "events_delivered_total"),
)

Figures = Mapping[str, float]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@of_gateway
def status(gateway: Gateway, as_json: bool) -> int:
    """Show whether a gateway is ready, and what each of its slots has done since the service started."""
    ready, why = _readiness(gateway)
    shards, version = _shards(gateway), gateway.page("/health")["version"]
    if as_json:
        found = {"ready": ready, "version": version, "shards": shards}
        click.echo(json.dumps(found if ready else {**found, "reason": why}, indent=2))
    else:
        click.echo(f"{version}, {'ready' if ready else f'not ready: {why}'}")
        show(_table(shards, shards, None))
    return Exit.DONE if ready else Exit.FAILED


@click.command()
@click.option("--every", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds between two.")
@click.option("--rounds", type=click.IntRange(1), help="End after so many.")
@of_gateway
def top(gateway: Gateway, every: float, rounds: int | None) -> int:
    """Show what each shard does now, a second, again and again until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        before, then = _shards(gateway), time.monotonic()
        while rounds is None or rounds > 0:
            time.sleep(every)
            shards, now = _shards(gateway), time.monotonic()
            click.clear()
            show(_table(shards, before, now - then))
            before, then = shards, now
            rounds = None if rounds is None else rounds - 1
    return Exit.DONE


def _readiness(gateway: Gateway) -> tuple[bool, str]:
    page = gateway.page("/ready")
    return page.get("status") == "ready", str(page.get("err", {}).get("message", ""))


def _shards(gateway: Gateway) -> dict[str, dict[str, float]]:
    """Return the figures of each shard, by slot and name."""
    shards: dict[str, dict[str, float]] = {}
    for found in _LINE.finditer(gateway.text("/metrics")):
        figures = shards.setdefault(found["slot"], {})
        figures[found["name"]] = figures.get(found["name"], 0.0) + float(found["value"])
    return {slot: figures for slot, figures in shards.items() if "start_time_seconds" in figures}  # those that live


def _table(
    shards: Mapping[str, Figures], before: Mapping[str, Figures], seconds: float | None
) -> Sequence[tuple[str, ...]]:
    """Return rows of what shards have done since `before`, by the second; in all, where no time is given."""
    rows = [("shard", "up", *(head for head, _ in (*_NOW, *_RATES)), "lag", "redis")]
    for slot, figures in sorted(shards.items(), key=lambda item: int(item[0])):
        since = age((time.time() - figures.get("start_time_seconds", 0.0)) * 1000)
        now = (f"{figures.get(name, 0):.0f}" for _, name in _NOW)
        lag = f"{figures.get('event_loop_lag_seconds', 0) * 1000:.0f} ms"
        redis = "up" if figures.get("redis_up") else "down"
        rows.append((slot, since, *now, *_rates(figures, before.get(slot, {}), seconds), lag, redis))
    return rows


def _rates(figures: Figures, before: Figures, seconds: float | None) -> Sequence[str]:
    if seconds is None:
        return [f"{figures.get(name, 0):.0f}" for _, name in _RATES]
    # A service that was started again counts from 0.
    return [f"{max(0.0, figures.get(name, 0) - before.get(name, 0)) / seconds:.0f}/s" for _, name in _RATES]
