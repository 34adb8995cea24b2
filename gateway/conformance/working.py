"""Scenarios of a worker whose gateway stays, drains, takes jobs away, or breaks the connection."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from bullmq_proxy.gateway.conformance.play import Play, over
from bullmq_proxy.gateway.conformance.rules import WORKER, Rule
from bullmq_proxy.gateway.conformance.scenarios import Scenario, right, settled, started, warm
from bullmq_proxy.gateway.conformance.session import LONG, Job, Session

WORK: Final = 700
"""Milliseconds of work on a job meanwhile something happens: more than most clients need to start, or to come back."""
MOST_PINGS, PING_PAUSE = 8, 0.06  # s
LARGE: Final = 2 * 1024 * 1024
"""Bytes of a large job's data."""
TEXT: Final = "é ☃ 😀 \u2028 \u0000 \" \\ ' </script> %s ${x}"
NUMBERS: Final = [0, -1, 1.5, 1e-7, 9007199254740991]


async def first(play: Play) -> None:
    """Push a job in one piece with the answer to the handshake."""
    opening = await play.handshake()
    with play.judging(Rule.FIRST):
        session = play.accept(opening, first=lambda session: session.job({"n": 1})[1])
        await right(play, session, session.last)


async def unknown(play: Play) -> None:
    """Send what no client knows."""
    session = await play.opened()
    with play.judging(Rule.UNKNOWN):
        session.send({"id": 900, "data": {"type": "kit-news", "jobId": "1", "more": [1]}})
        session.send({"id": 901, "data": {"event": "kit", "args": ["0-1"]}})
        session.send({"id": 902, "data": {"ok": "nobody has asked"}})
        session.send({"id": 903, "data": {}, "kit": None})
        job, message = session.job({"n": 1})
        message = {"kit": [], "data": {"kit": {"id": 7}, **message["data"]}, "id": message["id"]}
        message["data"]["job"] |= {"kit": "news", "progress": {"kit": 1}}
        session.send(message)
        await right(play, session, job)


async def texts(play: Play) -> None:
    """Push texts and numbers of all kinds, and an id that is a text."""
    session = await play.opened()
    with play.judging(Rule.TEXT):
        await right(play, session, session.push({"text": TEXT, TEXT: [None, True, *NUMBERS]}))
    with play.judging(Rule.ANSWER):
        await right(play, session, session.push({"n": 2}, number="kit-7"))


async def pieces(play: Play) -> None:
    """Send messages in fragments, and a large one."""
    session = await play.opened()
    with play.judging(Rule.FRAGMENTS):
        await right(play, session, session.push({"text": TEXT}, pieces=9, ping=b"kit"))
    with play.judging(Rule.LARGE):
        await right(play, session, session.push({"text": "x" * LARGE}))


async def pings(play: Play) -> None:
    """Ping a client that works."""
    session = await warm(play, Rule.PINGS)
    with play.judging(Rule.PINGS):
        job = session.push({"wait": WORK})
        await started(play, job)
        for _ in range(MOST_PINGS):
            if not job.answers:
                session.socket.ping(b"kit!")
                await asyncio.sleep(PING_PAUSE)
        await right(play, session, job)
        if not job.pongs:
            over(f"it answered no ping while it worked for {WORK} ms")
        await right(play, session, session.push({"n": 2}))


async def failure(play: Play) -> None:
    """Push a job whose work fails."""
    session = await play.opened()
    with play.judging(Rule.FAILURE):
        reason = "the kit wants it é"
        answer = await play.answered(session, session.push({"fail": reason}))
        told = answer.get("err") or answer.get("message") or ""
        if "result" in answer or reason not in json.dumps(told, ensure_ascii=False):
            over(f"a job that fails was answered with {answer}")
        await right(play, session, session.push({"n": 2}))


async def lost(play: Play) -> None:
    """Lose an answer, and object to a message."""
    session = await play.opened()
    with play.judging(Rule.LOST):
        session.acknowledges = "lost"
        job = session.push({"n": 1})
        await right(play, session, job)
        session.tell(job, {"err": {"message": "The kit knows no such job", "code": "NOT_FOUND"}})
        session.acknowledges = "finished"
        await right(play, session, session.push({"n": 2}))


async def cancel(play: Play) -> None:
    """Take a job away while the client works on it."""
    session = await warm(play, Rule.CANCEL)
    with play.judging(Rule.CANCEL):
        job = session.push({"wait": WORK})
        await started(play, job)
        session.cancel(job)
        await right(play, session, session.push({"wait": WORK + LONG}))


async def drain(play: Play) -> None:
    """Stop, and be there again."""
    session = await warm(play, Rule.DRAIN)
    with play.judging(Rule.DRAIN):
        job = session.push({"wait": 200})
        session.send({"id": 900, "data": {"type": "drain", "deadline": 5000}})
        await right(play, session, job)
        await settled(play)
        session.close(1001)
        session = await play.opened()
        await right(play, session, session.push({"n": 2}))


async def gone(play: Play) -> None:
    """Break the connection; when the client comes back, its job is not its own any more, and comes again."""
    clock = asyncio.get_running_loop().time
    session = await warm(play, Rule.AGAIN)
    await started(play, session.push({"wait": WORK}))
    done_at = clock() + WORK / 1000
    session.close(1006)
    session = await play.opened()
    with play.judging(Rule.AGAIN):
        await right(play, session, session.push({"wait": WORK}))
    with play.judging(Rule.OLD):  # until the work of the first one must have ended
        await right(play, session, session.push({"wait": max(LONG, round(1000 * (done_at - clock())) + LONG)}))


async def broken(play: Play) -> None:
    """Break the connection; when the client comes back, its job is still its own, and so is one that it never saw."""
    session = await play.opened()
    if not session.has_grace:
        play.verdicts.unused(Rule.TAKE_UP, "it does without `grace`")
        play.verdicts.unused(Rule.RELEASE, "it does without `grace`")
        return
    with play.judging(Rule.TAKE_UP):
        await right(play, session, session.push({"n": 0}))
    job = session.push({"wait": WORK})
    await started(play, job)
    session.close(1006)
    with play.judging(Rule.TAKE_UP):
        stranger, _ = session.job({"n": 2})
        session = await _back(play, session, job, stranger)
        await right(play, session, job)
    with play.judging(Rule.RELEASE):
        answer = await play.answered(session, stranger)
        if answer.get("type") != "release":
            over(f"it answered a job that it has never seen with {answer}")
        await right(play, session, session.push({"n": 3}))


async def unconfirmed(play: Play) -> None:
    """Break the connection before a result is confirmed."""
    session = await play.opened()
    if not session.has_grace or not session.confirms:
        play.verdicts.unused(Rule.HAND_IN, "it does without `grace` or `confirm`")
        return
    session.acknowledges = None
    job = session.push({"n": 1})
    with play.judging(Rule.HAND_IN):
        await right(play, session, job)
        session.close(1006)
        session = await _back(play, session, job)
        await play.until(lambda: len(job.answers) > 1, "the result was not handed in again")
        if job.answers[1] != job.answers[0]:
            over(f"the result {job.answers[0]} was handed in again as {job.answers[1]}")
        await right(play, session, session.push({"n": 2}))


async def _back(play: Play, before: Session, *jobs: Job) -> Session:
    """Wait until the client comes back and shows who it is; its `welcome` lists jobs."""
    session = await play.opened(jobs)
    shown = session.options.get("consumer")
    if shown != before.secret:
        over(f"it came back with {f'the consumer {shown}' if shown else 'no consumer'}, not with {before.secret}")
    return session


async def finish(play: Play) -> None:
    """Send SIGTERM to a client that works."""
    session = await warm(play, Rule.FINISH)
    with play.judging(Rule.FINISH):
        job = session.push({"wait": WORK})
        await started(play, job)
        play.client.terminate()
        await right(play, session, job)
        await play.ends("it did not end")


SCENARIOS: Final = (
    Scenario("first", WORKER, (Rule.PATH, Rule.KEY, Rule.SECRET, Rule.FRAMES, Rule.FIRST), first),
    Scenario("unknown", WORKER, (Rule.UNKNOWN,), unknown),
    Scenario("texts", WORKER, (Rule.TEXT, Rule.ANSWER), texts),
    Scenario("pieces", WORKER, (Rule.FRAGMENTS, Rule.LARGE), pieces),
    Scenario("pings", WORKER, (Rule.PINGS, Rule.ACK), pings),
    Scenario("failure", WORKER, (Rule.FAILURE,), failure),
    Scenario("lost", WORKER, (Rule.LOST,), lost),
    Scenario("cancel", WORKER, (Rule.CANCEL,), cancel),
    Scenario("drain", WORKER, (Rule.DRAIN,), drain),
    Scenario("gone", WORKER, (Rule.AGAIN, Rule.OLD), gone),
    Scenario("broken", WORKER, (Rule.TAKE_UP, Rule.RELEASE), broken),
    Scenario("unconfirmed", WORKER, (Rule.HAND_IN,), unconfirmed),
    Scenario("finish", WORKER, (Rule.FINISH,), finish),
)
