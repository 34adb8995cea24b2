"""Node's BullMQ in a process of its own, and how tests talk to it (`peer.cjs`)."""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from tests.support.waiting import TIMEOUT

HERE: Final = Path(__file__).parent


class NodeError(Exception):
    """What BullMQ threw; its message is Node's."""


class Peer:
    """One Node process for all tests: starting it takes as long as two hundred calls.

    Args:
        node: the program.
        modules: the directory of the installed packages.
        connection: ioredis' options.
        prefix: of BullMQ's keys.
    """

    def __init__(self, node: str, modules: Path, connection: dict[str, Any], prefix: str) -> None:
        self._process = subprocess.Popen(
            [node, HERE / "peer.cjs", json.dumps(connection), prefix],
            env=node_environment(modules),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._asked: dict[int, Future[Any]] = {}
        self._notes: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._reader = threading.Thread(target=self._read, name="peer", daemon=True)
        self._reader.start()

    def ask(self, op: str, **members: Any) -> Any:
        """Let Node do one thing and return what came of it.

        Raises:
            NodeError: BullMQ threw.
        """
        assert self._process.stdin is not None
        answer: Future[Any] = Future()
        with self._lock:
            id = next(self._ids)
            self._asked[id] = answer
            self._process.stdin.write(json.dumps({"id": id, "op": op, **members}) + "\n")
            self._process.stdin.flush()
        return answer.result(TIMEOUT)

    def call(self, queue: str, fn: str, *args: Any) -> Any:
        """Call a function of the Queue API."""
        return self.ask("call", queue=queue, fn=fn, args=args)

    def flow(self, fn: str, *args: Any) -> Any:
        """Call a function of a FlowProducer."""
        return self.ask("flow", fn=fn, args=args)

    def watch(self, queue: str) -> Watcher:
        """Record all events of a new queue with Node's QueueEvents."""
        return Watcher(self, self.ask("watch", queue=queue))

    def work(self, queue: str, *, gated: bool = False, **options: Any) -> NodeWorker:
        """Start a Node Worker; with `gated` no job ends before its `release`."""
        return NodeWorker(self, self.ask("work", queue=queue, options=options, gated=gated))

    def notes(self, handle: int) -> queue.SimpleQueue[dict[str, Any]]:
        """What a watcher or worker says of its own accord."""
        with self._lock:
            return self._notes.setdefault(handle, queue.SimpleQueue())

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "note" in message:
                self.notes(message["note"]).put(message)
                continue
            with self._lock:
                answer = self._asked.pop(message["id"])
            if "error" in message:
                answer.set_exception(NodeError(message["error"]))
            else:
                answer.set_result(message.get("ok"))  # undefined is not in the JSON
        with self._lock:
            for answer in self._asked.values():
                answer.set_exception(RuntimeError("Node's process has ended"))


class _Running:
    """Something in the peer that goes on until its block ends."""

    def __init__(self, peer: Peer, handle: int) -> None:
        self._peer = peer
        self._handle = handle
        self._notes = peer.notes(handle)

    def __exit__(self, *_: object) -> None:
        self._peer.ask("end", handle=self._handle)


class Watcher(_Running):
    """A QueueEvents."""

    def __enter__(self) -> Watcher:
        return self

    def until(self, event: str) -> list[dict[str, Any]]:
        """All events from the first one on up to one of this name, as `{"event", "args"}`."""
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["event"] != event:
            note = self._notes.get(timeout=TIMEOUT)
            seen.append({"event": note["event"], "args": note["args"]})
        return seen


class NodeWorker(_Running):
    """A Worker."""

    def __enter__(self) -> NodeWorker:
        return self

    def started(self) -> list[str]:
        """The ids of the jobs that it has started since the last time, in order; once for each attempt."""
        self._peer.ask("flush")
        ids = []
        while not self._notes.empty():
            ids.append(self._notes.get()["started"])
        return ids

    def release(self) -> None:
        """Let gated jobs end."""
        self._peer.ask("release", handle=self._handle)


def node_environment(modules: Path) -> dict[str, str]:
    """What a Node script of these tests needs to find its packages, which lie outside of the source tree."""
    return {**os.environ, "NODE_PATH": str(modules)}
