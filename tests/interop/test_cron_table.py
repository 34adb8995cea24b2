"""The table of cron patterns in `tests/rules` is what this Node says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.interop.peer import HERE
from tests.support.service import ROOT

PARTS: Final = 4
"""Of the table, asked for side by side: Node takes 12 seconds for all of it."""


@pytest.mark.parametrize("part", range(PARTS))
def test_the_table_of_cron_patterns_is_what_node_says(node: str, modules: Path, part: int) -> None:
    command = (node, HERE / "cron_oracle.mjs", modules, str(part), str(PARTS))
    said = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    table = json.loads((ROOT / "tests/rules/cron_table.json").read_text())
    assert said == {"versions": table["versions"], "rows": table["rows"][part::PARTS]}
