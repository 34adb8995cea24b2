"""The history: steps that come and go, series that follow the busiest queues, slots that outlive their shards."""

from __future__ import annotations

from typing import Any

from bullmq_proxy.gateway.broker.jobs.counts import Counts
from bullmq_proxy.gateway.history import STEP, History
from bullmq_proxy.gateway.rules import shapes
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.shared_memory import SERIES, STEPS, SharedMemory

MINUTE = 60_000
HOUR = STEPS * STEP
FIRST = 1_700_000_000_000  # ms; the beginning of a step


class Shard:
    """What a shard counts, at a time of the test's."""

    def __init__(self, memory: SharedMemory, slot: int = 0) -> None:
        self.now = FIRST
        self.counts = Counts()
        self.history = History(memory.row(slot), self.counts, lambda: self.now)

    def add(self, *queues: str, jobs: int = 1) -> None:
        for queue in queues:
            counts = self.counts.of(queue)
            for _ in range(jobs):
                counts.add()
        self.history.collect_all()

    def added(self, queue: str | None = None) -> dict[int, int]:
        """The steps in which jobs were added, as ms before the last one."""
        return steps(self.history.show(queue), "added")


def steps(shown: shapes.History, what: str) -> dict[int, Any]:
    whole: dict[str, Any] = {**shown}
    values = whole[what]
    assert len(values) == STEPS
    return {(STEPS - 1 - at) * STEP: value for at, value in enumerate(values) if value}


def test_what_is_counted_stands_in_the_step_in_which_it_was_for_an_hour() -> None:
    shard = Shard(SharedMemory(1))
    shard.add("mails")
    shard.add("mails", "orders")
    shown = shard.history.show(None)
    assert (shown["step"], shown["end"], shown["kept"]) == (10_000, FIRST + 10_000, True)
    assert (shard.added(), shard.added("mails")) == ({0: 3}, {0: 2})
    shard.now += STEP
    shard.add("mails")
    assert (shard.added(), shard.added("mails")) == ({STEP: 3, 0: 1}, {STEP: 2, 0: 1})
    shard.now += HOUR - 2 * STEP
    assert shard.added("mails") == {HOUR - STEP: 2, HOUR - 2 * STEP: 1}
    shard.now += STEP
    assert shard.added("mails") == {HOUR - STEP: 1}
    shard.add("mails")  # where the first one stood
    assert shard.added("mails") == {HOUR - STEP: 1, 0: 1}
    shard.now += 5 * HOUR
    assert shard.added("mails") == {}


def test_ends_and_waiting_times_are_counted_too() -> None:
    shard = Shard(SharedMemory(1))
    counts = shard.counts.of("mails")
    for state in ("completed", "completed", "failed", "waiting", "delayed", "waiting-children"):
        counts.end(state)
    for age, ats, delay in (
        (3_000_000, b"1", 0),
        (5_000_000, None, 1_000_000),
        (9_000_000, b"2", 0),
        (-10_000, b"1", 0),
    ):
        fields = {b"timestamp": b"%d" % (now_ms() - age)}
        counts.start(fields | ({b"ats": ats} if ats else {}), delay)
    counts.start({b"ats": b"1"}, 0)
    counts.start({b"ats": b"1", b"timestamp": b"none"}, 0)
    shown = shard.history.show("mails")
    assert (shown["completed"][-1], shown["failed"][-1]) == (2, 1)
    waited, longest = shown["waited"][-1], shown["longest"][-1]
    assert waited is not None
    assert longest is not None
    assert round(waited, -3) == round((3_000_000 + 4_000_000 + 0) / 3, -3)
    assert round(longest, -3) == 4_000_000
    assert (shown["waited"][-2], shown["longest"][-2]) == (None, None)


def test_all_slots_are_summed_up_and_a_successor_goes_on_where_its_predecessor_ended() -> None:
    memory = SharedMemory(2)
    one, other = Shard(memory, 0), Shard(memory, 1)
    one.add("mails")
    other.add("mails", "orders")
    assert (one.added(), one.added("mails"), one.added("orders")) == ({0: 3}, {0: 2}, {0: 1})
    memory.clear(0)  # the shard has died
    successor = Shard(memory, 0)
    successor.now += STEP
    successor.add("mails")
    for shard in (successor, other):
        shard.now = FIRST + STEP
        assert (shard.added(), shard.added("mails")) == ({STEP: 3, 0: 1}, {STEP: 2, 0: 1})


def test_a_queue_that_nobody_knows_and_one_of_another_prefix_have_no_series() -> None:
    shard = Shard(SharedMemory(1))
    shard.add("")
    assert (shard.added(), shard.history.show("")["kept"]) == ({0: 1}, False)
    assert not shard.history.show("mails")["kept"]


def test_many_queues_are_written_down_in_slices() -> None:
    shard = Shard(SharedMemory(1))
    queues = [shard.counts.of(f"queue-{number}") for number in range(2500)]
    for counts in queues:
        counts.add()
    assert [shard.history.collect() for _ in range(3)] == [True, True, False]
    for counts in queues:
        counts.add()
    assert shard.added() == {0: 5000}


class TestTheBusiest:
    def test_they_have_the_series_when_there_are_too_few_for_all(self) -> None:
        shard = Shard(SharedMemory(1))
        first = [f"first-{number}" for number in range(SERIES - 1)]
        shard.add(*first, jobs=2)
        shard.add("late", "busy", jobs=4)
        shard.add("busy")
        assert not shard.history.show("busy")["kept"]
        shard.now += MINUTE
        shard.add("busy")
        assert shard.added("busy") == {0: 1}  # it takes the place of one with less than half of its jobs
        assert not shard.history.show("late")["kept"]  # which it has not
        assert sum(shard.history.show(name)["kept"] for name in first) == len(first) - 1
        assert shard.added() == {MINUTE: 2 * len(first) + 9, 0: 1}

    def test_one_that_was_busy_in_the_last_hour_keeps_its_series_when_it_is_quiet(self) -> None:
        shard = Shard(SharedMemory(1))
        first = [f"first-{number}" for number in range(SERIES - 1)]
        shard.add(*first, jobs=200)
        for _ in range(30):
            shard.now += MINUTE
            shard.add("new", jobs=6)
        assert not shard.history.show("new")["kept"]
        shard.add("new")
        shard.now += MINUTE
        shard.add("new")
        assert shard.history.show("new")["kept"]  # 7 in a minute, and the others 200 in an hour

    def test_a_successor_knows_whose_series_they_are(self) -> None:
        memory = SharedMemory(1)
        shard = Shard(memory)
        names = [f"queue-{number}" for number in range(SERIES - 1)]
        shard.add(*names)
        successor = Shard(memory)
        successor.add("new", *names)
        assert not successor.history.show("new")["kept"]
        assert all(successor.added(name) == {0: 2} for name in names)

    def test_two_shards_of_a_slot_do_not_write_into_each_others_series(self) -> None:
        """One that is replaced drains while its successor serves."""
        memory = SharedMemory(1)
        old, new = Shard(memory), Shard(memory)
        names = [f"queue-{number}" for number in range(SERIES - 1)]
        old.add(*names[:20])
        new.add(*names)
        old.add(*names)
        old.add("busy", jobs=9)
        old.now += MINUTE
        old.add("busy")
        [evicted] = [name for name in names if not old.history.show(name)["kept"]]
        new.now = old.now - STEP
        new.add("busy", *names)
        assert old.added("busy") == {STEP: 1, 0: 1}
        assert not old.history.show(evicted)["kept"]
        assert old.added() == {MINUTE: 20 + 2 * len(names) + 9, STEP: 1 + len(names), 0: 1}
