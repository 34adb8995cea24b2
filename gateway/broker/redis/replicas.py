"""The replicas of a master: where `min_replicas` is set, a write is confirmed when so many of them have it.

Redis tells by WAIT, which blocks its connection. So there is a connection for it beside the link to each master. What
was written on the link is covered by one more write on that connection: whatever the master had executed before comes
before it in the stream that replicas follow. One round, a SET and a WAIT, is under way at a time, for all that wait.

What a master executes while another server has taken its place is not confirmed: its replicas follow that one. So the
round fails, or one of the two connections breaks before it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from msgspec.structs import replace

from bullmq_proxy.gateway.broker.redis.command_link import CommandLink, LinkOptions
from bullmq_proxy.gateway.broker.redis.errors import reply_error
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.socket import Entry, Sink, TwoStepSink, pack_command, resolve
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

log = logging.getLogger(__name__)

_LEFT: Final = 1000  # ms for which the key that is written is there

Mark = tuple[Link, int]
"""A link, and which of its connections counts."""

Told = Callable[[GatewayError | None], None]
"""Is told that the replicas have it, or why that is not known."""


class Masters(Protocol):
    """What leads to all masters."""

    @property
    def nodes(self) -> list[Link]:
        """The links to them."""

    def probed(self, prefix: str) -> list[tuple[CommandLink, str]]:
        """Return a key on each of them that nobody else uses, with the link to it."""


class Replicas:
    """Tells when what was written is in so many replicas."""

    def __init__(self, masters: Masters, options: LinkOptions) -> None:
        """Make it for the links to some masters; `options` are theirs."""
        self._masters = masters
        self._options = options
        self._rounds: dict[Link, _Rounds] = {}

    def hold(self, link: CommandLink, prefix: str, sink: Sink, result: Any) -> None:
        """Give a result to its sink when the replicas have what it tells of.

        Args:
            link: that its last reply has come on, in this moment.
            prefix: of the queue's keys.
            sink: takes the result, or OUTCOME_UNKNOWN; a `TwoStepSink` is told at once that Redis has executed it.
            result: of something that was written; a GatewayError is passed on at once.
        """
        if isinstance(result, GatewayError):
            sink(result)
        else:
            if isinstance(sink, TwoStepSink):
                sink.executed()
            self._wait(link.executors(), prefix, lambda error: sink(error or result))

    def mark(self, link: CommandLink) -> list[Mark]:
        """Return what `confirm` is to know of the moment before something is written in several steps."""
        return [(each, each.epoch) for each in link.executors()]

    def confirm(self, link: CommandLink, prefix: str, since: Sequence[Mark], then: Told) -> None:
        """Tell `then` when the replicas have what was written on a link since a `mark`."""
        if any(each.epoch != epoch for each, epoch in since):
            then(_unknown("another server may be the master now"))
            return
        links = dict.fromkeys((*link.executors(), *(each for each, _ in since)))
        self._wait(tuple(links), prefix, then)

    async def probe(self, prefix: str) -> None:
        """Make sure that writes can be confirmed now.

        Raises:
            GatewayError: they cannot; the text says why.
        """
        for node in self._masters.nodes:
            ended: asyncio.Future[GatewayError | None] = asyncio.get_running_loop().create_future()
            self.confirm(node, prefix, (), partial(resolve, ended))
            if (error := await ended) is not None:
                raise error

    def _wait(self, links: Sequence[Link], prefix: str, then: Told) -> None:
        left, worst = len(links), None

        def told(error: GatewayError | None) -> None:
            nonlocal left, worst
            left, worst = left - 1, worst or error
            if not left:
                then(worst)

        for link in links:
            self._rounds_of(link).wait(prefix, told)

    def _rounds_of(self, link: Link) -> _Rounds:
        rounds = self._rounds.get(link)
        if rounds is None:
            rounds = self._rounds[link] = _Rounds(link, self._options, self._key)

            async def close() -> None:
                self._rounds.pop(link, None)
                await rounds.close()

            link.on_closed.append(close)
        return rounds

    def _key(self, link: Link, prefix: str) -> str | None:
        probed = self._masters.probed(prefix)
        return next((key for way, key in probed if link in way.executors()), None)


class _Rounds:
    """Asks one master for its replicas, round after round."""

    def __init__(self, link: Link, options: LinkOptions, key: Callable[[Link, str], str | None]) -> None:
        own = replace(
            options, name=f"{options.name}:replicas", deadline=options.deadline + options.replica_timeout, backlog=1
        )
        self._link = link
        self._least = options.min_replicas
        self._timeout = options.replica_timeout
        self._key = key
        self._own = link.sibling(own)
        self._own.open()
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Told, tuple[int, int]]] = []
        self._asked: list[tuple[Told, tuple[int, int]]] = []
        self._prefix = ""
        self._is_asking = False
        self._trouble = ""

    @property
    def _epoch(self) -> tuple[int, int]:
        return self._link.epoch, self._own.epoch

    def wait(self, prefix: str, then: Told) -> None:
        """Tell `then` when the replicas have all that the master has executed until now."""
        if not self._link.is_steady:
            then(_unknown("the connection was lost"))
            return
        self._waiting.append((then, self._epoch))
        self._prefix = prefix
        if not self._is_asking:
            self._is_asking = True
            self._loop.call_soon(self._ask)

    def _ask(self) -> None:
        self._asked, self._waiting = self._waiting, []
        key = self._key(self._link, self._prefix)
        if key is None:
            self._loop.call_soon(self._answered, GatewayError(ErrorCode.INTERNAL, "the slots move"))
            return
        write = pack_command("SET", key, b"", "PX", _LEFT)
        wait = pack_command("WAIT", self._least, round(self._timeout * 1000))
        self._own.send(write + wait, self._answered, replies=2, route=self)

    def refused(self, entry: Entry, word: str, reply: Any) -> bool:
        """Leave it at the refusal: a slot has moved. What asks is not asked again, as a `Route` would."""
        return False

    def _answered(self, reply: Any) -> None:
        asked, self._asked = self._asked, []
        error = self._error(reply)
        self._note("" if error is None else error.message)
        epoch = self._epoch
        is_same = self._link.is_steady and self._own.leads_to == self._link.leads_to
        self._is_asking = bool(self._waiting)
        if self._waiting:
            self._ask()
        for then, since in asked:
            if error is None and not (is_same and since == epoch):
                then(_unknown("another server may be the master now"))
            else:
                then(error and GatewayError(error.code, error.message))

    def _error(self, reply: Any) -> GatewayError | None:
        if isinstance(reply, Exception):
            return _unknown(reply_error(reply).message)
        if reply < self._least:
            return _unknown(f"{reply} of {self._least} replicas have it after {self._timeout:g} s")
        return None

    def _note(self, trouble: str) -> None:
        if bool(trouble) != bool(self._trouble):
            text = trouble or f"{self._least} replicas have again what is written"
            log.warning("redis at %s: %s", self._link.server.shown, text)
        self._trouble = trouble

    async def close(self) -> None:
        """Disconnect; whoever waits is told that it is not known."""
        await self._own.close()


def _unknown(why: str) -> GatewayError:
    return GatewayError(
        ErrorCode.OUTCOME_UNKNOWN,
        f"It is written, but not known to be in enough replicas ({why}): a failover may lose it",
    )
