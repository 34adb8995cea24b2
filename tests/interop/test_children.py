"""What becomes of a parent whose children do not allow its answer: with Node's Worker, and with one of ours."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.interop.client import Gateway
from tests.interop.keyspace import differences, renamed
from tests.interop.peer import NodeWorker, Peer
from tests.interop.scenarios.steps import FLAGS, TOKEN
from tests.interop.work import GatewayWorker
from tests.support.waiting import wait_for

CASES: Final = [
    (False, None),
    *((True, reaction) for reaction in (None, *FLAGS)),
]
"""Whether the child fails, and what that means to its parent."""


@pytest.mark.parametrize("park", [False, True], ids=["is completed", "waits for them"])
@pytest.mark.parametrize(("fails", "reaction"), CASES)
def test_the_parent_ends_alike(
    gateway: Gateway, peer: Peer, queue: str, park: bool, reaction: str | None, fails: bool
) -> None:
    node, ours = f"{queue}-n", f"{queue}-g"
    seen = [
        ended(peer, node, peer.work(node, gated=True), park, reaction, fails),
        ended(peer, ours, GatewayWorker(gateway.worker(ours, 1), gated=True), park, reaction, fails),
    ]
    for name in (node, ours):
        peer.ask("forget", queue=name)
    assert differences(*seen) == []


def ended(
    peer: Peer, queue: str, worker: NodeWorker | GatewayWorker, park: bool, reaction: str | None, fails: bool
) -> Any:
    """The parent after its worker has answered; its traces are those of different programs."""
    parent = {"id": "mother", "queue": f"bull:{queue}"}
    flags = {} if reaction is None else {reaction: True}
    peer.call(queue, "add", "mother", {"park": park}, {"jobId": "mother", "attempts": 3})
    with worker:
        wait_for(lambda: worker.started() == ["mother"], "the worker has it")
        peer.call(queue, "add", "child", {}, {"jobId": "child", "parent": parent, **flags})
        if fails:
            peer.ask("take", queue=queue, token=TOKEN)
            peer.ask("fail", queue=queue, job="child", token=TOKEN, message="boom", unrecoverable=True)
        else:
            peer.ask("redis", queue=queue, command=["DEL", "wait"])  # or the worker would do it next
        worker.release()
        wait_for(lambda: peer.call(queue, "getJobState", "mother") not in ("active", "waiting"), "it has answered")
    job = peer.call(queue, "getJob", "mother")
    state = peer.call(queue, "getJobState", "mother")
    return renamed({"state": state, **job, "stacktrace": len(job["stacktrace"])}, queue, "QUEUE")
