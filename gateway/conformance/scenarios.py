"""The table of scenarios: what is played to a client, in which role, and which rules it is judged by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Final

from bullmq_proxy.gateway.conformance.play import Missing, Play, over
from bullmq_proxy.gateway.conformance.rules import Rule
from bullmq_proxy.gateway.conformance.session import Job, Session

Script = Callable[[Play], Awaitable[None]]

START: Final = 0.4
"""Seconds for a client to start with a job, if it does not say so."""
SETTLED: Final = 0.03
"""Seconds for a client to note that its connection is open."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something that happens to a client.

    Attributes:
        name: for people.
        role: of the client, where that is wanted.
        rules: those that it is for, beside those of every scenario.
        script: plays it.
        calls: what a producer has to call.
        has_token: there is a token in a file, beside the key.
        other: a role that it is played in where its own is not wanted.
    """

    name: str
    role: str
    rules: tuple[Rule, ...]
    script: Script
    calls: tuple[dict[str, Any], ...] = ()
    has_token: bool = False
    other: str | None = None

    def played(self, roles: Collection[str]) -> Scenario | None:
        """Return it as it is played to a client of these roles; None if it is for others."""
        if self.role in roles:
            return self
        return replace(self, role=self.other) if self.other is not None and self.other in roles else None

    @property
    def input(self) -> str:
        """What a producer reads."""
        return "".join(f"{json.dumps(call)}\n" for call in self.calls)


async def warm(play: Play, rule: Rule) -> Session:
    """Accept the client's first handshake, and have a job done: some languages take their time for that."""
    session = await play.opened()
    with play.judging(rule):
        await right(play, session, session.push({"n": 0}))
    return session


async def started(play: Play, job: Job) -> None:
    """Wait until a client has started with a job: it says so, or has had the time."""
    try:
        await play.until(lambda: job.was_acked, "", START)
    except Missing:
        return


async def settled(play: Play) -> None:
    """Give a client the time to note that its connection is open."""
    await asyncio.sleep(SETTLED)


async def right(play: Play, session: Session, job: Job) -> None:
    """Wait for a job's result, which is its data.

    Raises:
        Missing: it did not come, or is another one.
    """
    answer = await play.answered(session, job)
    if "result" not in answer or answer["result"] != job.payload:
        raise Missing(f"the job {job.shown} with {short(job.payload)} was answered with {short(answer)}")


async def stops(play: Play, ending: int, words: str) -> None:
    """Judge what a client does after a status or code that means stop."""
    tries = play.tries
    with play.judging(Rule.STOP):
        await play.until(
            lambda: play.client.ended.is_set() or play.tries > tries, f"after {ending} it neither ended nor connected"
        )
        if play.tries > tries:
            over(f"it connected again after {ending}")
        if play.client.exit_code == 0:
            over(f"it ended with exit code 0 after {ending}")
    play.verdicts.judge(Rule.WORDS, words in play.client.output, f"after {ending} it did not print {words!r}")


def short(value: Any) -> str:
    """Return a value for people."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 200 else f"{text[:200]}…"
