"""A cluster: one link to each of its masters, and the way from a slot to the master that has it."""

from __future__ import annotations

import asyncio
import logging
import random
import weakref
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from bullmq_proxy.gateway.broker.redis.address import Address, Target
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink, LinkOptions
from bullmq_proxy.gateway.broker.redis.errors import RedisRefused, unavailable, understood
from bullmq_proxy.gateway.broker.redis.greeting import greet, open_socket, why
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.route import Route
from bullmq_proxy.gateway.broker.redis.server import Server
from bullmq_proxy.gateway.broker.redis.socket import Entry, RedisSocket, Setup, entry_size
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.slots import SLOTS, check_tag, hash_tag, slot_of

log = logging.getLogger(__name__)

_ASKED: Final = 2.0  # s for a node's answer
_LOOK: Final = 60.0  # s between two looks at who has which slot, while all is well
_LOOK_SOON: Final = 0.25  # s, while it is not
_TAGS: Final = 20 * SLOTS  # numbers among which a tag for a node is looked for

Node = tuple[str, int]  # host and port


class _NodeServer(Server):
    """One master, which others may replace."""

    has_slots = True
    is_found = True
    retry = 0.5

    def __init__(self, address: Address, look_again: Callable[[], None]) -> None:
        super().__init__(address)
        self._look_again = look_again

    def down(self, link: Link, reason: str) -> None:
        super().down(link, reason)
        self._look_again()


class Cluster:
    """The links to a cluster. A queue gets the `Route` of its slot from `of`.

    Attributes:
        options: of the links.
        on_up: called when the link to a node is up, or a slot has moved.
        on_moved: called with the way of a slot that has moved, and the link that it has left.
        nowhere: the server of slots that no node has.
        is_closed: whether it is given up.
    """

    db = 0

    def __init__(self, target: Target, options: LinkOptions, setup: Setup) -> None:
        """Make it; `start` connects it."""
        self.options = options
        self.on_up: list[Callable[[], None]] = []
        self.on_moved: list[Callable[[Route, Link], None]] = []
        self.is_closed = False
        self._target = target
        self._setup = setup
        self._links: dict[Node, Link] = {}  # to masters, and to nodes that are to get a slot
        self._masters: list[Link] = []  # those that have slots
        self._starts: list[int] = []  # of the ranges of slots, ascending
        self._owners: list[Node | None] = []  # of these ranges
        self._routes: weakref.WeakValueDictionary[int, Route] = weakref.WeakValueDictionary()
        self._lost = Link(target.seeds[0], options)  # holds the commands for slots that no node has; never connected
        self.nowhere = self._lost.server
        self._kept = self._kept_size = 0  # commands for slots that move, and bytes of them
        self._probed: list[tuple[CommandLink, str]] | None = None
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._look: asyncio.Future[None] | None = None  # ends the pause before the next look
        self._known = asyncio.Event()
        self._refused: RedisRefused | None = None
        self._reason = ""
        self._closing: set[asyncio.Task[None]] = set()

    # As the link for all

    @property
    def shown(self) -> str:
        """The cluster for people and logs."""
        return self._target.shown

    @property
    def is_up(self) -> bool:
        """Whether each slot has a node, and each node is connected."""
        return bool(self._masters) and None not in self._owners and all(link.is_up for link in self._masters)

    @property
    def last_error(self) -> GatewayError:
        """The reason why it is not up, as a new exception each time."""
        down = next((link for link in self._masters or self._links.values() if not link.is_up), None)
        return unavailable("not all slots of the cluster have a node") if down is None else down.last_error

    @property
    def times_up(self) -> int:
        """Connections to nodes that were made so far."""
        return sum(link.times_up for link in self._links.values())

    @property
    def nodes(self) -> list[Link]:
        """The links to all masters."""
        return list(self._masters)

    def of(self, base: str) -> Route:
        """Return the way to the slot of a queue, whose keys begin with `base`.

        Raises:
            GatewayError: INVALID_ARGUMENTS, the keys would be in many slots.
        """
        if not hash_tag(base):
            prefix, _, queue = base.partition(":")
            check_tag(prefix, queue.partition(":")[0])
        slot = slot_of(base)
        route = self._routes.get(slot)
        if route is None:
            route = self._routes[slot] = Route(self, slot, self._owner(slot))
        return route

    def probed(self, prefix: str) -> list[tuple[CommandLink, str]]:
        """Return a key on each node that has queues of a prefix, with the link to it."""
        if hash_tag(f"{prefix}:"):
            return [(self.of(f"{prefix}:"), f"{prefix}:{{gateways}}:probe")]
        if self._probed is None:
            found: dict[Link, tuple[CommandLink, str]] = {}
            for number in range(_TAGS):
                base = f"{prefix}:{{{number}}}:"
                if (owner := self._owner(slot_of(base))) not in found:
                    found[owner] = (self.of(base), f"{base}probe")
                    if len(found) >= len(self._masters):
                        break
            self._probed = list(found.values())
        return self._probed

    async def start(self, timeout: float | None = None) -> None:
        """Connect to all masters; arguments and errors as for `Link.start`."""
        self._lost.give_up_later()
        self._task = asyncio.create_task(self._follow(give_in=timeout is not None), name="redis-cluster")
        if timeout is None:
            return
        up = asyncio.create_task(self._known.wait())
        try:
            await asyncio.wait((up, self._task), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if not self._known.is_set():
            reason = self._reason or next((link.reason for link in self._links.values() if link.reason), "no answer")
            refused = self._refused
            await self.close()
            raise refused or GatewayError(ErrorCode.REDIS_UNAVAILABLE, f"{self.shown} cannot be reached: {reason}")

    async def close(self) -> None:
        """Close all links."""
        self.is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        await asyncio.gather(*(link.close() for link in (*self._links.values(), self._lost)), *self._closing)

    # Who has which slot

    def _owner(self, slot: int) -> Link:
        at = bisect_right(self._starts, slot) - 1
        owner = self._owners[at] if at >= 0 else None
        return self._lost if owner is None else self._links[owner]

    def node_named(self, reply: str, asked: Link) -> Link:
        """Return the link to the node in a reply such as `MOVED <slot> <host>:<port>`; no host is that of `asked`.

        Raises:
            GatewayError: it names none.
        """
        with understood():
            host, _, port = reply.split("MOVED " if "MOVED " in reply else "ASK ")[1].split()[1].rpartition(":")
            return self._link_to(_node(host.strip("[]") or asked.server.address.host, int(port)))

    def _link_to(self, node: Node) -> Link:
        link = self._links.get(node)
        if link is None:
            address = replace(self._target.seeds[0], host=node[0], port=node[1])
            link = self._links[node] = Link(_NodeServer(address, self.look_again), self.options, self._setup)
            link.on_up.append(self._node_is_up)
            link.open()
        return link

    def _node_is_up(self) -> None:
        if self.is_up:
            self._known.set()
        for hook in self.on_up:
            hook()

    def has_room(self, entry: Entry) -> bool:
        """Return whether one more command may wait for a slot that moves: all that do share the limits of a backlog."""
        size = self._kept_size + entry_size(entry)
        return self._kept < self.options.backlog and size <= self.options.backlog_size

    def keep(self, entry: Entry, count: int) -> None:
        """Count a command that waits for its slot, or with a `count` of -1 one that does so no more."""
        self._kept += count
        self._kept_size += count * entry_size(entry)

    def slot_moved(self, route: Route, former: Link) -> None:
        """Tell those who wait on the node that a slot has left."""
        for hook in self.on_moved:
            hook(route, former)

    def look_again(self) -> None:
        """Ask soon who has which slot: somebody has found that it has changed, or cannot be reached."""
        if self._look is not None and not self._look.done():
            self._look.set_result(None)

    async def _follow(self, *, give_in: bool) -> None:
        while True:
            try:
                self._apply(await self._ask())
                self._reason = ""
            except RedisRefused as error:
                self._note(error.message)
                if give_in and not self._links:
                    self._refused = error
                    return
            except GatewayError as error:
                self._note(error.message)
            self._look = self._loop.create_future()
            await asyncio.wait((self._look,), timeout=_LOOK if self.is_up else _LOOK_SOON)
            if self._look.done():  # others will say the same
                await asyncio.sleep(_LOOK_SOON if self.is_up else 0)

    def _note(self, reason: str) -> None:
        if reason != self._reason and self._known.is_set():
            log.warning("redis cluster %s: %s", self.shown, reason)
        self._reason = reason

    async def _ask(self) -> list[tuple[int, int, Node]]:
        """Return the ranges of slots with their masters, as one node sees them: one that is connected, or any."""
        links = [link for link in self._links.values() if link.is_up]
        random.shuffle(links)
        last: GatewayError = unavailable("no node of the cluster answers")
        for link in links:
            try:
                async with asyncio.timeout(_ASKED):
                    return _read(await link.call("CLUSTER", "SLOTS"), link.server.address.host)
            except TimeoutError:
                continue
            except GatewayError as error:
                last = error
        seed, *_ = self._target.seeds
        known = [replace(seed, host=host, port=port) for host, port in self._links]
        for address in dict.fromkeys((*self._target.seeds, *known)):
            try:
                return _read(await self._ask_at(address), address.host)
            except (OSError, TimeoutError) as error:
                last = unavailable(why(error))
            except GatewayError as error:
                last = error
        raise last

    async def _ask_at(self, address: Address) -> Any:
        async with asyncio.timeout(_ASKED):
            connection = await open_socket(address, RedisSocket, self.options.silence)
            try:
                await greet(connection, address, self.options.name, None, needs_master=False)
                return await connection.ask("CLUSTER", "SLOTS")
            except GatewayError as error:
                if "cluster support disabled" in error.message:
                    text = f"{address.shown} is no node of a cluster: write redis:// for redis+cluster://"
                    raise RedisRefused(text) from None
                raise
            finally:
                connection.transport.abort()
                await asyncio.wait((connection.lost,))

    def _apply(self, ranges: list[tuple[int, int, Node]]) -> None:
        """Let each slot have the node that it has now."""
        if not ranges:
            raise unavailable("no node of the cluster has slots")
        starts: list[int] = []
        owners: list[Node | None] = []
        end = 0
        for first, last, node in sorted(ranges):
            if first > end:
                starts.append(end)
                owners.append(None)
            starts.append(first)
            owners.append(node)
            end = last + 1
            self._link_to(node)
        if end < SLOTS:
            starts.append(end)
            owners.append(None)
        if (starts, owners) == (self._starts, self._owners):
            for node in self._links.keys() - set(owners):  # a slot was to move there, and does not
                if self._links[node].is_failing:
                    self._retire(self._links.pop(node))
            return
        if None in owners and None not in self._owners:
            self._lost.give_up_later()
        self._starts, self._owners, self._probed = starts, owners, None
        self._masters = [self._links[owner] for owner in dict.fromkeys(owners) if owner is not None]
        masters = sorted({f"{owner[0]}:{owner[1]}" if owner else "none" for owner in owners})
        log.info("redis cluster %s: the slots are on %s", self.shown, ", ".join(masters))
        for route in list(self._routes.values()):
            route.move(self._owner(route.slot))
        for node in self._links.keys() - set(owners):
            self._retire(self._links.pop(node))
        self._node_is_up()

    def _retire(self, link: Link) -> None:
        """Close the link to a node that has no slots any more, once what was written to it is answered."""

        def close() -> None:
            task = asyncio.create_task(link.close(unavailable("the node has no slots any more")))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        link.after_all(close)


def _read(reply: Any, asked: str) -> list[tuple[int, int, Node]]:
    """Read the reply to CLUSTER SLOTS: first slot, last slot, the master's host, port and more, then the replicas'."""
    with understood():
        return [
            (int(first), int(last), _node(asked if not host or host == "?" else host, port))
            for first, last, (host, port, *_), *_ in reply
        ]


def _node(host: Any, port: Any) -> Node:
    if not isinstance(host, str) or not 0 < int(port) < 2**16:
        raise ValueError
    return host, int(port)
