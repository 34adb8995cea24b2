"""The clients of this project keep the rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.conftest import Start
from tests.conformance.judging import FEWER, broken_rules
from tests.support.node import INSTALL_TIMEOUT, find_node, installed
from tests.support.service import ROOT

HERE = Path(__file__).parent


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
    of_the_library = {"first", "pieces", "failure"}
    assert await broken_rules(command, [each for each in FEWER if each.name not in of_the_library]) == []
