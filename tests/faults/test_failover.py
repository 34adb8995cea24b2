"""Real sentinels put a replica into the master's place, and the gateway goes on there."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.sessions.peer import Gateway
from tests.support.load import load
from tests.support.sentinel import Sentinels
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels(tmp_path_factory.mktemp("sentinels")) as started:
        yield started


@pytest.fixture
def sentinels(started: Sentinels) -> Sentinels:
    """Begin when what the test before did to them is over."""
    started.await_follower()
    return started


async def test_a_frozen_master_that_goes_on_confirms_nothing_that_only_it_has(
    sentinels: Sentinels, prefix: str
) -> None:
    async with Gateway(sentinels.url, prefix=prefix, min_replicas=1) as gateway:
        async with load(gateway) as jobs:
            before = sentinels.master
            before.freeze()
            await eventually(lambda: sentinels.master is not before, "the sentinels have another master", 20.0)
            before.thaw()
            await jobs.goes_on()
        assert jobs.refused.keys() <= {"OUTCOME_UNKNOWN"}


async def test_a_failover_by_hand_is_heard_of_by_nobody(sentinels: Sentinels, prefix: str) -> None:
    async with Gateway(sentinels.url, prefix=prefix, queue_links=1) as gateway:
        async with load(gateway) as jobs, load(gateway, "sleeping"):
            before = sentinels.master
            with sentinels.writes_paused():
                await asyncio.to_thread(sentinels.fail_over)
                await eventually(lambda: sentinels.master is not before, "the sentinels have another master")
                await jobs.goes_on()
        assert not jobs.refused["REDIS_UNAVAILABLE"]


async def test_a_start_does_not_fail_by_a_sentinel_that_is_frozen(sentinels: Sentinels, prefix: str) -> None:
    first = sentinels.sentinels[0]
    first.freeze()
    try:
        async with Gateway(sentinels.url, prefix=prefix) as gateway:
            assert await gateway.ready() == (200, "")
    finally:
        first.thaw()


async def test_a_sentinel_whose_host_is_gone_delays_nobody_for_long(sentinels: Sentinels, prefix: str) -> None:
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        gone.listen(0)  # takes one connection, and leaves the packets of others unanswered, as a host does that is gone
        with socket.create_connection(gone.getsockname()):
            url = f"redis+sentinel://127.0.0.1:{gone.getsockname()[1]},{sentinels.url.partition('://')[2]}"
            async with Gateway(url, prefix=prefix) as gateway:  # within `redis_start_timeout`, 3 seconds
                assert await gateway.ready() == (200, "")


async def test_a_master_that_dies_takes_nothing_along_that_was_replicated(
    sentinels: Sentinels, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    async with Gateway(sentinels.url, prefix=prefix) as gateway:
        async with load(gateway) as jobs:
            with sentinels.writes_paused():
                sentinels.master.kill()
            await jobs.goes_on()
        assert not jobs.refused["REDIS_UNAVAILABLE"]
    *_, seconds = re.findall(
        r"mymaster/0: connected again after (\S+) s", caplog.text
    )  # on a busy machine the first new link may break again
    assert float(seconds) < time.monotonic() - began
