"""The command `bullmq-proxy check-client`: what it is asked for, and what it prints."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Sequence

from bullmq_proxy.gateway.conformance.check import CannotStart, check, chosen
from bullmq_proxy.gateway.conformance.process import kill_all
from bullmq_proxy.gateway.conformance.rules import ROLES, Rule

__all__ = ["CannotStart", "UnknownRule", "run"]


class UnknownRule(Exception):
    """There is no rule of this id; the message names the nearest."""


def run(
    command: Sequence[str], roles: Sequence[str], ids: Sequence[str], as_json: bool, timeout: float
) -> tuple[str, bool]:
    """Judge a client; return what to print, and whether it keeps all rules.

    Args:
        command: the program and its arguments.
        roles: those to judge; none for all.
        ids: of the rules to judge; none for all.
        timeout: seconds for each step of the client.
        as_json: print JSON instead of lines.

    Raises:
        UnknownRule: there is no such rule.
        CannotStart: the client never connects.
    """
    rules = [_rule(id) for id in ids]
    try:
        verdicts = asyncio.run(check(command, chosen(roles or ROLES, rules), rules, timeout))
    finally:
        kill_all()
    if as_json:
        return json.dumps(verdicts.as_json(), ensure_ascii=False, indent=2), verdicts.is_good
    return "\n".join(verdicts.lines()), verdicts.is_good


def _rule(id: str) -> Rule:
    known = {rule.value: rule for rule in Rule}
    try:
        return known[id]
    except KeyError:
        near = difflib.get_close_matches(id, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise UnknownRule(f"there is no rule {id}; {hint}") from None
