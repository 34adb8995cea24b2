"""Node's BullMQ on the embedded Valkey, through the socket that the log names: the example of docs/redis.md."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from websockets.sync.client import connect

from tests.docs.markdown import only_block
from tests.support.service import ROOT, Service
from tests.support.waiting import TIMEOUT


def test_a_job_of_node_is_seen_through_the_gateway(
    node: str, modules: Path, service: Callable[..., Service], tmp_path: Path
) -> None:
    running = service("--procs", "1").start()
    [socket] = re.findall(r"embedded Valkey runs with .*, socket (\S+)$", running.errors, re.MULTILINE)
    text, shown = only_block(ROOT / "docs" / "redis.md", "js"), "${homedir()}/.local/share/bullmq-proxy/valkey.sock"
    assert shown in text
    program = tmp_path / "add.mjs"
    program.write_text(text.replace(shown, socket))
    (tmp_path / "node_modules").symlink_to(modules)
    added = subprocess.run([node, program], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert added.stdout == "added job 1\n"
    with connect(running.address("/queue/mails")) as queue:
        queue.send('{"id":1,"data":{"fn":"getJob","args":["1"]}}')
        assert json.loads(queue.recv(TIMEOUT))["data"]["ok"]["data"] == {"to": "ada@example.org"}
