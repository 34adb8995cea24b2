"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from bullmq_proxy.gateway import log_events
from tests.support.ports import free_port
from tests.support.relay import Relay
from tests.support.service import ROOT, Service
from tests.support.valkey import ValkeyProcess

# A machine that is busy with the other test processes is no fault of what is tested. Each run makes other examples:
# CI, for which nobody waits, makes more of them.
_EXAMPLES = 100 if os.environ.get("CI") else 40
settings.register_profile(
    "patient", max_examples=_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


def pytest_configure() -> None:
    """Let Ctrl-C end what tests start, also where a shell has started the tests in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_FIRST = ("supervisor", "faults", "interop", "benchmarks", "console", "conformance", "test_owners.py")
_LAST = ("access", "rules", "schema", "values", "wire")
_MANY = 30  # tests: a file with so many lists cases, of which none takes long


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in its own hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the groups, which are long, then with the tests that mostly wait; end with the shortest ones.

    Short ones fill the gaps, and nobody waits for a last long one. Those that ask Node go to two of the processes, for
    each needs a Node and a service of its own for them; those that do not mostly wait go file by file.
    """
    count = Counter(item.path for item in items)
    places = {path: path.relative_to(ROOT).parts for path in count}

    def turn(item: pytest.Item) -> int:
        if item.get_closest_marker("xdist_group") is not None:
            return 0
        parts = places[item.path]
        if count[item.path] < _MANY and any(part in _FIRST for part in parts):
            return 1
        return 3 if parts[1] in _LAST else 2

    for item in items:
        if "peer" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(f"node-{len(item.name) % 2}"))
    items.sort(key=turn)
    for item in items:
        if turn(item) > 1:
            item.add_marker(pytest.mark.xdist_group("/".join(places[item.path])))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for garbage neither while tests are imported nor ever again among what the imports have made."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """One running server for all tests of this process, emptied after each of them."""
    with ValkeyProcess(tmp_path_factory.mktemp("valkey"), extra_args=["--appendonly", "no"]) as server:
        yield server


@pytest.fixture(autouse=True)
def empty_valkey(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove what a test leaves in the shared server: scans of the next tests would go through it."""
    server: ValkeyProcess | None = request.getfixturevalue("valkey") if "valkey" in request.fixturenames else None
    yield
    if server is not None:
        server.empty()


@pytest.fixture(autouse=True)
def no_lines_yet() -> None:
    """Let no lines in the log of an earlier test count when those of the next one are sampled."""
    log_events._sampler = log_events._Sampler()  # type: ignore[misc]


@pytest.fixture
async def relay(valkey: ValkeyProcess) -> AsyncIterator[Relay]:
    """Stand before the shared server."""
    async with Relay(valkey) as relay:
        yield relay


@pytest.fixture
def prefix() -> str:
    """A prefix for BullMQ's keys, or a part of a name, that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def port() -> int:
    """A free TCP port."""
    return free_port()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Make services that end with the test: `service("--procs", "2").start()`."""
    made: list[Service] = []

    def make(*arguments: str, **how: Any) -> Service:
        made.append(Service(tmp_path / f"service-{len(made)}", *arguments, **how))
        return made[-1]

    yield make
    for each in made:
        each.close()
