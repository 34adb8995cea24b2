"""The plan: what happened and what time it is in, what to do next out. Nothing here forks, kills or waits.

events    started, ready, failed, exited, stop      come in from the master loop
actions   Spawn, Signal                             go out, for the master to carry out
outcome   Outcome                                   once the service has to end and no shard is left
"""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass, field

from gateway.exits import Exit
from supervisor.backoff import Backoff

# Deaths of one slot in a row without having served: starting it again would not help.
CRASH_LOOP = 5
# What a shard gets beyond its own time limits before it is killed.
GRACE = 5.0
# What is left to a shard for giving jobs back when the user will not wait for the drain.
HURRY = 3.0
# `make`, `timeout` and others relay a signal that their process group gets as well: that is one request.
SAME_REQUEST = 1.0


class State(enum.IntEnum):
    """The life of one slot's shard. It runs one way; a slot begins again with a new incarnation."""

    WAITING, STARTING, READY, LEAVING = range(4)


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a shard for the slot, then tell the fleet `started`."""

    slot: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Signal:
    """Send the signal to the shard's process."""

    pid: int
    signum: signal.Signals


Action = Spawn | Signal


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the service ends: its exit code, and the reason when it is not a request."""

    code: Exit
    reason: str = ""


@dataclass(slots=True)
class Slot:
    """One place of the fleet, and the shard that fills it."""

    index: int
    state: State = State.WAITING
    incarnation: int = -1
    pid: int | None = None
    due: float = 0.0
    """WAITING: when to spawn. STARTING and LEAVING: when to kill."""
    ready_at: float | None = None
    hopeless: int = 0
    """Deaths in a row without having been ready."""
    message: str = ""
    """What the shard said about its failure."""
    backoff: Backoff = field(default_factory=Backoff)


class Fleet:
    """All slots of one service. `plan` decides, everything else records what happened."""

    def __init__(self, count: int, *, start_timeout: float, drain_timeout: float) -> None:
        self.slots = [Slot(index) for index in range(count)]
        self._start_timeout = start_timeout + GRACE
        self._drain_timeout = drain_timeout + GRACE
        self._ending: Outcome | None = None
        self._deadline = float("inf")
        self._asked_at = float("-inf")
        self._to_tell: list[Signal] = []

    def __repr__(self) -> str:
        states = " ".join(f"{slot.index}:{slot.state.name.lower()}" for slot in self.slots)
        return f"<Fleet {states}{' ending' if self._ending else ''}>"

    @property
    def ending(self) -> bool:
        """Has the service been told to end, or given up?"""
        return self._ending is not None

    @property
    def all_ready(self) -> bool:
        return all(slot.state is State.READY for slot in self.slots)

    @property
    def serving(self) -> int:
        """How many shards serve."""
        return sum(slot.state is State.READY for slot in self.slots)

    @property
    def able(self) -> bool:
        """Does a shard serve, or is it about to? A service that ends owes nobody more."""
        return self.ending or any(slot.state in (State.STARTING, State.READY) for slot in self.slots)

    @property
    def outcome(self) -> Outcome | None:
        """Set once the service has ended: no shard is left and none will follow."""
        return self._ending if all(slot.pid is None for slot in self.slots) else None

    def plan(self, now: float) -> list[Action]:
        """What to do now. Calling it again gives only what has become due since."""
        alive = {slot.pid for slot in self.slots}
        actions: list[Action] = [told for told in self._to_tell if told.pid in alive]
        self._to_tell = []
        for slot in self.slots:
            if slot.due > now:
                continue
            if slot.pid is not None and slot.state in (State.STARTING, State.LEAVING):
                slot.due = float("inf")
                slot.message = slot.message or "it did not become ready in time"
                actions.append(Signal(slot.pid, signal.SIGKILL))
            elif slot.state is State.WAITING and not self._ending:
                actions.append(Spawn(slot.index, slot.incarnation + 1))
        return actions

    def next_due(self) -> float | None:
        """When `plan` will have something to say, if nothing happens before; None for never."""
        waiting = (State.STARTING, State.LEAVING) if self._ending else (State.WAITING, State.STARTING)
        due = min((slot.due for slot in self.slots if slot.state in waiting), default=float("inf"))
        return None if due == float("inf") else due

    def started(self, index: int, pid: int, now: float) -> None:
        """The spawn was carried out."""
        slot = self.slots[index]
        slot.incarnation += 1
        slot.pid, slot.ready_at, slot.message = pid, None, ""
        slot.state, slot.due = State.STARTING, now + self._start_timeout

    def ready(self, index: int, now: float) -> None:
        """The shard said that it serves."""
        slot = self.slots[index]
        if slot.state is State.STARTING:
            slot.state, slot.ready_at, slot.hopeless = State.READY, now, 0

    def failed(self, index: int, message: str) -> None:
        """The shard said why it is about to give up."""
        self.slots[index].message = message

    def exited(self, index: int, code: int, now: float) -> float | None:
        """The shard's process is gone.

        Args:
            code: its exit code, negative for a signal's number.

        Returns the seconds until the slot is filled again, None when it will not be.
        """
        slot = self.slots[index]
        healthy_for = 0.0 if slot.ready_at is None else now - slot.ready_at
        slot.pid = None
        slot.state = State.WAITING
        if self._ending:
            return None
        if slot.ready_at is None:
            slot.hopeless += 1
            reason = self._despair(slot, code)
            if reason:
                self._end(Outcome(Exit.FAILED, reason), now)
                return None
        pause = slot.backoff.pause(healthy_for)
        slot.due = now + pause
        return pause

    def stop(self, now: float) -> None:
        """The user asks the service to end. Asking again shortens the drain, asking a third time ends it."""
        echo = now - self._asked_at < SAME_REQUEST
        self._asked_at = now
        if self._ending is None:
            self._end(Outcome(Exit.DONE), now)
        elif not echo:
            self._hurry(now)

    def _hurry(self, now: float) -> None:
        hurry = HURRY if self._deadline > now + HURRY else 0.0
        self._deadline = now + hurry
        for slot in self.slots:
            if slot.pid is not None and slot.due > self._deadline:
                slot.due = self._deadline
                # A shard that is told twice gives back what its workers hold instead of waiting for them.
                self._to_tell.append(Signal(slot.pid, signal.SIGTERM))

    def _end(self, outcome: Outcome, now: float) -> None:
        self._ending = outcome
        self._deadline = now + self._drain_timeout
        for slot in self.slots:
            if slot.pid is not None:
                slot.state, slot.due = State.LEAVING, self._deadline
                self._to_tell.append(Signal(slot.pid, signal.SIGTERM))

    def _despair(self, slot: Slot, code: int) -> str:
        """Why there is no point in starting the slot again; empty when there is."""
        if code == Exit.BAD_START and slot.incarnation == 0:
            return slot.message or "the first start failed"
        if slot.hopeless < CRASH_LOOP:
            return ""
        last = slot.message or describe(code)
        return f"shard {slot.index} died {slot.hopeless} times in a row without becoming ready, at last: {last}"


def describe(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
