"""A client of the gateway as plain as a test can read it: JSON in, JSON out."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any
from urllib.parse import quote

from websockets.sync.client import ClientConnection, connect

from tests.support.contract import check_result
from tests.support.service import Service
from tests.support.waiting import TIMEOUT


class Refused(Exception):
    """An `err`; its text is the gateway's message."""

    def __init__(self, err: dict[str, str]) -> None:
        super().__init__(err["message"])
        self.code = err["code"]


class Client:
    """One WebSocket connection; open within its block."""

    def __init__(self, url: str) -> None:
        self._connect = connect(url, max_size=None, proxy=None)
        self._socket: ClientConnection
        self._ids = itertools.count(1)

    def call(self, fn: str, *args: Any) -> Any:
        """Call a function of the Queue API and return its `ok`, which has to be what the AsyncAPI document says.

        Raises:
            Refused: the gateway answered with an error.
        """
        id = next(self._ids)
        self.send(id, fn=fn, args=args)
        reply = self.receive()
        assert reply["id"] == id, reply
        if "err" in reply["data"]:
            raise Refused(reply["data"]["err"])
        check_result(fn, reply["data"]["ok"])
        return reply["data"]["ok"]

    def send(self, id: Any, **data: Any) -> None:
        """Send one message."""
        text = json.dumps({"id": id, "data": data}, ensure_ascii=False, separators=(",", ":"))
        text = re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)  # as JavaScript writes it
        self._socket.send(text)

    def receive(self, timeout: float | None = TIMEOUT) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(self._socket.recv(timeout))
        return message

    def event(self, name: str) -> list[Any]:
        """The `args` of the next event of this name, on an Events connection."""
        return self.events_until(name)[-1]["args"]  # type: ignore[no-any-return]

    def events_until(self, name: str) -> list[dict[str, Any]]:
        """All events up to one of this name, as `{"event", "args"}`."""
        seen = [self.receive()["data"]]
        while seen[-1]["event"] != name:
            seen.append(self.receive()["data"])
        return seen

    def __enter__(self) -> Client:
        self._socket = self._connect.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._connect.__exit__(*exc)


class Gateway:
    """The running service, and its APIs."""

    def __init__(self, service: Service, key: str) -> None:
        self.service = service
        self.key = key

    def queue(self, queue: str) -> Client:
        """A Queue connection."""
        return Client(self.url(f"/queue/{quote(queue, safe='')}"))

    def worker(self, queue: str, concurrency: int, **options: str) -> Client:
        """A Worker connection."""
        return Client(self.url(f"/queue/{quote(queue, safe='')}/process/{concurrency}", **options))

    def events(self, queue: str, events: str = "*") -> Client:
        """An Events connection."""
        return Client(self.url(f"/queue/{quote(queue, safe='')}/events", events=events))

    def flows(self) -> Client:
        """A Flows connection."""
        return Client(self.url("/flows"))

    def url(self, path: str, **query: str) -> str:
        """A URL with the key in it."""
        return self.service.address(path, token=self.key, **query)
