"""A small client that is right, but for one fault: `FAULT=key-printed python faulty.py`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

FAULT = os.environ.get("FAULT", "")
KEY, KEY_FILE = os.environ["BULLMQ_KEY"], os.environ.get("BULLMQ_KEY_FILE")
TOKEN = Path(KEY_FILE).read_text() if KEY_FILE else KEY
PATH = f"/queue/{(quote_plus if FAULT == 'path-of-a-form' else quote)(os.environ['BULLMQ_QUEUE'], safe='')}"
STOP = {400, 401, 403, 404, 1002, 1003, 1007, 1008, 1009, 4000, *range(4500, 4506)} - (
    {4000} if FAULT == "stays-after-4000" else set()
)
PAUSE = 0.5 if FAULT in ("lockstep", "pauses-alike") else 0.15  # s; what a busy machine adds to long ones is little


def shown_key() -> str:
    """Return the key to show, or a token."""
    return Path(KEY_FILE).read_text() if KEY_FILE and FAULT != "token-kept" else TOKEN


class Stopped(Exception):
    """The gateway wants no more of this client."""


class Link:
    """A connection that is made again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.tries = 0
        self.socket: ClientConnection | None = None

    async def connect(self) -> ClientConnection:
        """Try until there is a connection."""
        size = 2**20 if FAULT == "small-messages" else None
        while True:
            try:
                key = shown_key()
                headers = {} if FAULT == "key-unshown" else {"Authorization": f"Bearer {key}"}
                url = os.environ["BULLMQ_URL"] + self.path
                self.socket = await connect(
                    url, additional_headers=headers, max_size=size, compression=None, proxy=None
                )
                return self.socket
            except InvalidStatus as refusal:
                words = (refusal.response.body or b"").decode()
                least = float(refusal.response.headers.get("Retry-After", "0"))
                await self.pause(refusal.response.status_code, words, 0.0 if FAULT == "retry-after-unread" else least)
            except OSError as error:
                await self.pause(0, str(error))

    async def pause(self, code: int, words: str, least: float = 0.0) -> None:
        """Wait before the next try, or stop."""
        if code in STOP:
            raise Stopped("" if FAULT == "words-hidden" else f"{code} {words}")
        pause = PAUSE * 2 ** (0 if FAULT == "pauses-alike" else self.tries)
        pause *= random.uniform({"lockstep": 1, "pauses-alike": 0.95}.get(FAULT, 0.6), 1)
        if code in (1001, 4002, 4003, 4004) and (not self.tries or FAULT == "storm"):
            pause = 1.5 if FAULT == "late-after-1001" else 0
        self.tries += 1
        await asyncio.sleep(max(least, 0 if FAULT == "no-pause" else pause))


class Worker:
    """Works on jobs."""

    def __init__(self) -> None:
        self.secret = ""
        self.jobs: dict[Any, Any] = {}
        self.answers: dict[Any, Any] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.link = Link("")
        self.closing = False
        self.ready = False  # messages about jobs can be sent
        self.seen: set[str] = set()

    async def run(self) -> None:
        """Work until SIGTERM."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.close)
        while not self.closing:
            consumer = f"&consumer={self.secret}" if self.secret and FAULT != "consumer-forgotten" else ""
            self.link.path = f"{PATH}/process/10?grace=5000&confirm=1{consumer}"
            socket = await self.link.connect()
            try:
                while True:
                    await self.take(json.loads(await socket.recv()))
            except ConnectionClosed:
                self.ready = False
                await self.link.pause(socket.close_code or 1006, socket.close_reason or "")

    def close(self) -> None:
        """End when the jobs are done."""
        if FAULT == "dies-on-term":
            os._exit(0)
        self.closing = True
        self.end_if_idle()

    def end_if_idle(self) -> None:
        """End if nothing is in hand."""
        if self.closing and not self.jobs and FAULT != "deaf-to-term":
            os._exit(0)

    async def send(self, id: Any, data: Any) -> None:
        """Send a message if there is a connection."""
        text = json.dumps({"id": id, "data": data})
        assert self.link.socket is not None
        try:
            await self.link.socket.send(text.encode() if FAULT == "binary" else text)
        except ConnectionClosed:
            return

    async def take(self, message: Any) -> None:
        """Take a message."""
        id, data = message["id"], message["data"]
        kind = data.get("type")
        if kind == "process" and FAULT == "jobs-known-forever" and str(data["payload"]) in self.seen:
            return
        if kind == "process":
            self.seen.add(str(data["payload"]))
            self.jobs[id] = data["payload"]
            task = asyncio.create_task(self.work(id, data["payload"]))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif kind == "welcome":
            self.secret, self.ready = data["consumer"], True
            kept = [job["number"] for job in data["jobs"]]
            for number in kept:
                if number not in self.jobs and FAULT != "strangers-kept":
                    await self.send(number, {"type": "release"})
                elif number in self.answers and FAULT != "answers-not-kept":
                    await self.send(number, self.answers[number])
            for number in [each for each in self.jobs if each not in kept]:
                if FAULT != "old-answers":
                    self.forget(number)
                elif number in self.answers:
                    await self.send(number, self.answers[number])
        elif kind in ("finished", "lost") or (kind == "cancel" and FAULT != "answers-cancelled"):
            if kind == "lost" and FAULT == "dies-of-lost":
                raise SystemExit(1)
            self.forget(id)
        elif kind == "drain" and FAULT == "leaves-on-drain":
            self.jobs.clear()
            await self.link.socket.close()  # type: ignore[union-attr]
        elif kind not in ("cancel", "drain", None) and FAULT == "unknown-kills":
            raise SystemExit(f"what is {kind}?")

    def forget(self, id: Any) -> None:
        """Drop a job."""
        self.jobs.pop(id, None)
        self.answers.pop(id, None)
        self.end_if_idle()

    async def work(self, id: Any, payload: Any) -> None:
        """Do what a job's data says."""
        if FAULT != "ack-now-and-then" or "wait" not in payload:
            await self.send(id, {"type": "ack"})
        if FAULT == "blocks":
            time.sleep(payload.get("wait", 0) / 1000)  # noqa: ASYNC251 - the fault
        else:
            await asyncio.sleep(payload.get("wait", 0) / 1000)
        if "fail" in payload:
            answer = {"result": None} if FAULT == "failures-hidden" else {"err": {"message": payload["fail"]}}
        else:
            text = (
                {**payload, "text": payload["text"].encode("ascii", "replace").decode()}
                if "text" in payload
                else payload
            )
            answer = {"result": text if FAULT == "ascii" else payload}
        if id in self.jobs:
            self.answers[id] = answer
            if not self.ready:
                return
            await self.send(int(id) if FAULT == "number-ids" else id, answer)
            if FAULT == "answers-twice":
                await self.send(id, answer)


async def produce() -> None:
    """Make the calls of the standard input, one after the other."""
    link = Link(PATH)
    socket = await link.connect()
    number = 0
    for line in sys.stdin:
        call = json.loads(line)
        is_safe = (call["fn"] == "add" and FAULT != "add-not-repeated") or FAULT == "all-repeated"
        while True:
            number += 1
            try:
                await socket.send(json.dumps({"id": number, "data": call}))
                reply: Any = None
                while reply is None or reply["id"] != number:
                    reply = json.loads(await socket.recv())
                    if FAULT == "any-reply":
                        break
                answer = reply["data"]
                break
            except ConnectionClosed:
                answer = {"err": {"code": "OUTCOME_UNKNOWN", "message": "the connection broke"}}
                await link.pause(socket.close_code or 1006, socket.close_reason or "")
                socket = await link.connect()
                if not is_safe:
                    break
        if "err" in answer and FAULT == "errors-swallowed":
            answer = {"ok": None}
        print(json.dumps(answer), flush=True)
    raise SystemExit(1 if FAULT == "ends-with-1" else 0)


async def watch() -> None:
    """Print the events until SIGTERM."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    link, last, numbers = Link(""), "", set[int]()
    while True:
        shown = last and FAULT != "resume-forgotten"
        link.path = f"{PATH}/events{f'?lastEventId={last}' if shown else ''}"
        socket = await link.connect()
        try:
            while True:
                message = json.loads(await socket.recv())
                data = message["data"]
                if FAULT == "numbers-once" and message["id"] in numbers:
                    continue
                numbers.add(message["id"])
                if "event" not in data or (not data.get("args") and FAULT != "args-needed"):
                    continue
                id, is_gap = data["args"][-1], data["event"] == "gap"
                if FAULT == "ids-as-texts" and not is_gap and id < last:
                    continue
                if not is_gap and not (FAULT == "resumes-from-first" and last):
                    last = id
                elif is_gap and FAULT == "gap-for-an-event":
                    last = id["to"]
                if not (is_gap and FAULT == "gap-swallowed"):
                    print(json.dumps(data), flush=True)
        except ConnectionClosed:
            await link.pause(socket.close_code or 1006, socket.close_reason or "")


async def be(role: str) -> None:
    """Do what a client of a role does."""
    await (Worker().run() if role == "worker" else watch() if role == "watcher" else produce())


if __name__ == "__main__":
    if FAULT == "key-printed":
        print("connecting with", KEY, file=sys.stderr)
    try:
        asyncio.run(be(os.environ["BULLMQ_ROLE"]))
    except Stopped as stopped:
        raise SystemExit(f"stopped: {stopped}") from None
