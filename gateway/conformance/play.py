"""One scenario with one client: what the script may do, wait for and judge, and what is judged in every scenario."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, quote, unquote

from bullmq_proxy.gateway.conformance.process import KEY, KEY_FILE, QUEUE, ROLE, URL, Client
from bullmq_proxy.gateway.conformance.rules import PRODUCER, WATCHER, WORKER, Rule
from bullmq_proxy.gateway.conformance.session import Job, Session
from bullmq_proxy.gateway.conformance.socket import SUBPROTOCOL, Opening, Socket, header
from bullmq_proxy.gateway.conformance.verdicts import Verdicts

THE_KEY: Final = "kit-3f9a61c0d2"
OLD_TOKEN, FRESH_TOKEN = "kit.old.8c21e07b", "kit.fresh.51d9f36a"
_KEYS: Final = frozenset({THE_KEY, OLD_TOKEN, FRESH_TOKEN})
NAME: Final = "kit é 100%"
"""The queue's name: with a space, a character beyond ASCII, and a percent sign."""

TIMEOUT: Final = 5.0
"""Seconds for each step of a client, unless the caller says otherwise; twice as long for one that has to connect."""
MOST_TRIES: Final = 6
"""Handshakes within a second that are not too many."""

_RESTS: Final = {
    PRODUCER: ("", ""),
    WATCHER: ("/events", "/events"),
    WORKER: ("/process/CONCURRENCY", "/process/0*[1-9][0-9]*"),
}
"""The end of each role's path, behind the queue's name: for people, and as a pattern."""


class Missing(Exception):
    """What a rule asks for did not come; the message says what was seen."""


class Over(Exception):
    """The scenario cannot go on."""


class Play:
    """A client under test in one scenario.

    Attributes:
        client: its process.
        role: what it is asked to be.
        verdicts: what is seen of each rule.
        pauses: the seconds before each of its tries to connect, since the end of the connection before.
    """

    def __init__(
        self,
        command: Sequence[str],
        role: str,
        calls: str,
        verdicts: Verdicts,
        timeout: float,
        has_token: bool = False,
    ) -> None:
        """Prepare a scenario.

        Args:
            command: starts the client.
            role: what the client is asked to be.
            calls: what a producer reads.
            verdicts: take what is seen.
            timeout: seconds for each step.
            has_token: there is a token in a file, beside the key.
        """
        self.role = role
        self.verdicts = verdicts
        self._command = command
        self._calls = calls
        self._timeout = timeout
        self.pauses: list[float] = []
        self.sessions: list[Session] = []
        self._openings: deque[Opening] = deque()
        self._tries: list[float] = []
        self._sockets: list[Socket] = []
        self._refusal: tuple[int, str, int | None] = (426, "Ask for a WebSocket", None)
        self._folder = tempfile.TemporaryDirectory(prefix="check-client-") if has_token else None
        self._changed = asyncio.Event()  # set by whatever the client does
        self._last: Socket | None = None
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Play:
        self._server = await self._loop.create_server(self._socket, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        told = {URL: f"ws://127.0.0.1:{port}", KEY: THE_KEY, QUEUE: NAME, ROLE: self.role}
        if self._folder is not None:
            told[KEY_FILE] = self.put_token(OLD_TOKEN)
        self.client = Client(self._command, told, self._calls, self._changed)
        try:
            await self.client.start()
        except BaseException:
            self._server.close()
            if self._folder is not None:
                self._folder.cleanup()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.client.close()
        for socket in self._sockets:
            socket.transport.abort()
        if self._folder is not None:
            self._folder.cleanup()
        self._look_back()

    # What a script does

    async def handshake(self) -> Opening:
        """Wait for the client's next handshake.

        Raises:
            Missing: none came in time, or the client has ended.
        """
        await self.until(lambda: bool(self._openings), "it did not connect", 2 * self._timeout)
        opening = self._openings.popleft()
        if self._last is not None:
            ended_at = self._last.closed_at or opening.at
            self.pauses.append(opening.at - ended_at)
        self._last = opening.socket
        return opening

    async def opened(self, jobs: Sequence[Job] = ()) -> Session:
        """Wait for the client's next handshake, and accept it; its `welcome` lists `jobs`.

        Raises:
            Missing: none came in time, or the client has ended.
        """
        return self.accept(await self.handshake(), jobs)

    def accept(
        self, opening: Opening, jobs: Sequence[Job] = (), first: Callable[[Session], Any] | None = None
    ) -> Session:
        """Accept a handshake.

        Args:
            opening: the handshake.
            jobs: what the `welcome` lists.
            first: returns a message that comes in one piece with the answer.
        """
        options = dict(parse_qsl(opening.request.path.partition("?")[2], keep_blank_values=True))
        session = Session(opening.socket, options, self.role, self.sessions[-1] if self.sessions else None)
        self.sessions.append(session)
        greeting = session.greeting(jobs)
        if first is None:
            opening.accept()
            session.greet(greeting)
        else:
            opening.accept([*greeting, first(session)])
            session.go_on()
        return session

    def refuse(self, opening: Opening, status: int, words: str, retry_after: int | None = None) -> None:
        """Refuse a handshake, and plain requests after it."""
        self._refusal = status, words, retry_after
        opening.refuse(status, words, retry_after)

    def put_token(self, token: str) -> str:
        """Put a token where the client finds it, in place of the one before; return the path."""
        assert self._folder is not None
        path, new = Path(self._folder.name, "token"), Path(self._folder.name, "new")
        new.write_text(token)
        new.replace(path)
        return str(path)

    @contextmanager
    def judging(self, rule: Rule) -> Iterator[None]:
        """Hold a block against a rule: it is kept if that ends, and broken if something is `Missing`."""
        try:
            yield
        except Missing as missing:
            self.verdicts.broken(rule, str(missing))
            raise Over from missing
        self.verdicts.kept(rule)

    @property
    def tries(self) -> int:
        """How many handshakes the client has made."""
        return len(self._tries)

    async def until(self, condition: Callable[[], bool], seen: str, within: float | None = None) -> None:
        """Wait until a condition about what the client has sent, or printed, is true.

        Raises:
            Missing: with `seen`, and how it ended, when the time has passed or the client has ended.
        """
        within = self._timeout if within is None else within
        deadline = self._loop.time() + within
        while not condition():
            left = deadline - self._loop.time()
            if left <= 0 or self.client.ended.is_set():
                raise Missing(f"{seen} {self._why(within)}")
            await self._something(left)

    async def answered(self, session: Session, job: Job) -> dict[str, Any]:
        """Wait for a job's final answer.

        Raises:
            Missing: none came.
        """
        await self.until(lambda: bool(job.answers) or not session.is_open, f"no answer to the job {job.shown} came")
        if not job.answers:
            raise Missing(
                f"it closed the connection with {session.socket.close_code}, and did not answer the job {job.shown}"
            )
        return job.answers[0]

    async def ends(self, seen: str) -> int:
        """Wait until the client has ended, and return its exit code.

        Raises:
            Missing: with `seen`, if it has not.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self.client.ended.wait()
        except TimeoutError:
            raise Missing(f"{seen} within {self._timeout:g} s") from None
        code = self.client.exit_code
        assert code is not None
        return code

    async def _something(self, within: float) -> None:
        """Wait until the client has sent or printed something, or ended."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._changed.wait()

    def _why(self, within: float) -> str:
        if not self.client.ended.is_set():
            return f"within {within:g} s"
        said = self.client.output.strip().rpartition("\n")[2][:200]
        return f"before it ended with {self.client.exit_code}; its last words: {said or 'none'}"

    # What every scenario judges

    def _socket(self) -> Socket:
        socket = Socket(self._opened, partial(self.verdicts.broken, Rule.PATH), self._changed)
        self._sockets.append(socket)
        return socket

    def _opened(self, opening: Opening) -> None:
        if not opening.is_handshake:
            opening.refuse(*self._refusal)
            self._last = opening.socket  # the client knows only now what it has to wait for
            return
        self._tries.append(opening.at)
        self.verdicts.came.add(self.role)
        self._look_at_target(opening)
        self._openings.append(opening)

    def _look_at_target(self, opening: Opening) -> None:
        path = opening.request.path.partition("?")[0]
        shown, rest = _RESTS[self.role]
        asked = re.fullmatch(rf"(?:/ws)?/queues?/([^/+]*){rest}/?", path)
        is_right = asked is not None and path.isascii() and unquote(asked[1]) == NAME
        self.verdicts.judge(Rule.PATH, is_right, f"it asked for {path}, not for /queue/{quote(NAME, safe='')}{shown}")
        self.verdicts.judge(Rule.KEY, key_of(opening) in _KEYS, "a handshake came without the key")

    def _look_back(self) -> None:
        printed = any(key in self.client.output for key in _KEYS)
        self.verdicts.judge(Rule.SECRET, not printed, "it printed its key")
        busiest = max((sum(0 <= each - at < 1 for each in self._tries) for at in self._tries), default=0)
        self.verdicts.judge(Rule.STORM, busiest <= MOST_TRIES, f"it made {busiest} handshakes within a second")
        if self._tries:
            trouble = next((socket.trouble for socket in self._sockets if socket.trouble), None)
            self.verdicts.judge(Rule.FRAMES, trouble is None, trouble or "")
        for session in self.sessions:
            for rule, seen in session.wrong():
                self.verdicts.judge(rule, seen is None, seen or "")


def key_of(opening: Opening) -> str | None:
    """Return the key that a handshake shows; None if it shows none, or not as is right."""
    headers, query = opening.request.headers, parse_qsl(opening.request.path.partition("?")[2])
    scheme, _, shown = header(headers, "Authorization").partition(" ")
    if scheme == "Bearer":
        return shown
    name, _, offered = header(headers, "Sec-WebSocket-Protocol").partition(",")
    if name.strip() == SUBPROTOCOL and offered.strip().startswith("bearer."):
        return offered.strip().removeprefix("bearer.")
    return dict(query).get("token")


def over(seen: str) -> NoReturn:
    """End a block of a script with what was seen."""
    raise Missing(seen)
