"""Scenarios of a watcher: events in all forms, gaps, and connections that break between them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from bullmq_proxy.gateway.conformance.play import Missing, Play, over
from bullmq_proxy.gateway.conformance.rules import WATCHER, Rule
from bullmq_proxy.gateway.conformance.scenarios import Scenario, short, stops
from bullmq_proxy.gateway.conformance.session import Session
from bullmq_proxy.gateway.conformance.working import LARGE, NUMBERS, TEXT

IDS: Final = tuple(f"1700000000000-{n}" for n in (8, 9, 10, 11, 100, 101))
"""Ids of events, whose order is not that of their texts."""
LATER_ID: Final = "1700000009000-0"
"""The id of the oldest event that is left after a gap."""
UNKNOWN: Final = "kit-"
"""Prefix of events that no client knows; it may hand them on or not."""

Event = Mapping[str, Any]


class Watched:
    """Events that a watcher was sent, beside those that it has printed."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self.sent: list[Event] = []

    def next(self, name: str, *args: Any) -> Event:
        """Return the data of a message with an event."""
        self.sent.append({"event": name, "args": list(args)})
        return self.sent[-1]

    def send(self, session: Session, name: str, *args: Any, pieces: int = 1, ping: bytes | None = None) -> None:
        """Send an event."""
        session.send(session.numbered(self.next(name, *args)), pieces, ping)

    @property
    def printed(self) -> list[Event]:
        """Return the events that the client has printed, without unknown ones, and without gaps that are told again.

        Raises:
            Missing: a line is no event.
        """
        events: list[Event] = []
        for line in self._play.client.lines:
            event = _event(line)
            if not event["event"].startswith(UNKNOWN) and not (event["event"] == "gap" and event in events):
                events.append(event)
        return events

    async def came(self) -> None:
        """Wait until all that was sent is printed.

        Raises:
            Missing: something is not, or is not what it was.
        """

        def missing() -> Event | None:
            printed = self.printed
            return next((event for event in self.sent if event not in printed), None)

        try:
            await self._play.until(lambda: missing() is None, "")
        except Missing as error:
            raise Missing(f"the event {short(missing())} was not printed{error}") from None

    def check(self) -> None:
        """Look whether what was printed is what was sent, in its order.

        Raises:
            Missing: it is not.
        """
        printed = self.printed
        wrong = [pair for pair in zip(printed, [*self.sent, None], strict=False) if pair[0] != pair[1]]
        if wrong:
            over(f"it printed {short(wrong[0][0])} where {short(wrong[0][1])} came")

    async def right(self) -> None:
        """Wait until all that was sent is printed, and look at it."""
        await self.came()
        self.check()


def _event(line: str) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise Missing(f"it printed {line[:200]!r}, which is no object with event and args")
    return {"event": event["event"], "args": event.get("args")}


async def events(play: Play) -> None:
    """Send events in all forms, and SIGTERM."""
    watched, opening = Watched(play), await play.handshake()
    with play.judging(Rule.FIRST):
        first = watched.next("active", {"jobId": "1", "prev": "waiting"}, IDS[0])
        session = play.accept(opening, first=lambda session: session.numbered(first))
        await watched.right()
    with play.judging(Rule.EVENT):
        for number, id in enumerate(IDS[1:]):
            watched.send(session, "waiting", {"jobId": str(number)}, id)
        watched.send(session, "drained", LATER_ID)
        await watched.right()
    with play.judging(Rule.TEXT):
        watched.send(
            session, "completed", {"jobId": TEXT, "returnvalue": {TEXT: [None, True, *NUMBERS]}}, "1700000009000-1"
        )
        await watched.right()
    with play.judging(Rule.FRAGMENTS):
        watched.send(session, "failed", {"jobId": "2", "failedReason": TEXT}, "1700000009000-2", pieces=9, ping=b"kit")
        await watched.right()
    with play.judging(Rule.LARGE):
        watched.send(session, "progress", {"jobId": "3", "data": "x" * LARGE}, "1700000009000-3")
        await watched.right()
    with play.judging(Rule.PINGS):
        session.socket.ping(b"kit!")
        await play.until(lambda: b"kit!" in session.socket.pongs, "it did not answer a ping")
    with play.judging(Rule.FINISH):
        play.client.terminate()
        await play.ends("it did not end")


async def unknown(play: Play) -> None:
    """Send what no client knows."""
    watched, session = Watched(play), await play.opened()
    with play.judging(Rule.UNKNOWN):
        session.send({"id": 900, "data": {}})
        session.send({"id": 901, "data": {"type": "kit-news", "args": ["1-0"]}})
        session.send({"id": 902, "data": {"ok": ["nobody has asked"]}})
        session.send({"id": 903, "data": {"err": {"message": "The kit wants nothing", "code": "INVALID_MESSAGE"}}})
        session.send({"id": None, "data": {"type": "kit-expires", "in": 1}})
        for args in (["1-0"], [{"jobId": "1"}, {"more": 1}, "1-1"], [], None):
            session.send(session.numbered({"event": f"{UNKNOWN}news", "args": args}))
        session.send(session.numbered({"event": f"{UNKNOWN}nothing"}))
        event = watched.next("completed", {"jobId": "1", "kit": {"id": 7}, "returnvalue": None}, IDS[0])
        session.send({"kit": [], **session.numbered({"kit": "news", **event})})
        await watched.right()


async def resumed(play: Play) -> None:
    """Break and close the connection between events; what comes behind the id that a client shows, it gets."""
    watched, session = Watched(play), await play.opened()
    with play.judging(Rule.EVENT):
        for id in IDS[:3]:
            watched.send(session, "waiting", {"jobId": "1"}, id)
        await watched.right()
    for number, ending in enumerate((1006, 4002, 4001), 3):
        session.close(ending)
        with play.judging(Rule.AT_ONCE if ending == 4002 else Rule.LATER):
            session = await play.opened()
            if ending == 4002 and play.pauses[-1] > 1:
                over(f"it was back {play.pauses[-1]:.1f} s after {ending}")
        watched.next("waiting", {"jobId": "1"}, IDS[number])  # while it was away
        with play.judging(Rule.RESUME):
            for event in _behind(watched, session):
                session.send(session.numbered(event))
            await watched.came()
        with play.judging(Rule.ONCE):
            watched.check()
    words = "The kit says 4000, stop"
    session.close(4000, words)
    await stops(play, 4000, words)


def _behind(watched: Watched, session: Session) -> list[Event]:
    """Return the events behind the id that a client shows.

    Raises:
        Missing: it shows none, or one that was not sent.
    """
    shown, ids = session.options.get("lastEventId"), [event["args"][-1] for event in watched.sent]
    if shown not in ids[:-1]:
        over(f"it came back with {f'lastEventId={shown}' if shown else 'no lastEventId'}, not with {ids[-2]}")
    return watched.sent[ids.index(shown) + 1 :]


async def gaps(play: Play) -> None:
    """Tell of a gap, and break the connection before another event comes."""
    watched, session = Watched(play), await play.opened()
    gap = {"from": IDS[0], "to": LATER_ID}
    with play.judging(Rule.GAP):
        watched.send(session, "waiting", {"jobId": "1"}, IDS[0])
        watched.send(session, "gap", gap)
        await watched.right()
        session.close(1006)
        session = await play.opened()
        if (shown := session.options.get("lastEventId")) != IDS[0]:
            over(f"it came back with lastEventId={shown}, not with {IDS[0]}, the last event before the gap")
        session.send(session.numbered({"event": "gap", "args": [gap]}))
        watched.send(session, "waiting", {"jobId": "2"}, LATER_ID)
        await watched.right()


SCENARIOS: Final = (
    Scenario(
        "resumed",
        WATCHER,
        (Rule.EVENT, Rule.RESUME, Rule.ONCE, Rule.LATER, Rule.AT_ONCE, Rule.STOP, Rule.WORDS),
        resumed,
    ),
    Scenario("gaps", WATCHER, (Rule.GAP,), gaps),
    Scenario("unknown-events", WATCHER, (Rule.UNKNOWN,), unknown),
    Scenario(
        "events",
        WATCHER,
        (
            *(Rule.PATH, Rule.KEY, Rule.SECRET, Rule.FRAMES, Rule.FIRST, Rule.TEXT, Rule.FRAGMENTS, Rule.LARGE),
            *(Rule.EVENT, Rule.PINGS, Rule.FINISH),
        ),
        events,
    ),
)
