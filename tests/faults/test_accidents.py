"""Each accident of the soak once, on a Redis with two gateways that all tests share; an auditor counts every job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest
import pytest_asyncio

from tests.faults.clients import OPENED
from tests.faults.soak.__main__ import serves_again
from tests.faults.soak.accidents import ACCIDENTS
from tests.faults.soak.auditor import audit, holdings, settled
from tests.faults.soak.crowd import Crowd
from tests.faults.soak.site import Site
from tests.support.waiting import eventually, stretched

pytestmark = [pytest.mark.skipif("sys.platform != 'linux'"), pytest.mark.xdist_group("accidents")]

SHORT = [
    "all links are killed",
    "all who wait are unblocked",
    "redis pauses",
    "redis forgets its scripts",
    "redis is busy",
    "no right to run scripts",
    "no right to delete",
    "redis forgets everything",
    "redis says what nobody has asked",
    "the password changes",
]
"""Those that are over soon. The others have tests of their own, and take part in `make soak`."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site"), procs=1, rigged=True) as site:
        yield site


@pytest_asyncio.fixture(autouse=True)
async def hang_up() -> AsyncIterator[None]:
    """In place of the fixture of the other fault tests, which have services of their own."""
    yield
    for connection in OPENED:
        connection.transport.abort()
        await connection.wait_closed()
    OPENED.clear()


@pytest.mark.parametrize("name", SHORT)
async def test_no_job_is_lost_or_left_behind_and_all_is_served_again_at_once(site: Site, name: str) -> None:
    queue, random = name.replace(" ", "-"), Random(name)
    crowd = Crowd(site, queue, random, ("good", "good", "vanishing", "twice"))
    try:
        crowd.start(pause=0.005, most=30)
        await eventually(lambda: len(crowd.ledger.done) > 5, "jobs are done", 20)
        await ACCIDENTS[name].strike(site, random)
        assert await serves_again(site) < stretched(2)
        await crowd.all_added()
        await settled(site, crowd.ledger, 20)
    finally:
        await crowd.close()
    account = await audit(site, crowd.ledger)
    assert account.faults == []
    assert len(crowd.ledger.added | crowd.ledger.voided) == 60


async def test_nothing_is_left_of_clients_that_have_gone(site: Site) -> None:
    """Descriptors and clients of Redis are as many as before."""
    await serves_again(site)
    before = await holdings(site)
    crowd = Crowd(site, "passing", Random(1))
    crowd.start(most=10)
    await crowd.all_added()
    await settled(site, crowd.ledger, 20)
    await crowd.close()
    for connection in OPENED:
        connection.transport.abort()
    ends = time.monotonic() + 10
    while (after := await holdings(site)).descriptors > before.descriptors + 2 or after.clients > before.clients + 2:
        assert time.monotonic() < ends, (before, after)
        await asyncio.sleep(0.05)
