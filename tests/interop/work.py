"""A program that processes jobs on a Worker connection, by the same rule as `peer.cjs` does with Node's Worker."""

from __future__ import annotations

import threading
from typing import Any

from websockets.exceptions import ConnectionClosed

from tests.interop.client import Client


class GatewayWorker:
    """Answers every job that is pushed, until its block ends. `data.fail`: so many attempts fail first,
    `data.hopeless`: for good; `data.park`: the job waits for its children.

    Args:
        client: a Worker connection, not opened yet.
        gated: nothing is answered before `release`.
    """

    def __init__(self, client: Client, *, gated: bool = False) -> None:
        self._client = client
        self._started: list[str] = []
        self._gate = threading.Event()
        if not gated:
            self._gate.set()
        self._thread = threading.Thread(target=self._serve, name="worker", daemon=True)

    def started(self) -> list[str]:
        """The ids of the jobs that it has started since the last time, in order; once for each attempt."""
        ids, self._started = self._started, []
        return ids

    def release(self) -> None:
        """Let gated jobs end."""
        self._gate.set()

    def _serve(self) -> None:
        held: list[dict[str, Any]] = []
        payloads: dict[int, Any] = {}
        while True:
            try:
                pushed = self._client.receive(timeout=0.05 if held else None)
            except TimeoutError:
                pushed = None
            except ConnectionClosed:
                return
            if pushed is not None and pushed["data"].get("err", {}).get("code") == "CONFLICT":
                self._client.send(pushed["id"], result={"got": payloads[pushed["id"]]})  # no children to wait for
            elif pushed is not None:
                assert pushed["data"]["type"] == "process", pushed
                payloads[pushed["id"]] = pushed["data"]["payload"]
                self._started.append(pushed["data"]["job"]["id"])
                held.append(pushed)
            if self._gate.is_set():
                for job in held:
                    self._client.send(job["id"], **_outcome(job["data"]))
                held.clear()

    def __enter__(self) -> GatewayWorker:
        self._client.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._client.__exit__(*exc)
        self._thread.join()


def _outcome(pushed: dict[str, Any]) -> dict[str, Any]:
    attempts, data = pushed["job"]["attemptsMade"], pushed["payload"]
    if attempts < data.get("fail", 0):
        message = f"no luck {attempts}"
        stack = f"Error: {message}\n    at work (work.js:1:1)"
        return {"err": {"message": message, "stack": stack, "unrecoverable": data.get("hopeless", False)}}
    return {"type": "waitChildren"} if data.get("park") else {"result": {"got": data}}
