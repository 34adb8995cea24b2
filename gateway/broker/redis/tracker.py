"""What the server tells unasked, on one connection: changes of any number of keys, and messages of channels.

BZPOPMIN or XREAD cost a connection for each queue; with many keys in one command each change costs a search through all
of them (0.5 ms for 256 keys, 2.8 ms for 1,024). The server's tracking of keys for client-side caching costs one message
for each change, however many keys there are (0.08 ms, Redis 6 or newer).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import hiredis
from msgspec.structs import replace

from bullmq_proxy.gateway.broker.redis.cluster import Cluster
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink, LinkOptions
from bullmq_proxy.gateway.broker.redis.errors import reply_error
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.route import Route
from bullmq_proxy.gateway.broker.redis.socket import Entry, pack_command, resolve
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.text import bytes_of

log = logging.getLogger(__name__)

NAME: Final = ":tracker"
"""The end of the names of trackers' connections."""


def channel(name: str, connection: str) -> str:
    """Return the channel that a connection listens to while it waits on behalf of `name`: so others can see that."""
    return f"{name}@{connection}"


Hear = Callable[[bytes], None]
"""Takes what was published on a channel."""


class Tracker:
    """Tells of changes to keys that were read on its connection; each is told once, until the key is read again.

    It also hands on what is published on the channels that somebody listens to.

    Attributes:
        is_refused: the server has no such tracking, or does not let us use it.
    """

    def __init__(self, link: CommandLink, options: LinkOptions, *, tracks: bool = True) -> None:
        """Make a tracker beside the command link; it connects when it is first used.

        Args:
            link: for commands.
            options: of that link.
            tracks: False where it is for messages alone: one connection hears nothing of the keys of other nodes.
        """
        self.is_refused = not tracks
        own = replace(options, name=f"{options.name}{NAME}")
        self._link = link.sibling(own, setup=self._begin_tracking, on_push=self._pushed)
        self._link.on_up += (self._all_changed, self._show_all, self._listen_to_all)
        self._changes: dict[bytes, tuple[asyncio.Future[None], CommandLink]] = {}
        self._slots: dict[bytes, CommandLink] = {}  # of nodes: channels that end when their slot leaves it
        self._shown: set[str] = set()
        self._hears: dict[bytes, Hear] = {}  # by channel
        self._may_hear = True  # the connection speaks RESP3, in which messages can be told from replies
        self._id = ""  # of the connection
        self._started = False

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, and changes are told on it."""
        return self._link.is_up and not self.is_refused

    @property
    def times_up(self) -> int:
        """How many connections were made so far."""
        return self._link.times_up

    @property
    def has_slots(self) -> bool:
        """Whether it is connected to the node of a cluster that has a slot, so that channels are of that slot, too."""
        return self._link.server.has_slots

    def open(self) -> None:
        """Connect, unless it does so already."""
        if not self._started:
            self._started = True
            self._link.open()

    async def close(self) -> None:
        """Disconnect."""
        if self._started:
            await self._link.close()

    def expect(self, key: str, link: CommandLink) -> asyncio.Future[None]:
        """Return a future that ends when the key has changed after it was next read by `call`.

        It also ends when the connection is made again, since changes may have been missed, and when the slot of `link`,
        that of the key, has moved. The key is to be read behind this call: what changed before that is in what is read.
        Whoever waits no longer tells it by `forget`.
        """
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes[bytes_of(key)] = (change, link)
        if self.has_slots and self.is_up and bytes_of(key) not in self._slots:
            self._slots[bytes_of(key)] = link
            self._link.send(pack_command("SSUBSCRIBE", key), _ignore, route=_Reader(link))
        return change

    def forget(self, key: str, change: asyncio.Future[None]) -> None:
        """Drop what `expect` has returned for the key."""
        if self._changes.get(bytes_of(key), (None,))[0] is change:
            del self._changes[bytes_of(key)]

    def call(self, commands: bytes, replies: int, link: CommandLink) -> asyncio.Future[Any]:
        """Send packed commands and get a future of the last one's reply, as RESP3 has it; error replies raise.

        Args:
            commands: in Redis protocol.
            replies: how many they are.
            link: of their slot; it hears where that has gone.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        route = _Reader(link) if self.has_slots else None
        self._link.send(commands, partial(resolve, future), replies=replies, route=route)
        return future

    def slot_moved(self, link: CommandLink) -> None:
        """Let those go on whose slot is on another node now; `link` is that of the slot."""
        for key, (change, of) in list(self._changes.items()):
            if of is link:
                del self._changes[key]
                resolve(change, None)
        self._slots = {key: of for key, of in self._slots.items() if of is not link}

    def show(self, name: str) -> None:
        """Let others see that somebody waits here on behalf of `name`, as a connection of that name would."""
        self._shown.add(name)
        if self.is_up:
            self.send(pack_command("SUBSCRIBE", channel(name, self._id)))

    def hide(self, name: str) -> None:
        """Show it no more."""
        if name in self._shown:
            self._shown.remove(name)
            if self.is_up:
                self.send(pack_command("UNSUBSCRIBE", channel(name, self._id)))

    def _show_all(self) -> None:
        for name in tuple(self._shown):
            self.show(name)

    def listen(self, channel: str, hear: Hear) -> None:
        """Give `hear` what is published on a channel from now on; what is while the connection is down is missed."""
        self._hears[bytes_of(channel)] = hear
        self._subscribe(bytes_of(channel))

    def _listen_to_all(self) -> None:
        self._slots.clear()
        for name in self._hears:
            self._subscribe(name)

    def _subscribe(self, name: bytes) -> None:
        """Listen to a channel; on a cluster at the node that has its slot, to which the link moves."""
        if self._link.is_up and self._may_hear:
            command = "SSUBSCRIBE" if self.has_slots else "SUBSCRIBE"
            self._link.send(pack_command(command, name), _subscribed)

    def send(self, command: bytes) -> None:
        """Send a packed command behind all others, and expect no reply."""
        self._link.send(command, _ignore)

    async def _begin_tracking(self, ask: Callable[..., Awaitable[Any]]) -> None:
        self._may_hear = False
        try:
            self._id = str((await ask("HELLO", "3"))["id"])
            self._may_hear = True
            await ask("CLIENT", "TRACKING", "ON", "NOLOOP")
        except GatewayError as error:
            if error.code is ErrorCode.REDIS_UNAVAILABLE:
                raise
            self.is_refused = True
            log.info("redis does not track keys (%s): each queue gets a connection of its own", error)

    def _pushed(self, message: list[Any]) -> None:
        """Take note of changed keys, `[b"invalidate", keys]`, where None stands for all of them; hand on messages."""
        if message[0] == b"sunsubscribe":  # the slot has moved
            if message[1] in self._hears:
                self._subscribe(message[1])
            elif (link := self._slots.get(message[1])) is not None:
                self.slot_moved(link)
            return
        if message[0] in (b"message", b"smessage"):
            if (hear := self._hears.get(message[1])) is not None:
                hear(message[2])
            return
        keys = message[1]
        if keys is None:
            self._all_changed()
            return
        for key in keys:
            if (expected := self._changes.pop(key, None)) is not None:
                resolve(expected[0], None)

    def _all_changed(self) -> None:
        changes, self._changes = self._changes, {}
        for change, _ in changes.values():
            resolve(change, None)


class _Reader:
    """What is read of a slot on a shared connection: where it has gone is told to the slot's `Route`, and no more."""

    def __init__(self, link: CommandLink) -> None:
        self._link = link

    def refused(self, entry: Entry, word: str, reply: Any) -> bool:
        """Leave it at the refusal: whoever reads goes on elsewhere."""
        if isinstance(self._link, Route):
            self._link.note(word, reply)
        return False


class Trackers:
    """The trackers of a shard: one for a server that has all queues; on a cluster one for each master."""

    def __init__(self, links: CommandLink | Cluster, options: LinkOptions, first: Tracker) -> None:
        """Make them; of a server that has all queues `first` is the only one."""
        self._options = options
        self._first = first
        self._of_nodes: dict[Link, Tracker] | None = None
        if isinstance(links, Cluster):
            self._of_nodes = {}
            links.on_moved.append(self._slot_moved)

    def of(self, link: CommandLink) -> Tracker:
        """Return the tracker for a queue; on a cluster that of the node which has it now."""
        if self._of_nodes is None:
            return self._first
        node = link.executors()[0]
        tracker = self._of_nodes.get(node)
        if tracker is None:
            tracker = self._of_nodes[node] = Tracker(node, self._options)
            node.on_closed.append(partial(self._close, node))
        return tracker

    async def _close(self, node: Link) -> None:
        assert self._of_nodes is not None
        await self._of_nodes.pop(node).close()

    def _slot_moved(self, route: Route, former: Link) -> None:
        assert self._of_nodes is not None
        if (tracker := self._of_nodes.get(former)) is not None:
            tracker.slot_moved(route)


def _subscribed(reply: Any) -> None:
    """Say why nothing is heard, should the server not allow it."""
    if isinstance(reply, hiredis.ReplyError):
        log.warning("redis does not let the gateway listen to other gateways: %s", reply_error(reply).message)


def _ignore(reply: Any) -> None:
    """Expect no reply; the link gives its connection up when none comes in time."""
