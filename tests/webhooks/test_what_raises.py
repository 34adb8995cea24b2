"""Whatever raises on a job's way through a runner: the job ends, and there is room for the next one."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import CO_COROUTINE, CO_GENERATOR
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.webhooks import breaker, runner
from bullmq_proxy.gateway.webhooks.runner import Runner
from tests.sessions.peer import until
from tests.support.waiting import eventually
from tests.webhooks.endpoint import Client, Endpoint

HERE = str(Path(runner.__file__).parent)
SETTLED = {"ended", "_leave_if_done", "_settled"}
"""Functions of the runner after the end of a job."""

NEVER = 10**9


class Boom(Exception):
    """Is raised where it hurts."""


@contextmanager
def raising_at(place: int) -> Iterator[list[str]]:
    """Let the call of this number raise, of all that code in webhooks/ makes; yields the names of what was called."""
    called: list[str] = []

    def trace(frame: FrameType, event: str, arg: Any) -> None:
        caller = frame.f_back
        if caller is None or not caller.f_code.co_filename.startswith(HERE) or _has_settled(caller):
            return
        if frame.f_code.co_flags & (CO_COROUTINE | CO_GENERATOR):  # they go on, and are closed, by calls as well
            return
        called.append(f"{caller.f_code.co_qualname} -> {frame.f_code.co_qualname}")
        if len(called) == place + 1:
            sys.settrace(None)
            raise Boom(called[-1])

    gc.disable()  # its callbacks are called wherever it collects
    sys.settrace(trace)
    try:
        yield called
    finally:
        sys.settrace(None)
        gc.enable()


def _has_settled(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in SETTLED:
            return True
        frame = frame.f_back
    return False


async def one_job(client: Client, endpoint: Endpoint, worker: Runner, status: int, place: int) -> list[str]:
    """Let the gateway have a job, and wait until neither the job nor its place is in use; return what was called."""
    endpoint.deliveries.clear()
    headers = {"Retry_After": "0"} if status == 429 else {}
    endpoint.answer(status, "{}", content_type="application/json", **headers)
    with raising_at(place) as called:
        id = await client.add("mails")
        if endpoint.deliveries or await came_or_failed(client, endpoint, id):
            endpoint.answer(204)  # should it come once more
            token = endpoint.deliveries[0].token
            await client.ask("POST", "/queue/mails/moveJobToCompleted", [id, 1, token])  # which a 202 waits for
        consumer = worker._consumer
        await eventually(
            lambda: worker.is_idle and not consumer.leases and consumer.free == 1 and consumer.taking, f"{called[-1:]}"
        )
    await client.call("mails", "removeJob", id)  # one that is delayed
    return called


async def came_or_failed(client: Client, endpoint: Endpoint, id: str) -> bool:
    """Return whether a job has come to the endpoint, once it has or cannot."""

    async def look() -> bool:
        return bool(endpoint.deliveries) or await client.call("mails", "getJobState", id) == "failed"

    await until(look, "the job is sent, or fails")
    return bool(endpoint.deliveries)


async def test_the_job_ends_and_its_place_is_free(
    gateway: Proxy, client: Client, endpoint: Endpoint, background: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "THRESHOLD", NEVER)
    await client.put("mails", endpoint.url, endpoint={"timeout": 80})
    app = gateway._app
    assert app is not None
    [(_, worker)] = await eventually(lambda: list(app.broker.roster.of("mails")), "it runs")
    assert isinstance(worker, Runner)
    tried: set[str] = set()
    for status in (200, 202, 400, 429, 503):
        await one_job(client, endpoint, worker, status, NEVER)  # what is imported, resolved and connected once is there
        calls = await one_job(client, endpoint, worker, status, NEVER)
        for place, name in enumerate(calls):
            if name not in tried:
                tried.add(name)
                await one_job(client, endpoint, worker, status, place)
                background.clear()
    assert {
        "Runner.take -> loaded_job",
        "Sender._end -> Runner._answered",
        "Runner._settle -> Settler.complete",
    } < tried
