"""The clients of this project keep the rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from bullmq_proxy.gateway.conformance.check import SCENARIOS
from tests.conformance.conftest import Start
from tests.conformance.judging import broken_rules
from tests.support.node import INSTALL_TIMEOUT, find_node, installed
from tests.support.service import ROOT

HERE = Path(__file__).parent
SEVERAL = {
    *("at-once-4002", "at-once-4003", "later-4", "later-5"),
    *(f"stop-{code}" for code in (400, 403, 404, 1002, 1003, 1007, 1008, 1009)),
}
"""Scenarios like others that are played; a Node takes its time to start."""


async def test_that_for_python_does(warm_python: Start) -> None:
    assert await broken_rules(warm_python(HERE / "python_client.py")) == []


@pytest.mark.skipif(find_node() is None, reason="node is missing: the JavaScript client is not judged")
@pytest.mark.timeout(INSTALL_TIMEOUT)
async def test_that_for_javascript_does() -> None:
    node = find_node()
    assert node is not None
    client = (ROOT / "gateway" / "pages" / "client.js").as_uri()
    ws = (installed(ROOT / "tests" / "interop") / "ws" / "wrapper.mjs").as_uri()
    command = [node, str(HERE / "javascript_client.mjs"), client, ws]
    assert await broken_rules(command, [each for each in SCENARIOS if each.name not in SEVERAL]) == []
