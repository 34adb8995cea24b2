"""Play all scenarios to a client, several at a time, and judge it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence
from typing import Final

from bullmq_proxy.gateway.conformance import calling, refusing, watching, working
from bullmq_proxy.gateway.conformance.play import TIMEOUT, Missing, Over, Play
from bullmq_proxy.gateway.conformance.rules import Rule
from bullmq_proxy.gateway.conformance.scenarios import Scenario
from bullmq_proxy.gateway.conformance.verdicts import Verdicts

SCENARIOS: Final = (*refusing.SCENARIOS, *watching.SCENARIOS, *working.SCENARIOS, *calling.SCENARIOS)
"""All of them; those that take longest come first."""

AT_A_TIME: Final = 5
"""Scenarios for each core: most of their time is waiting."""


class CannotStart(Exception):
    """The client cannot be judged at all; the message says why."""


async def check(
    command: Sequence[str], scenarios: Sequence[Scenario], wanted: Collection[Rule] = (), timeout: float = TIMEOUT
) -> Verdicts:
    """Judge a client.

    Args:
        command: the program and its arguments.
        scenarios: those to play.
        wanted: the rules to judge; none for all of these scenarios.
        timeout: seconds for each step of the client; twice as long for one that has to connect.

    Raises:
        CannotStart: there is no such program, or it never connects.
    """
    verdicts = Verdicts(rule for rule in rules_of(scenarios) if rule in wanted or not wanted)
    places = asyncio.Semaphore(AT_A_TIME * (os.cpu_count() or 1))
    try:
        async with asyncio.TaskGroup() as tasks:
            for scenario in scenarios:
                tasks.create_task(_play(command, scenario, verdicts, places, timeout))
    except* CannotStart as group:
        raise group.exceptions[0] from None
    verdicts.judge_pauses()
    return verdicts


def chosen(roles: Collection[str], wanted: Collection[Rule]) -> list[Scenario]:
    """Return the scenarios of these roles that judge one of the rules that are wanted; without any, all."""
    ours = [played for scenario in SCENARIOS if (played := scenario.played(roles))]
    return [each for each in ours if not wanted or not set(each.rules).isdisjoint(wanted)]


def rules_of(scenarios: Collection[Scenario]) -> list[Rule]:
    """Return the rules that scenarios judge, in the order of the table."""
    judged = {rule for scenario in scenarios for rule in scenario.rules}
    return [rule for rule in Rule if rule in judged]


async def _play(
    command: Sequence[str], scenario: Scenario, verdicts: Verdicts, places: asyncio.Semaphore, timeout: float
) -> None:
    """Play a scenario; raises CannotStart if the client does not come at all, and has come to no other one."""
    async with places:
        try:
            async with Play(command, scenario.role, scenario.input, verdicts, timeout, scenario.has_token) as play:
                await scenario.script(play)
        except OSError as error:
            raise CannotStart(f"{command[0]} cannot be started: {error.strerror or error}") from error
        except Over:
            return
        except Missing as missing:  # before the first rule
            if scenario.role not in verdicts.came:
                raise CannotStart(f"as a {scenario.role} {missing}") from missing
            for rule in scenario.rules:
                verdicts.broken(rule, f"in the scenario {scenario.name}: {missing}")
