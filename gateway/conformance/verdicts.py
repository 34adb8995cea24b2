"""The verdict on each rule, from all scenarios, and the lines that tell it."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean, median
from typing import Any, Final

from bullmq_proxy.gateway.conformance.rules import Rule

LEAST_PAUSE: Final = 0.05
"""Seconds that a pause has."""
LEAST_GROWTH: Final = 1.1
"""What the third pauses of the clients are to the first ones, at least: 4 where each is twice the one before, and
less on a busy machine, where the first one also has what a client does for the first time."""
LEAST_SPREAD: Final = 0.06
"""What the pauses of several clients differ by, at least, as a part of themselves."""
LEAST_CLIENTS: Final = 3
"""Clients whose pauses can be compared."""

OK, FAILED, UNUSED, OPEN = "ok", "failed", "not used", "not seen"


class Verdicts:
    """The verdict on each rule.

    Attributes:
        rules: those that are judged.
        came: the roles of clients that have connected.
        pauses: of the clients that had to wait before they came back, one list for each.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Judge these rules; what is said of others is not heard."""
        self.rules = list(rules)
        self.came: set[str] = set()
        self.pauses: list[list[float]] = []
        self._kept: set[Rule] = set()
        self._broken: dict[Rule, list[str]] = {}
        self._unused: dict[Rule, str] = {}

    def kept(self, rule: Rule) -> None:
        """Note that a client has kept a rule."""
        self._kept.add(rule)

    def broken(self, rule: Rule, seen: str) -> None:
        """Note what a client did against a rule."""
        self._broken.setdefault(rule, []).append(seen)

    def unused(self, rule: Rule, why: str) -> None:
        """Note that a rule is about something that the client does not use."""
        self._unused[rule] = why

    def judge(self, rule: Rule, is_kept: bool, seen: str) -> None:
        """Note that a rule was kept, or what was seen instead."""
        if is_kept:
            self.kept(rule)
        else:
            self.broken(rule, seen)

    def judge_pauses(self) -> None:
        """Judge what shows only in the pauses of several clients."""
        rows = [row for row in self.pauses if len(row) >= 3]
        if len(rows) < LEAST_CLIENTS:
            return
        columns = list(zip(*rows, strict=False))
        shortest = min(min(row) for row in rows)  # a busy machine makes pauses longer, and never shorter
        self.judge(Rule.LATER, shortest >= LEAST_PAUSE, f"it was back after {_shown([shortest])}")
        grown = mean(columns[2]) >= LEAST_GROWTH * mean(columns[0])
        self.judge(Rule.GROWTH, grown, f"first pauses of {_shown(columns[0])}, third ones of {_shown(columns[2])}")
        # One that the machine has kept waiting does not count.
        spreads = [(sorted(column)[-2] - min(column)) / median(column) for column in columns[1:3] if median(column) > 0]
        seen = f"second pauses of {_shown(columns[1])}, third ones of {_shown(columns[2])}"
        self.judge(Rule.JITTER, any(spread >= LEAST_SPREAD for spread in spreads), seen)

    def status(self, rule: Rule) -> str:
        """Return what became of a rule."""
        if rule in self._broken:
            return FAILED
        if rule in self._kept:
            return OK
        return UNUSED if rule in self._unused else OPEN

    @property
    def is_good(self) -> bool:
        """Whether every rule was kept, or is about something that the client does not use."""
        return all(self.status(rule) in (OK, UNUSED) for rule in self.rules)

    def lines(self) -> list[str]:
        """Return one line for each rule."""
        lines = []
        for rule in self.rules:
            line = f"{self.status(rule):<8}  {rule.value:<12}"
            if rule in self._broken:
                first, *more = dict.fromkeys(self._broken[rule])
                others = f" (and {len(more)} more)" if more else ""
                lines.append(f"{line}  {first}{others}; right: {rule.right} (docs/{rule.where})")
            else:
                lines.append(f"{line}  {self._unused.get(rule, rule.right) if rule not in self._kept else rule.right}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return all of it for programs."""
        return {
            "ok": self.is_good,
            "rules": [
                {
                    "id": rule.value,
                    "status": self.status(rule),
                    "seen": list(dict.fromkeys(self._broken.get(rule, ()))),
                    "right": rule.right,
                    "where": f"docs/{rule.where}",
                }
                for rule in self.rules
            ],
        }


def _shown(seconds: Iterable[float]) -> str:
    return ", ".join(f"{each * 1000:.0f}" for each in seconds) + " ms"
