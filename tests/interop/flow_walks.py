"""Random flows on two pairs of queues, while jobs of theirs are worked on, removed, and added again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.interop.scenarios.steps import BRANCH, FLAGS, LATER, TOKEN, Call, Work, call, flow

# A job's children are of a later level: BullMQ's scripts do not survive a job among its own ancestors.
_LEVELS: Final = (("a0", "a1", "a2"), ("b0", "b1", "b2", "b3"), ("c0", "c1", "c2"), ("d0", "d1", "d2"))

_OPTIONS: Final[dict[str, tuple[float, tuple[Any, ...]]]] = {
    "attempts": (0.2, (0, 2)),
    "delay": (0.1, (0, LATER)),
    "lifo": (0.1, (True,)),
    "priority": (0.2, (0, 1, 5)),
    "removeOnComplete": (0.2, (True, 1)),
    "removeOnFail": (0.1, (True,)),
    "stackTraceLimit": (0.1, (1,)),
    "timestamp": (0.05, (1_650_000_000_000,)),
}


def _branch(id: str) -> str:
    """A job is always of the same queue."""
    return BRANCH if id[1] in "13" else ""


class FlowWalk:
    """An endless random walk.

    Args:
        seed: the same one gives the same walk.
        active: asks for the jobs that a worker holds now, by the queue's branch.
    """

    def __init__(self, seed: int, active: Callable[[str], list[str]]) -> None:
        self._random = random.Random(seed)
        self._active = active

    def steps(self) -> Iterator[Call | Work]:
        """One step after the other."""
        kinds = (self._add, self._bulk, self._work, self._read, self._remove)
        while True:
            [kind] = self._random.choices(kinds, (20, 5, 35, 10, 10))
            yield kind()

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _id(self, least: int = 0) -> str:
        return self._random.choice(self._random.choice(_LEVELS[least:]))

    def _node(self, level: int, id: str) -> dict[str, Any]:
        options: dict[str, Any] = {
            name: self._random.choice(values)
            for name, (probability, values) in _OPTIONS.items()
            if self._chance(probability)
        }
        options["jobId"] = id
        if self._chance(0.3):
            options[self._random.choice(FLAGS)] = True
        children = []
        if level + 1 < len(_LEVELS):
            below = self._random.randint(level + 1, len(_LEVELS) - 1)
            for child in self._random.sample(_LEVELS[below], self._random.randint(0, 3)):
                children.append(self._node(below, child))
        return {"name": id, "queueName": f"NAME{_branch(id)}", "data": {}, "opts": options, "children": children}

    def _root(self) -> dict[str, Any]:
        level = self._random.randint(0, len(_LEVELS) - 1)
        node = self._node(level, self._random.choice(_LEVELS[level]))
        if level and self._chance(0.3):
            parent = self._random.choice(_LEVELS[self._random.randint(0, level - 1)])
            node["opts"]["parent"] = {"id": parent, "queue": f"QUEUE{_branch(parent)}"}
        return node

    def _add(self) -> Call:
        return flow("add", self._root())

    def _bulk(self) -> Call:
        return flow("addBulk", [self._root() for _ in range(self._random.randint(0, 3))])

    def _work(self) -> Work:
        branch = self._random.choice(("", BRANCH))
        active = self._active(branch)
        if not active or self._chance(0.4):
            return Work("take", {"token": TOKEN}, branch=branch)
        job = {"job": self._random.choice(active), "token": TOKEN}
        if self._chance(0.7):
            return Work("complete", {**job, "value": 1}, branch=branch, may_fail=True)
        failure = {"message": "no luck", "unrecoverable": self._chance(0.5)}
        return Work("fail", {**job, **failure}, branch=branch, may_fail=True)

    def _read(self) -> Call:
        id = self._id()
        query: dict[str, Any] = {"queueName": f"NAME{_branch(id)}", "id": id}
        if self._chance(0.3):
            query["depth"] = self._random.randint(1, 4)
        return flow("getFlow", query)

    def _remove(self) -> Call | Work:
        id = self._id()
        args = [id, {"removeChildren": self._chance(0.3)}]
        if _branch(id):
            return Work("call", {"fn": "remove", "args": args}, branch=BRANCH)
        return call("remove", *args)
