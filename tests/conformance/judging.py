"""Whether a client keeps the rules, on a machine that may be busy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from bullmq_proxy.gateway.conformance.check import SCENARIOS, check, chosen
from bullmq_proxy.gateway.conformance.rules import ROLES
from bullmq_proxy.gateway.conformance.scenarios import Scenario
from bullmq_proxy.gateway.conformance.verdicts import OK, UNUSED

SEVERAL: Final = {
    *("at-once-4002", "at-once-4003", "at-once-4004", "later-4", "later-5"),
    *(f"stop-{code}" for code in (400, 403, 404, 1002, 1003, 1007, 1008, 1009)),
}
FEWER: Final = [scenario for scenario in SCENARIOS if scenario.name not in SEVERAL]
"""Those that differ: the others are played to the Python client, which starts at once."""


async def broken_rules(command: Sequence[str], scenarios: Collection[Scenario] = SCENARIOS) -> list[str]:
    """Return what the kit says of the rules that a client does not keep; it looks at those twice.

    Other tests take the machine away for hundreds of milliseconds, and then a client seems to be late.
    """
    verdicts = await check(command, list(scenarios))
    wrong = [rule for rule in verdicts.rules if verdicts.status(rule) not in (OK, UNUSED)]
    if not wrong:
        return []
    again = await check(command, chosen(ROLES, wrong), wrong)
    return [
        line for rule, line in zip(again.rules, again.lines(), strict=True) if again.status(rule) not in (OK, UNUSED)
    ]
