"""The table of cron patterns in `tests/rules` is what this Node says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.interop.peer import HERE
from tests.support.service import ROOT


def test_the_table_of_cron_patterns_is_what_node_says(node: str, modules: Path) -> None:
    command = (node, HERE / "cron_oracle.mjs", modules)
    said = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert json.loads(said) == json.loads((ROOT / "tests/rules/cron_table.json").read_text())
