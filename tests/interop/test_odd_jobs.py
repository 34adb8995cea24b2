"""A Node program writes odd texts and values everywhere: plain jobs run beside them, and what is read is equal.

What a function answers is compared with what Node answers; where Node fails, an answer of ours must still be valid.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import pytest

from tests.interop.client import Client, Gateway, Refused
from tests.interop.keyspace import differences
from tests.interop.peer import NodeError, Peer
from tests.support.waiting import TIMEOUT

PLAIN: Final = 10
TEXTS: Final = (
    "",
    " ",
    "a",
    "id \ud83d",
    "\udc80",
    "x\ud83dy\ud83d\ude00z",
    "ÿ\u2028\ufffd\ufeff",
    "\0\x01\x7f",
    "{}",
    '"',
    "\\",
    "0x10",
    "1e3",
    "NaN",
    "null",
    "__proto__",
    "é" * 300,
    "*",
)
VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    3,
    1.5,
    1e300,
    2**53 + 1,
    [],
    [1],
    ["3"],
    {},
    {"a": "\ud83d", "\udc00": 1},
    [[[[[[[[]]]]]]]],
)
OPTIONS: Final = (
    "attempts",
    "backoff",
    "lifo",
    "removeOnComplete",
    "removeOnFail",
    "keepLogs",
    "stackTraceLimit",
    "telemetry",
    "timestamp",
    "failParentOnFailure",
    "unknownOption",
)
READING: Final = (
    ("getJobs", ["waiting", "active", "completed", "failed", "delayed", "prioritized"], 0, -1, True),
    ("getRanges", ["wait", "completed", "failed", "delayed", "prioritized"], 0, -1, True),
    ("getJobCounts",),
    ("getCompleted",),
    ("getFailed",),
    ("getDelayed",),
    ("getPrioritized",),
    ("getJobSchedulers", 0, -1, True),
    ("getMetrics", "completed"),
    ("getMeta",),
    ("getGlobalConcurrency",),
)


class Odd:
    """Makes odd jobs; the same ones for a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def value(self) -> Any:
        return self._random.choice(self._random.choice((TEXTS, VALUES)))

    def text(self) -> str:
        return self._random.choice(TEXTS)

    def options(self) -> dict[str, Any]:
        chosen = self._random.sample(OPTIONS, self._random.randrange(4))
        return {name: self.value() for name in chosen}

    def jobs(self, count: int) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        for number in range(count):
            options = self.options()
            match self._random.randrange(4):
                case 0:
                    options["jobId"] = f"{self.text()}{number}x"
                case 1:
                    options["deduplication"] = {"id": f"{self.text()}{number}"}
                case 2:
                    options["delay"] = 10**9
            yield self.text(), self.value(), options


def answers(call: Callable[..., Any]) -> dict[str, Any]:
    """What each reading function says; None where it fails."""
    found: dict[str, Any] = {}
    for fn, *args in READING:
        try:
            found[fn] = call(fn, *args)
        except (NodeError, Refused):
            found[fn] = None
    return found


def comparable(answers: dict[str, Any]) -> Any:
    """Return what can be compared: half a surrogate pair is the replacement, as in UTF-8.

    Node does not find the hash of a job whose id is no UTF-8; we show it.
    """
    text = json.dumps(answers, ensure_ascii=False)
    whole = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return {
        fn: [each for each in answer if not is_odd(each)] if isinstance(answer, list) else answer
        for fn, answer in whole.items()
    }


def is_odd(item: Any) -> bool:
    """Whether a job's id was no UTF-8."""
    return isinstance(item, dict) and "\ufffd" in item.get("id", "")


@pytest.mark.parametrize("seed", range(12))
def test_plain_jobs_run_beside_odd_ones_and_all_that_is_read_is_as_in_node(
    peer: Peer, gateway: Gateway, queue: str, seed: int
) -> None:
    odd = Odd(seed)
    for name, data, options in odd.jobs(15):
        with suppress(NodeError):
            peer.call(queue, "add", name, data, options)
    with suppress(NodeError):
        peer.call(queue, "upsertJobScheduler", f"s{odd.text()}", {"every": 10**9, "offset": 0}, {"data": odd.value()})
    for number in range(PLAIN):
        peer.call(queue, "add", f"plain-{number}", {})
    with gateway.queue(queue) as client:
        compare(peer, client, queue)
        work(gateway, queue, client)
        compare(peer, client, queue)


def compare(peer: Peer, client: Client, queue: str) -> None:
    """Fail for what we say in another way than Node."""
    ours = answers(client.call)
    node = answers(lambda fn, *args: peer.call(queue, fn, *args))
    assert not (found := differences(comparable(known(node, ours)), comparable(ours))), "\n".join(found)


def known(node: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """What Node says; what we say where it fails."""
    return {fn: ours[fn] if answer is None else answer for fn, answer in node.items()}


def work(gateway: Gateway, queue: str, client: Client) -> None:
    """Let two workers take what there is, one of which fails everything that is odd, until all plain jobs are done."""
    with gateway.worker(queue, 3, confirm="1") as first, gateway.worker(queue, 3, confirm="1") as second:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            counts = client.call("getJobCounts")
            if not counts["waiting"] and not counts["active"]:
                break
            for worker, answer in ((first, {"result": 1}), (second, {"err": {"message": "no", "stack": "s"}})):
                answer_all(worker, answer)
    names = {job["name"] for job in client.call("getCompleted", 0, -1)}
    assert names >= {f"plain-{number}" for number in range(PLAIN)}


def answer_all(worker: Client, answer: dict[str, Any]) -> None:
    """Answer the jobs that have come; plain ones succeed."""
    with suppress(TimeoutError):
        while True:
            message = worker.receive(timeout=0.05)
            if message["data"].get("type") != "process":
                continue
            job = message["data"]["job"]
            worker.send(message["id"], **({"result": 1} if job["name"].startswith("plain-") else answer))
