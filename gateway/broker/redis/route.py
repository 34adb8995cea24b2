"""The way to one slot of a cluster: over the link of whatever node has the slot now.

What a node refuses because the slot is elsewhere, or on its way, goes to the right one, in its place in the line; what
comes meanwhile waits behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink, LinkOptions
from bullmq_proxy.gateway.broker.redis.errors import OF_SLOTS, REFUSALS, unavailable
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.patience import Patience
from bullmq_proxy.gateway.broker.redis.server import Server
from bullmq_proxy.gateway.broker.redis.socket import Chunk, Entry, OnPush, Setup, Sink, pack_command, resolve
from bullmq_proxy.gateway.errors import GatewayError

if TYPE_CHECKING:
    from bullmq_proxy.gateway.broker.redis.cluster import Cluster

_PAUSE: Final = 0.1  # s before what is refused for a while is sent again
_MOVES: Final = {REFUSALS[word] for word in OF_SLOTS}  # no trouble of a node
_ASKING: Final = pack_command("ASKING")


class Route:
    """The link of all queues of one slot.

    Attributes:
        slot: its number.
        link: to the node that has it.
    """

    db = 0

    def __init__(self, cluster: Cluster, slot: int, link: Link) -> None:
        self.slot = slot
        self.link = link
        self._cluster = cluster
        self._loop = asyncio.get_running_loop()
        self._held: deque[Entry] | None = None  # waits while earlier ones are on their way back
        self._back: list[Entry] = []  # refused, in order
        self._formers: list[Link] = []  # on which replies may still come
        self._asked: set[Link] = set()  # that get the slot, and execute a part of what is sent to it
        self._patience = Patience(cluster.options.backlog_timeout)
        self._must_wait = False  # before what has come back is sent again
        self._moved: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_up(self) -> bool:
        """Whether commands are sent at once."""
        return self.link.is_up

    @property
    def last_error(self) -> GatewayError:
        """The reason for the last outage, as a new exception each time."""
        return self.link.last_error

    def of(self, base: str) -> CommandLink:
        """Return the link for other keys."""
        return self._cluster.of(base)

    def executors(self) -> tuple[Link, ...]:
        """Return the links to the masters that may have executed what was answered in this moment."""
        asked = (link for link in self._asked if link is not self.link and not link.is_closed)
        return (self.link, *self._formers, *asked)

    async def wait_up(self) -> None:
        """Wait until there is a connection, to this node or to the next one."""
        while not self.is_up:
            up = asyncio.ensure_future(self.link.wait_up())
            try:
                await asyncio.wait((up, self._moved), return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()

    def sibling(self, options: LinkOptions, setup: Setup | None = None, on_push: OnPush | None = None) -> Link:
        """Make a further link to the slot, for commands that block; wherever the slot goes, it follows."""
        return Link(_SlotServer(self._cluster, self), options, setup, on_push)

    def send(self, command: bytes | list[Chunk], sink: Sink, *, decode: bool = False, replies: int = 1) -> None:
        """Send packed commands, in order with all others for this slot; see `Link.send`."""
        if self._held is None:
            self.link.send(command, sink, decode=decode, replies=replies, route=self)
        elif self._cluster.has_room(entry := (sink, decode, replies, command, self)):
            self._held.append(entry)
            self._cluster.keep(entry, 1)
        else:
            self._loop.call_soon(sink, unavailable("too many commands wait for a slot that moves"))

    def call(self, *args: Any, decode: bool = True) -> asyncio.Future[Any]:
        """Send one command and get a future of its reply; error replies raise GatewayError."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(pack_command(*args), partial(resolve, future), decode=decode)
        return future

    # Moving

    def move(self, link: Link) -> None:
        """Go on over the link of another node. What the former one has not been sent goes along."""
        if link is self.link:
            return
        former, self.link = self.link, link
        self._formers.append(former)
        former.after_all(partial(self._formers.remove, former))
        self._asked.clear()
        self._cluster.slot_moved(self, former)
        moved, self._moved = self._moved, self._loop.create_future()
        moved.set_result(None)
        unwritten = former.take(self)
        for entry in unwritten:
            self._cluster.keep(entry, 1)
        if self._held is not None:
            self._held.extendleft(reversed(unwritten))
        else:
            self._held = deque(unwritten)
            former.after_all(self._drained)

    def note(self, word: str, reply: Any) -> None:
        """Take note of what a node has said of the slot on another connection."""
        with suppress(GatewayError):
            if word == "MOVED":
                self.move(self._cluster.node_named(str(reply), self.link))
        self._cluster.look_again()

    def refused(self, entry: Entry, word: str, reply: Any) -> bool:
        """Take a command that a node did not execute; return False where its time is over."""
        if self._patience.has_ended() or self._cluster.is_closed:
            return False
        sink, decode, replies, command, _ = entry
        former = self.link
        if word in ("MOVED", "ASK"):
            try:
                node = self._cluster.node_named(str(reply), former)
            except GatewayError:
                return False
            if word == "ASK":
                self._asked.add(node)
                whole = [_ASKING, *command] if isinstance(command, list) else _ASKING + command
                node.send(whole, sink, decode=decode, replies=replies + 1, route=self)
                return True
            self.move(node)
        else:
            self._must_wait = True
        self._cluster.look_again()
        self._back.append(entry)
        if self._held is None:
            self._held = deque()
            former.after_all(self._drained)
        return True

    def _drained(self) -> None:
        """Send again what has come back, now that nothing else can come back before it."""
        if self._must_wait:
            self._must_wait = False
            self._loop.call_later(_PAUSE, self._resume)
        else:
            self._resume()

    def _resume(self) -> None:
        waiting = [*self._back, *(self._held or ())]
        for entry in self._held or ():
            self._cluster.keep(entry, -1)
        self._back, self._held = [], None
        for sink, decode, replies, command, _ in waiting:
            self.send(command, sink, decode=decode, replies=replies)


class _SlotServer(Server):
    """The node that has a slot, for one link that blocks."""

    has_slots = True
    is_found = True
    retry = 0.25

    def __init__(self, cluster: Cluster, route: Route) -> None:
        super().__init__(route.link.server.address)
        self._cluster = cluster
        self._route = route
        self._node: Server | None = None  # whose links this one is among

    async def locate(self, link: Link) -> Address:
        node = self._route.link.server
        if node is not self._node:
            await self.left(link)
            self._node = node
            node.joined(link)
        if node is self._cluster.nowhere:
            raise self._route.last_error
        self.address = node.address
        return node.address

    async def left(self, link: Link) -> None:
        if self._node is not None:
            await self._node.left(link)

    def up(self, link: Link) -> None:
        if self._node is not None:
            self._node.up(link)

    def down(self, link: Link, reason: str) -> None:
        if self._node is not None and reason not in _MOVES:
            self._node.down(link, reason)

    def silent(self, link: Link) -> None:
        if self._node is not None:
            self._node.silent(link)

    def moved(self, word: str, reply: Any) -> None:
        self._route.note(word, reply)
