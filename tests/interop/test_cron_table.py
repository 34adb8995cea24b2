"""The table of cron patterns in `tests/rules` is what this Node says."""

from __future__ import annotations

import json

import pytest

from tests.interop.peer import HERE
from tests.support.node import answer
from tests.support.service import ROOT


@pytest.mark.usefixtures("node")
def test_the_table_of_cron_patterns_is_what_node_says() -> None:
    table = json.loads((ROOT / "tests/rules/cron_table.json").read_text())
    assert answer(HERE / "cron_oracle.mjs", HERE) == table
