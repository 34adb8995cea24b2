"""The plan of the fleet: what happened in, what to do out, without a clock or a process."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from signal import SIGABRT, SIGKILL, SIGTERM, SIGUSR1

import pytest

from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.start_message import HANDOVER
from bullmq_proxy.supervisor.backoff import HEALTHY, LONGEST, Backoff
from bullmq_proxy.supervisor.fleet import (
    ABORT_GRACE,
    APART,
    CRASH_LOOP,
    GRACE,
    HURRY,
    LEAST_AGE,
    LOOK,
    MOMENT,
    STACKS_PAUSE,
    Action,
    Fleet,
    Outcome,
    Retire,
    Signal,
    Spawn,
)
from bullmq_proxy.supervisor.slot import describe

START, DRAIN = 30.0, 30.0


def fleet_of(count: int, watch: float = 0.0) -> Fleet:
    return Fleet(count, start_timeout=START, drain_timeout=DRAIN, shard_timeout=watch)


def serving(count: int, now: float = 0.0, watch: float = 0.0) -> Fleet:
    """A fleet whose slot n is served by pid 100 + n."""
    fleet = fleet_of(count, watch)
    fleet.plan(now)
    for index in range(count):
        fleet.started(index, 100 + index, now)
        fleet.ready(index, now)
    return fleet


def dies(fleet: Fleet, code: int = 1, now: float = 0.0) -> float | None:
    """Start slot 0 and let it die before it is ready."""
    fleet.started(0, 100, now)
    return fleet.exited(0, code, now)


class TestStart:
    def test_every_slot_is_filled(self) -> None:
        assert fleet_of(2).plan(0) == [Spawn(0, 0, 0, must_reach_redis=True), Spawn(1, 0, 1, must_reach_redis=True)]

    def test_a_slot_is_filled_once(self) -> None:
        fleet = fleet_of(1)
        fleet.plan(0)
        fleet.started(0, 100, 0)
        assert fleet.plan(1) == []

    def test_the_service_is_up_when_every_slot_is_ready(self) -> None:
        fleet = fleet_of(2)
        for index in (0, 1):
            assert not fleet.all_ready
            fleet.started(index, 100 + index, 0)
            fleet.ready(index, 0)
        assert fleet.all_ready

    def test_it_counts_who_serves_and_knows_whether_anybody_will(self) -> None:
        fleet = fleet_of(2)
        assert (fleet.serving, fleet.able) == (0, False)
        fleet.started(0, 100, 0)
        assert (fleet.serving, fleet.able) == (0, True)
        fleet.ready(0, 0)
        assert (fleet.serving, fleet.able) == (1, True)
        fleet.exited(0, 1, 0)
        assert (fleet.serving, fleet.able) == (0, False)
        fleet.stop(0)
        assert fleet.able

    def test_a_start_that_takes_too_long_is_killed_once(self) -> None:
        fleet = fleet_of(1)
        fleet.started(0, 100, 0)
        assert fleet.next_due() == START + GRACE
        assert fleet.plan(START + GRACE) == [Signal(100, SIGKILL)]
        assert fleet.plan(START + GRACE + 1) == []

    def test_a_start_that_cannot_succeed_ends_the_service(self) -> None:
        fleet = fleet_of(1)
        fleet.started(0, 100, 0)
        fleet.failed(0, "Redis refuses the password")
        assert fleet.exited(0, Exit.BAD_START, 1) is None
        assert fleet.outcome == Outcome(Exit.FAILED, "Redis refuses the password")

    def test_the_others_are_told_to_leave_before_it_ends(self) -> None:
        fleet = serving(2)
        fleet.slots[0].incarnation, fleet.slots[0].ready_at = 0, None
        fleet.exited(0, Exit.BAD_START, 1)
        assert fleet.outcome is None
        assert fleet.plan(1) == [Signal(101, SIGTERM)]
        fleet.exited(1, 0, 2)
        assert fleet.outcome == Outcome(Exit.FAILED, "the first start failed")


class TestCrash:
    def test_the_slot_is_filled_again_at_once_by_the_next_incarnation(self) -> None:
        fleet = serving(2)
        assert fleet.exited(0, -9, 5) == 0
        assert fleet.plan(5) == [Spawn(0, 1, 0)]

    def test_further_deaths_are_answered_after_growing_pauses(self) -> None:
        fleet = serving(1)
        pauses = []
        for _ in range(4):
            pauses.append(fleet.exited(0, 1, 1))
            fleet.started(0, 100, 1)
            fleet.ready(0, 1)
        assert pauses == [0, 0.5, 1, 2]

    def test_nothing_is_started_during_the_pause(self) -> None:
        fleet = serving(1)
        fleet.exited(0, 1, 1)
        fleet.started(0, 100, 1)
        fleet.exited(0, 1, 1)
        assert fleet.plan(1.4) == []
        assert fleet.next_due() == 1.5
        assert fleet.plan(1.5) == [Spawn(0, 2, 0)]

    def test_a_bad_start_later_on_is_a_crash_like_others(self) -> None:
        fleet = serving(1)
        fleet.exited(0, 1, 1)
        fleet.started(0, 100, 1)
        assert fleet.exited(0, Exit.BAD_START, 2) == 0.5

    def test_a_shard_of_an_incompatible_version_ends_the_service_at_once(self) -> None:
        fleet = serving(1)
        fleet.exited(0, -9, 1)
        fleet.started(0, 100, 1)
        fleet.failed(0, "restart the service")
        assert fleet.exited(0, Exit.INCOMPATIBLE, 2) is None
        assert fleet.outcome == Outcome(Exit.FAILED, "restart the service")

    def test_a_shard_of_an_incompatible_version_is_tried_again_while_others_serve(self) -> None:
        fleet = serving(2)
        for now, pause in ((1, 0.5), (3, 1.0)):
            fleet.exited(0, -9, now) if now == 1 else None
            fleet.started(0, 100, now)
            fleet.failed(0, "restart the service")
            assert fleet.exited(0, Exit.INCOMPATIBLE, now) == pause
        assert not fleet.ending
        fleet.exited(1, -9, 5)
        fleet.started(1, 101, 5)
        fleet.failed(1, "restart the service")
        assert fleet.exited(1, Exit.INCOMPATIBLE, 6) is None
        assert fleet.outcome == Outcome(Exit.FAILED, "restart the service")

    def test_a_shard_that_gets_a_process_of_its_own_is_told_there(self) -> None:
        fleet = fleet_of(2)
        for index in range(2):
            fleet.started(index, 100, 0)
        fleet.forked(1, 101, 1)
        fleet.stop(2)
        assert fleet.plan(2) == [Signal(100, SIGTERM), Signal(101, SIGTERM)]

    def test_a_stop_before_a_shard_has_a_process_of_its_own_reaches_it_there(self) -> None:
        fleet = fleet_of(2)
        for index in range(2):
            fleet.started(index, 100, 0)
        fleet.stop(1)
        fleet.plan(1)
        fleet.forked(1, 101, 2)
        assert fleet.plan(2) == [Signal(101, SIGTERM)]

    def test_dying_over_and_over_before_serving_ends_the_service(self) -> None:
        fleet = fleet_of(1)
        for _ in range(CRASH_LOOP - 1):
            assert dies(fleet) is not None
            assert fleet.outcome is None
        dies(fleet, -11)
        assert fleet.outcome is not None
        assert fleet.outcome.code == Exit.FAILED
        assert fleet.outcome.reason.endswith("died 5 times in a row without becoming ready, at last: killed by SIGSEGV")

    def test_the_service_goes_on_while_others_serve(self) -> None:
        fleet = serving(2)
        fleet.exited(0, -9, 0)
        pauses = [dies(fleet, -9) for _ in range(CRASH_LOOP * 2)]
        assert pauses[-1] == LONGEST
        fleet.exited(1, -9, 0)
        assert not fleet.ending
        dies(fleet, -9)
        assert not fleet.ending, "the other one has five tries, too"

    def test_having_served_clears_the_count(self) -> None:
        fleet = fleet_of(1)
        for _ in range(CRASH_LOOP * 2):
            dies(fleet)
            fleet.started(0, 100, 0)
            fleet.ready(0, 0)
            fleet.exited(0, 1, 0)
        assert not fleet.ending


class TestStop:
    def test_every_shard_is_told_once(self) -> None:
        fleet = serving(2)
        fleet.stop(10)
        assert fleet.plan(10) == [Signal(100, SIGTERM), Signal(101, SIGTERM)]
        assert fleet.plan(11) == []

    def test_it_ends_well_when_the_last_shard_has_gone(self) -> None:
        fleet = serving(2)
        fleet.stop(10)
        assert fleet.exited(0, 0, 11) is None
        assert fleet.outcome is None
        fleet.exited(1, 0, 12)
        assert fleet.outcome == Outcome(Exit.DONE)

    def test_who_has_gone_already_is_not_told(self) -> None:
        fleet = serving(2)
        fleet.stop(10)
        fleet.exited(0, 0, 10)
        assert fleet.plan(10) == [Signal(101, SIGTERM)]

    def test_who_does_not_leave_in_time_is_killed(self) -> None:
        fleet = serving(1)
        fleet.stop(10)
        fleet.plan(10)
        assert fleet.next_due() == 10 + DRAIN + GRACE
        assert fleet.plan(10 + DRAIN + GRACE) == [Signal(100, SIGKILL)]

    def test_nobody_is_started_any_more(self) -> None:
        fleet = serving(1)
        fleet.exited(0, 1, 1)
        fleet.stop(1)
        assert fleet.plan(100) == []
        assert fleet.outcome == Outcome(Exit.DONE)

    def test_it_can_serve_on_for_a_while(self) -> None:
        fleet = serving(1)
        fleet.take_times(start_timeout=START, drain_timeout=DRAIN, shard_timeout=0, shutdown_delay=5)
        fleet.stop(10)
        assert fleet.plan(14.9) == []
        assert fleet.next_due() == 15
        assert fleet.plan(15) == [Signal(100, SIGTERM)]
        assert fleet.plan(15 + DRAIN + GRACE) == [Signal(100, SIGKILL)]

    def test_asking_again_ends_that(self) -> None:
        fleet = serving(1)
        fleet.take_times(start_timeout=START, drain_timeout=DRAIN, shard_timeout=0, shutdown_delay=60)
        fleet.stop(10)
        fleet.stop(12)
        assert fleet.plan(12) == [Signal(100, SIGTERM)]
        assert fleet.plan(12 + APART) == [Signal(100, SIGTERM)], "only who is told twice hurries"
        assert fleet.plan(12 + HURRY) == [Signal(100, SIGKILL)]

    def test_a_slot_without_a_shard_is_served_by_the_others_for_that_while(self) -> None:
        fleet = serving(3)
        fleet.take_times(start_timeout=START, drain_timeout=DRAIN, shard_timeout=0, shutdown_delay=60)
        fleet.exited(0, -9, 1)
        fleet.plan(1 + MOMENT)
        fleet.stop(10)
        assert fleet.shared() == (0,)
        fleet.exited(1, -9, 20)
        assert fleet.next_due() == 20 + MOMENT
        fleet.plan(20 + MOMENT)
        assert fleet.shared() == (0, 1)

    def test_who_leaves_already_is_not_hurried(self) -> None:
        fleet = serving(2)
        fleet.leaving(0, 5)
        fleet.stop(10)
        assert fleet.plan(10) == [Signal(101, SIGTERM)]
        assert fleet.plan(5 + DRAIN + GRACE) == [Signal(100, SIGKILL)]

    def test_asking_again_shortens_the_drain(self) -> None:
        fleet = serving(1)
        fleet.stop(10)
        fleet.plan(10)
        fleet.stop(12)
        assert fleet.plan(12) == [Signal(100, SIGTERM)]
        assert fleet.plan(12 + HURRY) == [Signal(100, SIGKILL)]

    def test_asking_a_third_time_ends_it(self) -> None:
        fleet = serving(1)
        for now in (10, 12, 14):
            fleet.stop(now)
        assert Signal(100, SIGKILL) in fleet.plan(14)

    def test_the_echo_of_a_request_is_no_second_one(self) -> None:
        fleet = serving(1)
        fleet.stop(10)
        fleet.plan(10)
        fleet.stop(10.1)
        assert fleet.plan(20) == []

    def test_a_fleet_says_how_it_is(self) -> None:
        fleet = serving(2)
        fleet.stop(0)
        assert repr(fleet) == "<Fleet 0:leaving 1:leaving ending>"


class TestReplacing:
    """A fresh shard for each listener, which serves before the old one leaves."""

    def test_one_after_the_other_gets_a_successor(self) -> None:
        fleet = serving(2)
        fleet.replace()
        assert fleet.replacing
        assert fleet.plan(1) == [Spawn(2, 0, 0, must_reach_redis=True)]
        fleet.started(2, 102, 1)
        assert fleet.plan(2) == []
        assert (fleet.serving, fleet.all_ready) == (2, True)
        fleet.ready(2, 3)
        assert fleet.plan(3) == [Retire(100, 0)]
        assert fleet.shared() == ()
        assert fleet.plan(4) == [], "one drains at a time"
        assert fleet.exited(0, 0, 5) is None
        assert fleet.plan(5) == [Spawn(0, 1, 1, must_reach_redis=True)]
        fleet.started(0, 103, 5)
        fleet.ready(0, 6)
        assert not fleet.replacing
        assert fleet.plan(6) == [Retire(101, 1)]
        fleet.exited(1, 0, 7)
        assert fleet.plan(100) == []
        assert (fleet.next_due(), fleet.serving) == (None, 2)

    def test_one_that_does_not_leave_is_killed(self) -> None:
        fleet = serving(1)
        fleet.replace()
        fleet.plan(1)
        fleet.started(1, 101, 1)
        fleet.ready(1, 2)
        fleet.plan(2)
        assert fleet.plan(2 + HANDOVER + DRAIN + GRACE) == [Signal(100, SIGKILL)]
        assert fleet.exited(0, -9, 60) is None
        assert fleet.plan(60) == []

    @pytest.mark.parametrize("code", [1, -9, Exit.BAD_START, Exit.INCOMPATIBLE])
    def test_a_successor_that_cannot_start_changes_nothing(self, code: int) -> None:
        fleet = serving(2)
        fleet.replace()
        fleet.plan(1)
        fleet.started(2, 102, 1)
        assert fleet.exited(2, code, 2) is None
        assert not fleet.replacing
        assert not fleet.ending
        assert (fleet.plan(3), fleet.serving) == ([], 2)
        fleet.replace()
        assert fleet.plan(4) == [Spawn(2, 1, 0, must_reach_redis=True)]

    def test_an_old_one_that_dies_meanwhile_is_not_started_again(self) -> None:
        fleet = serving(2)
        fleet.replace()
        fleet.plan(1)
        fleet.started(2, 102, 1)
        assert fleet.exited(0, -9, 2) is None
        assert fleet.plan(2 + MOMENT) == [Spawn(0, 1, 1, must_reach_redis=True)]
        assert fleet.shared() == (0,)
        fleet.ready(2, 4)
        assert (fleet.shared(), fleet.serving) == ((), 2)

    def test_a_successor_that_dies_after_its_predecessor_is_started_again(self) -> None:
        fleet = serving(1)
        fleet.replace()
        fleet.plan(1)
        fleet.started(1, 101, 1)
        fleet.exited(0, -9, 2)
        assert fleet.exited(1, -9, 3) == 0
        assert fleet.plan(3) == [Spawn(1, 1, 0)]

    def test_a_slot_that_is_empty_is_filled_by_a_fresh_one_anyway(self) -> None:
        fleet = serving(2)
        fleet.exited(0, -9, 1)
        fleet.exited(1, -9, 1)
        fleet.replace()
        assert fleet.plan(1) == [Spawn(0, 1, 0), Spawn(1, 1, 1)]

    def test_a_shard_that_is_old_is_replaced_and_not_all_at_once(self) -> None:
        fleet = fleet_of(2)
        fleet.take_times(start_timeout=START, drain_timeout=DRAIN, shard_timeout=0, max_shard_age=300)
        fleet.plan(0)
        for index in range(2):
            fleet.started(index, 100 + index, 0)
            fleet.ready(index, 0)
        assert fleet.next_due() is not None
        assert fleet.replace_old(289) == []
        assert fleet.replace_old(290) == ["shard 1 is replaced by a fresh one: 300 s old"]
        assert fleet.replace_old(291) == []
        assert fleet.plan(291) == [Spawn(2, 0, 1, must_reach_redis=True)]
        fleet.started(2, 102, 291)
        assert fleet.replace_old(300) == ["shard 0 is replaced by a fresh one: 300 s old"]
        assert fleet.plan(300) == []

    def test_a_successor_that_cannot_start_is_not_tried_over_and_over_without_a_pause(self) -> None:
        fleet, tries = serving(1), 0
        fleet.take_times(start_timeout=START, drain_timeout=DRAIN, shard_timeout=0, max_shard_age=300)
        for now in range(300, 900):
            fleet.replace_old(now)
            if fleet.plan(now):
                fleet.started(1, 101 + now, now)
                fleet.exited(1, Exit.INCOMPATIBLE, now)
                tries += 1
        assert 600 / LONGEST < tries < 2 * 600 / LONGEST

    def test_a_reload_goes_on_past_slots_that_are_empty(self) -> None:
        fleet = serving(3)
        fleet.exited(0, -9, 1)
        fleet.exited(1, -9, 1)
        for index in (0, 1):
            fleet.not_started(index, 1)
        fleet.replace()
        assert fleet.plan(1) == [Spawn(3, 0, 2, must_reach_redis=True)]

    def test_a_shard_that_takes_too_much_memory_is_replaced_but_not_over_and_over(self) -> None:
        fleet = serving(2)
        memory = {0: 2 << 30, 1: 1 << 30}
        assert fleet.replace_heavy(memory, 1 << 30, LEAST_AGE - 1) == []
        assert fleet.replace_heavy(memory, 1 << 30, LEAST_AGE) == [
            "shard 0 is replaced by a fresh one: more than 1024 MiB"
        ]
        assert fleet.plan(LEAST_AGE) == [Spawn(2, 0, 0, must_reach_redis=True)]
        fleet.started(2, 102, LEAST_AGE)
        assert fleet.replace_heavy(memory, 1 << 30, LEAST_AGE + 1) == []
        fleet.ready(2, LEAST_AGE + 2)
        assert fleet.replace_heavy({**memory, 2: 2 << 30}, 1 << 30, LEAST_AGE + 3) == []

    def test_the_old_one_has_the_time_for_its_drain_that_was_configured_when_it_was_started(self) -> None:
        fleet = serving(2)
        fleet.take_times(start_timeout=START, drain_timeout=1, shard_timeout=0)
        fleet.replace()
        fleet.plan(1)
        fleet.started(2, 102, 1)
        fleet.ready(2, 2)
        fleet.plan(2)
        assert fleet.next_due() == 2 + HANDOVER + DRAIN + GRACE
        fleet.stop(3)
        assert fleet.slots[1].due == 3 + DRAIN + GRACE

    def test_the_end_of_the_service_ends_it(self) -> None:
        fleet = serving(1)
        fleet.replace()
        fleet.plan(1)
        fleet.started(1, 101, 1)
        fleet.stop(2)
        assert fleet.plan(2) == [Signal(100, SIGTERM), Signal(101, SIGTERM)]
        fleet.exited(0, 0, 3)
        fleet.exited(1, 0, 3)
        assert fleet.outcome == Outcome(Exit.DONE)
        fleet.replace()
        assert fleet.plan(4) == []


class TestToldByOthers:
    """A shard that somebody else than the fleet has told to leave."""

    def test_the_others_serve_its_slot_at_once_until_it_is_filled(self) -> None:
        fleet = serving(2)
        fleet.leaving(0, 10)
        assert fleet.shared() == (0,)
        assert fleet.serving == 1
        assert fleet.exited(0, 0, 12) == 0
        assert fleet.plan(12) == [Spawn(0, 1, 0)]
        fleet.started(0, 102, 12)
        assert fleet.shared() == (0,)
        fleet.ready(0, 13)
        assert fleet.shared() == ()

    def test_it_is_killed_when_it_does_not_go(self) -> None:
        fleet = serving(1)
        fleet.leaving(0, 10)
        assert fleet.next_due() == 10 + DRAIN + GRACE
        assert fleet.plan(10 + DRAIN + GRACE) == [Signal(100, SIGKILL)]

    def test_one_that_the_fleet_has_told_keeps_its_time(self) -> None:
        fleet = serving(1)
        fleet.stop(10)
        fleet.leaving(0, 11)
        assert fleet.slots[0].due == 10 + DRAIN + GRACE


WATCH = 20.0


def looks(fleet: Fleet, until: float, moving: Sequence[int] = (), beats: Sequence[int] = (1, 1, 0)) -> list[Action]:
    """Look whenever it is due, up to a time; the shards in `moving` give signs of life meanwhile, the others none."""
    actions: list[Action] = []
    for turn in count(1):
        due = fleet.next_due()
        if due is None or due > until:
            return actions
        now = max(due, 0.0)
        given = [beat + turn * (slot in moving) for slot, beat in enumerate(beats)]
        fleet.check_beats([*given, 0][: len(fleet.slots)], now)
        actions += fleet.plan(now)
    raise AssertionError("next_due never ends")


def still(slot: int) -> Signal:
    return Signal(100 + slot, SIGABRT, f"shard {slot} has stood still for 20 s")


class TestStandingStill:
    def test_who_gives_signs_of_life_is_left_alone(self) -> None:
        assert looks(serving(2, watch=WATCH), 100, moving=(0, 1)) == []

    def test_who_gives_none_for_so_long_is_told_to_abort_once(self) -> None:
        fleet = serving(2, watch=WATCH)
        assert looks(fleet, WATCH - 0.1, moving=(1,)) == []
        assert looks(fleet, WATCH, moving=(1,), beats=(1, 10)) == [still(0)]
        assert looks(fleet, WATCH + ABORT_GRACE - 0.1, moving=(1,), beats=(1, 20)) == []

    def test_who_outlives_that_is_killed(self) -> None:
        fleet = serving(2, watch=WATCH)
        looks(fleet, WATCH, moving=(1,))
        assert fleet.plan(WATCH + ABORT_GRACE) == [Signal(100, SIGKILL, "shard 0 outlives SIGABRT")]
        assert fleet.plan(WATCH + ABORT_GRACE + 1) == []

    def test_it_does_not_serve_meanwhile_and_is_replaced_at_once_when_it_is_dead(self) -> None:
        fleet = serving(2, watch=WATCH)
        looks(fleet, WATCH, moving=(1,))
        assert fleet.serving == 1
        assert fleet.exited(0, -6, WATCH + 1) == 0
        assert fleet.plan(WATCH + 1) == [Spawn(0, 1, 0)]

    def test_it_looks_four_times_a_second(self) -> None:
        fleet = serving(1, watch=WATCH)
        fleet.check_beats([1, 0], 0)
        assert fleet.next_due() == LOOK

    def test_its_successor_has_all_the_time(self) -> None:
        fleet = serving(1, watch=WATCH)
        looks(fleet, 10)
        fleet.exited(0, 1, 12)
        fleet.started(0, 200, 12)
        fleet.ready(0, 13)
        assert looks(fleet, 13 + WATCH - 0.1) == []
        assert [action.pid for action in looks(fleet, 13 + WATCH + LOOK) if isinstance(action, Signal)][:1] == [200]

    def test_a_late_look_judges_nobody_and_begins_anew(self) -> None:
        """The machine was suspended, or the supervisor stopped."""
        fleet = serving(1, watch=WATCH)
        looks(fleet, 10)
        fleet.check_beats([1, 0], 1000)
        assert fleet.plan(1000) == []
        assert looks(fleet, 1000 + WATCH - 0.1) == []
        assert looks(fleet, 1000 + WATCH) == [still(0)]

    def test_a_look_before_its_time_sees_nothing(self) -> None:
        fleet = serving(1, watch=WATCH)
        fleet.check_beats([1, 0], 0)
        fleet.check_beats([2, 0], LOOK / 2)
        assert fleet.slots[0].beat == 1

    def test_a_start_has_a_time_of_its_own(self) -> None:
        fleet = fleet_of(1, watch=WATCH)
        fleet.started(0, 100, 0)
        assert fleet.next_due() == START + GRACE
        for now in range(30):
            fleet.check_beats([0, 0], now)
        assert fleet.plan(30) == []

    def test_who_stands_still_while_it_leaves_does_not_get_the_whole_drain(self) -> None:
        fleet = serving(1, watch=WATCH)
        fleet.check_beats([1, 0], 0)
        fleet.stop(1)
        assert looks(fleet, WATCH) == [Signal(100, SIGTERM), still(0)]
        assert fleet.next_due() == WATCH + ABORT_GRACE

    def test_nor_more_than_the_drain(self) -> None:
        fleet = serving(1, watch=WATCH)
        fleet.stop(0)
        fleet.plan(0)
        fleet.stop(WATCH - HURRY + 1)
        looks(fleet, WATCH)
        assert fleet.next_due() == WATCH + 1

    def test_who_leaves_before_it_has_given_a_sign_of_life_is_not_watched(self) -> None:
        fleet = fleet_of(1, watch=WATCH)
        fleet.started(0, 100, 0)
        fleet.stop(0)
        assert looks(fleet, 30, beats=(0,)) == [Signal(100, SIGTERM)]

    def test_the_end_of_the_service_does_not_put_its_death_off(self) -> None:
        fleet = serving(2, watch=WATCH)
        looks(fleet, WATCH, moving=(1,))
        fleet.stop(WATCH + 1)
        assert fleet.plan(WATCH + 1) == [Signal(101, SIGTERM)]
        assert Signal(100, SIGKILL, "shard 0 outlives SIGABRT") in fleet.plan(WATCH + ABORT_GRACE)

    def test_several_write_their_stacks_one_after_the_other(self) -> None:
        fleet = serving(2, watch=WATCH)
        assert looks(fleet, WATCH) == [still(0)]
        assert fleet.next_due() == WATCH + STACKS_PAUSE
        assert fleet.plan(WATCH + STACKS_PAUSE) == [still(1)]

    def test_without_a_timeout_nobody_is_watched(self) -> None:
        fleet = serving(1)
        assert fleet.next_due() is None
        for now in range(1000):
            fleet.check_beats([1, 0], now)
        assert fleet.plan(1000) == []


class TestStacks:
    def test_the_shards_show_them_one_after_the_other(self) -> None:
        fleet = serving(2)
        fleet.show_stacks(5)
        assert fleet.plan(5) == [Signal(100, SIGUSR1, "stacks of shard 0")]
        assert fleet.next_due() == 5 + STACKS_PAUSE
        assert fleet.plan(5 + STACKS_PAUSE) == [Signal(101, SIGUSR1, "stacks of shard 1")]
        assert fleet.next_due() is None
        assert fleet.serving == 2

    def test_who_is_to_show_them_already_is_not_told_twice(self) -> None:
        fleet = serving(1)
        for _ in range(3):
            fleet.show_stacks(5)
        assert fleet.plan(100) == [Signal(100, SIGUSR1, "stacks of shard 0")]

    def test_who_has_died_meanwhile_is_not_told(self) -> None:
        fleet = serving(1)
        fleet.show_stacks(5)
        fleet.exited(0, 1, 5)
        assert fleet.plan(5) == [Spawn(0, 1, 0)]


class TestBackoff:
    def test_pauses_grow_to_half_a_minute(self) -> None:
        backoff = Backoff()
        assert [backoff.pause(0) for _ in range(10)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]

    def test_health_makes_up_for_deaths(self) -> None:
        backoff = Backoff()
        pauses = [backoff.pause(healthy) for healthy in (0, 0, 0, HEALTHY, 2 * HEALTHY, HEALTHY / 2, 10 * HEALTHY)]
        assert pauses == [0, 0.5, 1, 1, 0.5, 1, 0]

    def test_what_accidents_end_every_few_seconds_is_back_at_once(self) -> None:
        backoff = Backoff()
        assert {backoff.pause(2 * HEALTHY) for _ in range(100)} == {0}

    def test_a_long_outage_does_not_overflow(self) -> None:
        backoff = Backoff()
        assert [backoff.pause(0) for _ in range(5000)][-1] == 30


@pytest.mark.parametrize(
    ("code", "words"), [(1, "exit code 1"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")]
)
def test_an_exit_code_in_words(code: int, words: str) -> None:
    assert describe(code) == words


class TestSharing:
    def test_the_socket_of_a_slot_that_stays_empty_is_served_by_the_others_until_it_is_filled(self) -> None:
        fleet = serving(2)
        fleet.exited(1, -9, 10)
        fleet.plan(10 + MOMENT / 2)
        assert fleet.shared() == ()
        fleet.started(1, 200, 10)
        assert fleet.next_due() == 10 + MOMENT
        fleet.plan(10 + MOMENT)
        assert fleet.shared() == (1,)
        fleet.exited(1, 1, 12)
        fleet.started(1, 201, 12)
        fleet.plan(12)
        assert fleet.shared() == (1,)
        fleet.ready(1, 13)
        assert fleet.shared() == ()

    def test_a_shard_that_takes_long_to_start_is_no_reason_to_wait(self) -> None:
        fleet = fleet_of(2)
        fleet.plan(0)
        fleet.started(0, 100, 0)
        fleet.started(1, 101, 0)
        fleet.ready(0, 0.5)
        fleet.plan(MOMENT)
        assert fleet.shared() == (1,)

    def test_the_socket_of_a_shard_that_stands_still_is_served_as_soon_as_that_is_known(self) -> None:
        fleet = serving(2, watch=4.0)
        for look in range(40):
            fleet.check_beats([1 + look, 1, 0], look * LOOK)
        assert fleet.shared() == (1,)

    def test_nothing_is_shared_with_nobody(self) -> None:
        for slots in (1, 2):
            fleet = serving(slots)
            fleet.exited(0, -9, 10)
            fleet.plan(20)
            assert fleet.shared() == (0,) * (slots - 1)


def test_what_cannot_be_started_is_tried_again_after_ever_longer_pauses_and_never_given_up() -> None:
    fleet = serving(1)
    assert fleet.exited(0, -9, 100) == 0.0, "after a long health"
    now, pauses = 100.0, []
    for _ in range(10):
        assert fleet.plan(now) == [Spawn(0, 1, 0)]
        pauses.append(fleet.not_started(0, now))
        assert fleet.plan(now + pauses[-1] / 2) == []
        now += pauses[-1]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]
    assert not fleet.ending


def test_shards_whose_sockets_another_supervisor_serves_are_told_so_and_leave() -> None:
    fleet = serving(2)
    fleet.hand_over(100.0)
    assert fleet.plan(100.0) == [Retire(100, 0), Retire(101, 1)]
    fleet.leaving(0, 100.0)
    assert fleet.plan(101.0) == []
    for slot in (0, 1):
        fleet.exited(slot, 0, 103.0)
    assert fleet.outcome == Outcome(Exit.DONE)
