"""Scenarios of a client that is refused, or whose connection is closed with each code."""

from __future__ import annotations

import asyncio
from typing import Final

from bullmq_proxy.gateway.conformance.play import FRESH_TOKEN, MOST_TRIES, OLD_TOKEN, Play, key_of, over
from bullmq_proxy.gateway.conformance.process import KEY_FILE
from bullmq_proxy.gateway.conformance.rules import AT_ONCE_CODES, PRODUCER, STOP_CODES, WATCHER, WORKER, Rule
from bullmq_proxy.gateway.conformance.scenarios import Scenario, Script, right, settled, stops

LATER: Final = ((503, 1011, 4508), (500, 4509, 4001), (429, 1012, 4507), (1006, 408, 1013), (4001, 4506, 1012))
"""What happens to each of some clients that come back later, one after the other."""
STOP_STATUSES: Final = (400, 401, 403, 404)
"""The statuses that mean stop and that a client can get which sends a right request line and small headers."""
STOP_REFUSALS: Final = (4501, 4503)
"""Codes of refused handshakes that stand here for all that mean stop: each takes a start of the client."""
REFUSED: Final = 4500
"""The first code of a refused handshake, which is closed as soon as it is accepted."""
RETRY_AFTER: Final = 1
"""Seconds of the header `Retry-After`."""


async def _end(play: Play, ending: int, words: str) -> None:
    """Refuse the next handshake with a status or its code, or accept it and close with another code."""
    opening = await play.handshake()
    if ending < 1000:
        play.refuse(opening, ending, words)
    elif ending >= REFUSED:
        opening.accept()
        opening.socket.close(ending, words)
    else:
        session = play.accept(opening)
        await settled(play)
        session.close(ending, words)


def stop(ending: int) -> Script:
    """Return a script that ends with a status or code that means stop."""

    async def script(play: Play) -> None:
        words = f"The kit says {ending}, stop"
        await _end(play, ending, words)
        await stops(play, ending, words)

    return script


def later(endings: tuple[int, ...]) -> Script:
    """Return a script of statuses and codes that mean later."""

    async def script(play: Play) -> None:
        with play.judging(Rule.LATER):
            for ending in endings:
                await _end(play, ending, f"The kit says {ending}")
            session = await play.opened()
            play.verdicts.pauses.append(play.pauses)
            if play.role == WORKER:
                await right(play, session, session.push({"n": 1}))

    return script


def at_once(code: int) -> Script:
    """Return a script that closes with a code that means at once."""

    async def script(play: Play) -> None:
        with play.judging(Rule.AT_ONCE):
            await _end(play, code, f"The kit says {code}")
            await play.opened()
            if play.pauses[0] > 1:
                over(f"it was back {play.pauses[0]:.1f} s after {code}")

    return script


async def fresh_token(play: Play) -> None:
    """Let a token expire when there is a fresh one."""
    opening = await play.handshake()
    if key_of(opening) != OLD_TOKEN:
        play.verdicts.unused(Rule.FRESH_TOKEN, f"it does without {KEY_FILE}")
        return
    with play.judging(Rule.FRESH_TOKEN):
        session = play.accept(opening)
        await settled(play)
        play.put_token(FRESH_TOKEN)
        session.close(4004, "This token has expired: get a fresh one")
        if key_of(await play.handshake()) != FRESH_TOKEN:
            over("it came back without the fresh token")


async def storm(play: Play) -> None:
    """Close each connection with 1001 at once, for a second."""
    await _end(play, 1001, "The kit says 1001")
    try:
        async with asyncio.timeout(1):
            while play.tries <= MOST_TRIES:
                play.accept(await play.handshake()).close(1001)
    except TimeoutError:
        return


async def retry_after(play: Play) -> None:
    """Refuse with a time to wait."""
    play.refuse(await play.handshake(), 503, "The kit says 503", RETRY_AFTER)
    with play.judging(Rule.RETRY_AFTER):
        await play.opened()
        if play.pauses[0] < RETRY_AFTER * 0.95:
            over(f"it was back after {play.pauses[0]:.2f} s, with Retry-After: {RETRY_AFTER}")


SCENARIOS: Final = (
    *(
        Scenario(f"later-{n}", WORKER, (Rule.LATER, Rule.GROWTH, Rule.JITTER), later(endings), other=WATCHER)
        for n, endings in enumerate(LATER, 1)
    ),
    Scenario("retry-after", WORKER, (Rule.RETRY_AFTER,), retry_after, other=WATCHER),
    Scenario("fresh-token", WORKER, (Rule.FRESH_TOKEN,), fresh_token, has_token=True, other=WATCHER),
    Scenario("storm", WORKER, (Rule.STORM,), storm, other=WATCHER),
    *(Scenario(f"at-once-{code}", WORKER, (Rule.AT_ONCE,), at_once(code), other=WATCHER) for code in AT_ONCE_CODES),
    *(
        Scenario(f"stop-{ending}", WORKER, (Rule.STOP, Rule.WORDS), stop(ending), other=WATCHER)
        for ending in (*STOP_STATUSES, *(code for code in STOP_CODES if code < REFUSED), *STOP_REFUSALS)
    ),
    Scenario("producer-stop", PRODUCER, (Rule.STOP, Rule.WORDS), stop(401), ({"fn": "add", "args": ["kit", {}]},)),
)
