"""The plan: what happened and what time it is in, what to do next out. Nothing here forks, kills or waits.

events    started, ready, leaving, failed, exited, not_started, replace, stop, check_beats, show_stacks   from the loop
actions   Spawn, Signal, Retire     go out, for the master to carry out
outcome   Outcome                   once the service has to end and no shard is left
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.start_message import HANDOVER
from bullmq_proxy.supervisor.backoff import FIRST
from bullmq_proxy.supervisor.slot import Slot, State, describe

# Deaths of each slot in a row without having served: starting them again would not help. While one serves the others
# are tried again: accidents, such as a memory that is full, befall starts as well.
CRASH_LOOP = 5
# What a shard gets beyond its own time limits before it is killed.
GRACE = 5.0
# What is left to a shard for giving jobs back when the user will not wait for the drain.
HURRY = 3.0
# What a shard that stands still gets for writing its stacks and dying, before it is killed.
ABORT_GRACE = 2.0
# Time between two looks at the shards' signs of life. A shard gives one each second; this says how old the last one is.
LOOK = 0.25
# A shard that takes more memory than it may is not replaced before it has served for so long.
LEAST_AGE = 60.0
# Shards of one age are not replaced at one time: the first one goes so much of the age before the last.
SPREAD = 0.1
# Stacks are written in many small pieces: shards take turns, or nobody could read them.
STACKS_PAUSE = 0.05
# How long clients wait in the socket of a slot without a shard, before the other shards serve it.
MOMENT = 1.0
# Time between two signals of one kind to one process: those that come together are one.
APART = 0.1
# `make`, `timeout` and others relay a signal that their process group gets as well: that is one request.
SAME_REQUEST = 1.0


class Spawn(NamedTuple):
    """Fork a shard for the slot, to serve a listener, then tell the fleet `started`.

    Attributes:
        must_reach_redis: it is the first one, or another shard serves the listener still.
    """

    slot: int
    incarnation: int
    listener: int
    must_reach_redis: bool = False


class Signal(NamedTuple):
    """Send the signal to the shard's process, and say why, if there is something to be said."""

    pid: int
    signum: signal.Signals
    reason: str = ""


class Retire(NamedTuple):
    """Tell the slot's shard that another one serves in its place, so that it leaves."""

    pid: int
    slot: int


Action = Spawn | Signal | Retire


class Outcome(NamedTuple):
    """How the service ends: its exit code, and the reason when it is not a request."""

    code: Exit
    reason: str = ""


class Fleet:
    """All slots of one service. `plan` decides, everything else records what happened."""

    def __init__(self, count: int, **times: float) -> None:
        """Make a fleet of empty slots.

        Args:
            count: of listeners. There is one slot more, for the successor of a shard that is replaced.
            times: see `take_times`.
        """
        self.slots = [Slot(index, index) for index in range(count)]
        self.slots.append(Slot(count, None, due=float("inf")))
        self._count = count
        self._to_replace: list[int] = []  # listeners that are to have a fresh shard
        self._replace_due = float("-inf")  # not before, unless somebody asks: a successor has failed
        self.take_times(**times)
        self._ending: Outcome | None = None
        self._deadline = float("inf")
        self._asked_at = float("-inf")
        self._to_tell: list[tuple[float, Signal | Retire]] = []
        self._stacks_due = float("-inf")
        self._look_due = float("-inf")

    def take_times(
        self,
        *,
        start_timeout: float,
        drain_timeout: float,
        shard_timeout: float,
        shutdown_delay: float = 0.0,
        max_shard_age: float = 0.0,
    ) -> None:
        """Use these times from now on.

        Args:
            start_timeout: seconds from a fork until the shard is ready.
            drain_timeout: seconds that a shard may take to leave.
            shard_timeout: seconds without a sign of life after which a shard stands still; 0 for no watch.
            shutdown_delay: seconds for which shards serve on when the service ends.
            max_shard_age: seconds after which a shard is replaced; 0 for never.
        """
        self._start_timeout = start_timeout + GRACE
        self._shutdown_delay = shutdown_delay
        self._max_age = max_shard_age
        self._drain_timeout = drain_timeout + GRACE
        self._shard_timeout = shard_timeout
        self._late = max(2 * LOOK, shard_timeout / 8)

    def __repr__(self) -> str:
        used = [slot for slot in self.slots if slot.listener is not None or slot.pid is not None]
        states = " ".join(f"{slot.index}:{slot.state.name.lower()}" for slot in used)
        return f"<Fleet {states}{' ending' if self._ending else ''}>"

    @property
    def ending(self) -> bool:
        """Has the service been told to end, or given up?"""
        return self._ending is not None

    @property
    def all_ready(self) -> bool:
        return self.serving == self._count

    @property
    def serving(self) -> int:
        """How many listeners have a shard that serves."""
        return len({slot.listener for slot in self.slots if slot.state is State.READY} - {None})

    @property
    def replacing(self) -> bool:
        """Are there shards that are still to be replaced?"""
        return bool(self._to_replace) or any(slot.replaces is not None for slot in self.slots)

    @property
    def able(self) -> bool:
        """Does a shard serve, or is it about to? A service that ends owes nobody more."""
        return self.ending or any(slot.state in (State.STARTING, State.READY) for slot in self.slots)

    @property
    def outcome(self) -> Outcome | None:
        """Set once the service has ended: no shard is left and none will follow."""
        return self._ending if all(slot.pid is None for slot in self.slots) else None

    def plan(self, now: float) -> list[Action]:
        """Return what to do now. Calling it again gives only what has become due since."""
        self._go_on_replacing(now)
        alive = {slot.pid for slot in self.slots}
        actions: list[Action] = [told for at, told in self._to_tell if at <= now and told.pid in alive]
        self._to_tell = [(at, told) for at, told in self._to_tell if at > now]
        for slot in self.slots:
            if slot.empty_since is not None and slot.empty_since + MOMENT <= now:
                slot.empty_since, slot.is_shared = None, True
            if slot.due > now:
                continue
            if slot.pid is not None and slot.state in (State.STARTING, State.LEAVING, State.ABORTING):
                slot.due = float("inf")
                slot.message = slot.message or "it did not become ready in time"
                reason = f"shard {slot.index} outlives SIGABRT" if slot.state is State.ABORTING else ""
                actions.append(Signal(slot.pid, signal.SIGKILL, reason))
            elif slot.state is State.WAITING and slot.listener is not None and not self._ending:
                is_first = slot.incarnation < 0 and slot.index < self._count
                must_reach_redis = is_first or slot.replaces is not None
                actions.append(Spawn(slot.index, slot.incarnation + 1, slot.listener, must_reach_redis))
        return actions

    def replace(self) -> None:
        """Give each listener a fresh shard, one after the other; the old one leaves when that is ready."""
        if not self._ending:
            self._to_replace = list(range(self._count))

    def replace_heavy(self, memory: Mapping[int, int], limit: int, now: float) -> list[str]:
        """Give the listeners of shards that take too much memory fresh ones; returns what to say of it.

        Args:
            memory: bytes of each slot's shard.
            limit: bytes that one may take.
        """
        heavy = [slot for slot in self.slots if memory.get(slot.index, 0) > limit and self._age(slot, now) >= LEAST_AGE]
        return self._replace_each(heavy, f"more than {limit >> 20} MiB", now)

    def replace_old(self, now: float) -> list[str]:
        """Give the listeners of shards that have served for long fresh ones; returns what to say of it."""
        if not self._max_age:
            return []
        ages = {slot.index: self._max_age * (1 - SPREAD * slot.index / len(self.slots)) for slot in self.slots}
        old = [slot for slot in self.slots if self._age(slot, now) >= ages[slot.index]]
        return self._replace_each(old, f"{self._max_age:g} s old", now)

    def _replace_each(self, slots: Sequence[Slot], why: str, now: float) -> list[str]:
        said: list[str] = []
        if now < self._replace_due:
            return said
        for slot in slots:
            if slot.listener is not None and slot.listener not in self._to_replace and not self._successor(slot):
                self._to_replace.append(slot.listener)
                said.append(f"shard {slot.index} is replaced by a fresh one: {why}")
        return said

    def _age(self, slot: Slot, now: float) -> float:
        """Return the seconds for which a slot's shard has served, 0 where it does not serve now."""
        serves = slot.state is State.READY and slot.ready_at is not None and not self._ending
        return now - slot.ready_at if serves and slot.ready_at is not None else 0.0

    def _go_on_replacing(self, now: float) -> None:
        spare = next((slot for slot in self.slots if slot.listener is None and slot.pid is None), None)
        while self._to_replace and spare is not None:
            [old] = [slot for slot in self.slots if slot.listener == self._to_replace[0]]
            if old.state not in (State.READY, State.WAITING):
                return
            del self._to_replace[0]
            if old.state is State.READY:  # else the one that it waits for is a fresh one, too
                spare.listener, spare.replaces, spare.due, spare.hopeless = old.listener, old.index, now, 0
                spare.is_shared = False
                return

    def _successor(self, slot: Slot) -> Slot | None:
        return next((other for other in self.slots if other.replaces == slot.index), None)

    def _retire(self, slot: Slot, now: float) -> None:
        """Let the shard of a slot leave: its listener has another one."""
        slot.listener, slot.empty_since, slot.is_shared = None, None, False
        if slot.pid is None:
            slot.due = float("inf")
        elif slot.state in (State.STARTING, State.READY):
            slot.state, slot.due = State.LEAVING, now + HANDOVER + slot.drain_timeout
            self._to_tell.append((now, Retire(slot.pid, slot.index)))

    def next_due(self) -> float | None:
        """Return when `plan` or `check_beats` has something to say, if nothing happens before; None for never."""
        times = [at for at, _ in self._to_tell]
        for slot in self.slots:
            if slot.state is not State.READY and not (slot.state is State.WAITING and self._ending):
                times.append(slot.due)
            if self._watches(slot) or (self._max_age and slot.state is State.READY):
                times.append(self._look_due)
            if slot.empty_since is not None and self._can_share:
                times.append(slot.empty_since + MOMENT)
        due = min(times, default=float("inf"))
        return None if due == float("inf") else due

    def shared(self) -> tuple[int, ...]:
        """Return the slots whose sockets the shards of the others are to serve, too: theirs has none for a while."""
        shared = (slot.listener for slot in self.slots if slot.is_shared and self._can_share)
        return tuple(listener for listener in shared if listener is not None)

    @property
    def _can_share(self) -> bool:
        return self._count > 1

    def started(self, index: int, pid: int, now: float) -> None:
        """Note that a spawn was carried out."""
        slot = self.slots[index]
        if slot.incarnation < 0 and slot.replaces is None:
            slot.empty_since = now
        slot.incarnation += 1
        slot.pid, slot.ready_at, slot.message, slot.drain_timeout = pid, None, "", self._drain_timeout
        slot.state, slot.due = State.STARTING, now + self._start_timeout

    def forked(self, index: int, pid: int, now: float) -> None:
        """Record that the shard has a process of its own now; it was started together with others."""
        slot = self.slots[index]
        slot.pid = pid
        if slot.state is State.LEAVING:
            self._to_tell.append((now, Signal(pid, signal.SIGTERM)))

    def ready(self, index: int, now: float) -> None:
        """Note that a shard serves."""
        slot = self.slots[index]
        if slot.state is State.STARTING:
            slot.state, slot.ready_at, slot.hopeless = State.READY, now, 0
            slot.empty_since, slot.is_shared = None, False
            slot.moved_at = now
            if slot.replaces is not None:
                old, slot.replaces = self.slots[slot.replaces], None
                self._retire(old, now)

    def leaving(self, index: int, now: float) -> None:
        """Note that a shard drains because somebody else has told it to: the others serve its slot meanwhile."""
        slot = self.slots[index]
        if slot.state is State.READY:
            slot.state, slot.due, slot.is_shared = State.LEAVING, now + slot.drain_timeout, True

    def failed(self, index: int, message: str) -> None:
        """Note why a shard is about to give up."""
        self.slots[index].message = message

    def exited(self, index: int, code: int, now: float) -> float | None:
        """Note that a shard's process is gone, and plan the next one.

        Args:
            code: its exit code, negative for a signal's number.

        Returns the seconds until the slot is filled again, None when it will not be.
        """
        slot = self.slots[index]
        healthy_for = 0.0 if slot.ready_at is None else now - slot.ready_at
        slot.pid = None
        slot.state = State.WAITING
        slot.ready_at = None  # the next one is not ready yet
        if self._ending:
            slot.empty_since = now  # the others may serve on for a while
            return None
        if slot.listener is None:
            slot.due = float("inf")
            return None
        if slot.replaces is not None:  # whatever is wrong with it, the old ones serve
            slot.listener, slot.replaces, slot.due = None, None, float("inf")
            self._to_replace, self._replace_due = [], now + max(slot.backoff.pause(0.0), FIRST)
            return None
        successor = self._successor(slot)
        if successor is not None:
            successor.replaces, successor.empty_since = None, now
            self._retire(slot, now)
            return None
        if healthy_for:
            slot.empty_since = now
        if not healthy_for:
            slot.hopeless += 1
            reason = self._despair(slot, code)
            if reason:
                self._end(Outcome(Exit.FAILED, reason), now)
                return None
        pause = slot.backoff.pause(healthy_for)
        slot.due = now + pause
        return pause

    def not_started(self, index: int, now: float) -> float:
        """Note that the system could not start a shard; that is no fault of the shard's.

        Returns the seconds until the next try.
        """
        slot = self.slots[index]
        pause = max(slot.backoff.pause(0.0), FIRST)
        slot.due = now + pause
        return pause

    def check_beats(self, beats: Sequence[int], now: float) -> None:
        """See who stands still. To be called at any time; it looks once in a while.

        Args:
            beats: how many signs of life each slot's shard has given; 0 before its first.
        """
        if now < self._look_due:
            return
        # What held us up, a suspended machine or a stopped container, has perhaps held the shards up as well.
        late = now > self._look_due + self._late
        self._look_due = now + LOOK
        for slot, beat in zip(self.slots, beats, strict=True):
            if late or beat != slot.beat or beat == 0:
                slot.beat, slot.moved_at = beat, now
            elif self._watches(slot) and now - slot.moved_at >= self._shard_timeout:
                self._abort(slot, now)

    def show_stacks(self, now: float) -> None:
        """Ask the shards for their stacks."""
        asked = {told.pid for _, told in self._to_tell if isinstance(told, Signal) and told.signum == signal.SIGUSR1}
        for slot in self.slots:
            if slot.pid is not None and slot.pid not in asked:
                self._tell_in_turn(now, Signal(slot.pid, signal.SIGUSR1, f"stacks of shard {slot.index}"))

    def stop(self, now: float) -> None:
        """End the service. Asking again shortens the drain, asking a third time ends it."""
        echo = now - self._asked_at < SAME_REQUEST
        self._asked_at = now
        if self._ending is None:
            self._end(Outcome(Exit.DONE), now, self._shutdown_delay)
        elif not echo:
            self._hurry(now)

    def hand_over(self, now: float) -> None:
        """End the service: another one serves its sockets already."""
        self._end(Outcome(Exit.DONE), now, HANDOVER, is_replaced=True)

    def _hurry(self, now: float) -> None:
        hurry = HURRY if self._deadline > now + HURRY else 0.0
        self._deadline = now + hurry
        late = {told.pid for at, told in self._to_tell if at > now and told == Signal(told.pid, signal.SIGTERM)}
        self._to_tell = [(now if told.pid in late else at, told) for at, told in self._to_tell]
        for slot in self.slots:
            if slot.pid is not None and slot.due > self._deadline:
                slot.due = self._deadline
                # A shard that is told twice gives back what its workers hold instead of waiting for them.
                self._to_tell.append((now + APART * (slot.pid in late), Signal(slot.pid, signal.SIGTERM)))

    def _end(self, outcome: Outcome, now: float, delay: float = 0.0, *, is_replaced: bool = False) -> None:
        self._ending = outcome
        self._deadline = now + delay + max(slot.drain_timeout for slot in self.slots)
        for slot in self.slots:
            # Whom somebody else has told to leave does so already: a second word would hurry it.
            is_told = slot.state is State.LEAVING and slot.listener is not None
            if slot.pid is not None and slot.state is not State.ABORTING and not is_told:
                slot.state, slot.due = State.LEAVING, self._deadline
                told = Retire(slot.pid, slot.index) if is_replaced else Signal(slot.pid, signal.SIGTERM)
                self._to_tell.append((now if is_replaced else now + delay, told))

    def _watches(self, slot: Slot) -> bool:
        return self._shard_timeout > 0 and slot.state in (State.READY, State.LEAVING)

    def _abort(self, slot: Slot, now: float) -> None:
        assert slot.pid is not None, "it is ready or leaves"
        reason = f"shard {slot.index} has stood still for {self._shard_timeout:g} s"
        due = self._tell_in_turn(now, Signal(slot.pid, signal.SIGABRT, reason)) + ABORT_GRACE
        slot.due = min(slot.due, due) if slot.state is State.LEAVING else due
        slot.state = State.ABORTING
        slot.is_shared = True

    def _tell_in_turn(self, now: float, told: Signal) -> float:
        """Send a signal that is answered with stacks, after the stacks of others; says when."""
        at = max(now, self._stacks_due)
        self._stacks_due = at + STACKS_PAUSE
        self._to_tell.append((at, told))
        return at

    def _despair(self, slot: Slot, code: int) -> str:
        """Return why there is no point in starting the slot again; empty when there is."""
        if code == Exit.BAD_START and slot.incarnation == 0 and slot.index < self._count:
            return slot.message or "the first start failed"
        if code == Exit.INCOMPATIBLE:  # a restart of the service would help, which is up to others while some serve
            slot.hopeless = CRASH_LOOP
        if any(slot.hopeless < CRASH_LOOP for slot in self.slots if slot.listener is not None):
            return ""
        last = slot.message or describe(code)
        if code == Exit.INCOMPATIBLE:
            return last
        return f"shard {slot.index} died {slot.hopeless} times in a row without becoming ready, at last: {last}"
