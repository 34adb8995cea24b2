"""Scenarios of a producer: late replies, out of order and in pieces, errors, connections that break before them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from functools import partial
from typing import Any, Final

from bullmq_proxy.gateway.conformance.play import Missing, Play, over
from bullmq_proxy.gateway.conformance.rules import PRODUCER, Rule
from bullmq_proxy.gateway.conformance.scenarios import Scenario
from bullmq_proxy.gateway.conformance.session import Call, Session

LATE: Final = 0.15
"""Seconds until a call is answered."""

CALLS: Final = (
    {"fn": "add", "args": ["kit", {"text": 'é ☃ 😀 \u2028 "'}, {"jobId": "kit-1"}]},
    {"fn": "getJob", "args": ["nobody"]},
    {"fn": "add", "args": ["kit", {"n": 2}, {"jobId": "kit-2"}]},
    {"fn": "count"},
)
WRITES: Final = (
    {"fn": "add", "args": ["kit", {"n": 1}, {"jobId": "kit-1"}]},
    {"fn": "addJobLog", "args": ["7", "a row"]},
    {"fn": "add", "args": ["kit", {"n": 2}, {"jobId": "kit-2"}]},
)
BREAKING: Final = frozenset({"kit-1", "addJobLog"})
"""The calls whose connection breaks when they come for the first time."""


def _reply(call: Call) -> dict[str, Any]:
    """Return the reply to a call."""
    if call.fn == "add":
        return {"ok": {"id": call.job_id, "name": "kit", "data": {}, "opts": {}, "kit": "é ☃"}, "kit": 1}
    if call.fn == "getJob":
        return {"err": {"message": "The kit has no such job", "code": "NOT_FOUND", "kit": 1}}
    return {"ok": 7}


def _line(play: Play, number: int) -> dict[str, Any]:
    """Return what a client has printed for a call.

    Raises:
        Missing: it is no JSON object.
    """
    text = play.client.lines[number]
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        raise Missing(f"for call {number + 1} it printed {text[:200]!r}, which is no JSON object")
    return line


def _check_added(play: Play, number: int, job_id: str) -> None:
    line = _line(play, number)
    job = line.get("ok")
    if not isinstance(job, dict) or job.get("id") != job_id:
        over(f"for call {number + 1}, add with the jobId {job_id}, it printed {line}")


def _check_error(play: Play, number: int, code: str) -> None:
    line = _line(play, number)
    err = line.get("err")
    if not isinstance(err, dict) or err.get("code") != code:
        over(f"for call {number + 1}, whose error is {code}, it printed {line}")


async def replies(play: Play) -> None:
    """Answer late, what came last first, with replies to nobody before."""
    session = await play.opened()
    with play.judging(Rule.REPLY):
        answered = 0
        while answered < len(CALLS):
            await play.until(partial(_has_more, session, answered), f"call {answered + 1} was not made")
            await asyncio.sleep(LATE)
            session.send({"id": "kit-nobody", "data": {"ok": "of nobody"}})
            session.send({"id": 900, "data": {"type": "kit-news"}})
            new = session.calls[answered:]
            answered += len(new)
            for call in reversed(new):
                session.send({"id": call.id, "data": _reply(call)}, pieces=3)
        await play.until(lambda: len(play.client.lines) >= len(CALLS), f"it did not print {len(CALLS)} lines")
        if len(session.calls) > len(CALLS):
            over(f"it made {len(session.calls)} calls, not {len(CALLS)}")
        if [call.args for call in session.calls[:3:2]] != [call["args"] for call in CALLS[:3:2]]:
            over(f"it called {session.calls[0]}")
        _check_added(play, 0, "kit-1")
        _check_added(play, 2, "kit-2")
    with play.judging(Rule.ERROR):
        _check_error(play, 1, "NOT_FOUND")
    with play.judging(Rule.END):
        if (code := await play.ends("it did not end")) != 0:
            over(f"it ended with exit code {code}")


async def broken_calls(play: Play) -> None:
    """Break the connection when an add first comes, and another call that writes; answer what comes then."""
    made: Counter[str] = Counter()
    session, taken = await play.opened(), 0
    with play.judging(Rule.REPEAT):
        while len(play.client.lines) < len(WRITES):
            await play.until(
                partial(_goes_on, play, session, taken),
                f"after {made.total()} calls it made none and printed no line",
            )
            calls, taken = session.calls[taken:], len(session.calls)
            is_new = any(not made[_name(call)] and _name(call) in BREAKING for call in calls)
            made.update(map(_name, calls))
            if is_new:
                session.close(1006)
                session, taken = await play.opened(), 0
            else:
                for call in calls:
                    session.reply(call, {"ok": {"id": call.job_id, "name": "kit", "duplicate": True}})
        _check_added(play, 0, "kit-1")
        _check_added(play, 2, "kit-2")
    with play.judging(Rule.NO_REPEAT):
        if made["addJobLog"] > 1:
            over("it made addJobLog again")
        _check_error(play, 1, "OUTCOME_UNKNOWN")


def _has_more(session: Session, calls: int) -> bool:
    return len(session.calls) > calls


def _goes_on(play: Play, session: Session, calls: int) -> bool:
    return _has_more(session, calls) or len(play.client.lines) >= len(WRITES)


def _name(call: Call) -> str:
    return str(call.job_id) if call.fn == "add" else call.fn


SCENARIOS: Final = (
    Scenario(
        "replies",
        PRODUCER,
        (Rule.PATH, Rule.KEY, Rule.SECRET, Rule.FRAMES, Rule.REPLY, Rule.ERROR, Rule.END),
        replies,
        CALLS,
    ),
    Scenario("broken-calls", PRODUCER, (Rule.REPEAT, Rule.NO_REPEAT), broken_calls, WRITES),
)
