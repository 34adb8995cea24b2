"""Makes the pictures of README.md and docs/page.md, in docs/images: `python -m tests.console.pictures SECONDS`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.docs.markdown import README, only_block
from tests.support.browser import find_chromium
from tests.support.node import find_node, installed
from tests.support.service import ROOT, Service

HERE: Final = Path(__file__).parent
KEY: Final = "picture-key"
WORK: Final = 60  # s that the shop works before it is photographed


def main(seconds: int) -> None:
    """Serve as the README says, and let the browser take its pictures."""
    node, program = find_node(), find_chromium()
    assert node is not None and program is not None, "needs Node and Chromium"
    with (
        tempfile.TemporaryDirectory() as home,
        Service(Path(home), "--procs", "2", env={"AUTH_KEYS": KEY}) as service,
    ):
        origin = f"http://127.0.0.1:{service.port}"
        how: dict[str, Any] = {
            "modules": str(installed(HERE)),
            "program": program,
            "origin": origin,
            "keys": {"all": KEY},
        }
        worker = Path(home) / "work.py"
        text = only_block(README, "python")
        worker.write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}").replace("my-auth-key", KEY))
        how |= {"worker": [sys.executable, str(worker)]}
        command: list[str | Path] = [node, "--experimental-websocket", "--no-warnings", HERE / "pictures.mjs"]
        subprocess.run([*command, json.dumps(how), ROOT / "docs" / "images", str(seconds)], check=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else WORK)
