"""A master that sentinels know: they are asked where it is, and tell when another server takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from msgspec.structs import replace

from bullmq_proxy.gateway.broker.redis.address import Address, Target
from bullmq_proxy.gateway.broker.redis.command_link import LinkOptions
from bullmq_proxy.gateway.broker.redis.errors import NotConnected, RedisRefused, unavailable, understood
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.server import LEFT, Server
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.values.text import text_of

_SWITCH: Final = "+switch-master"
_ANSWER: Final = 1.0  # s for a sentinel's answer
_TRUSTED: Final = 1.5  # s in which the master that one sentinel names must be reached, before another one is asked
_MOST: Final = 100  # sentinels that are remembered
# s after a failover, in which a sentinel that names the former master is late: they tell each other every 2 s
_DOUBTED: Final = 3.0
_ROTATED: Final = "the master that it names cannot be used: another sentinel is asked"


class SentinelServer(Server):
    """The master of a name, wherever it is."""

    is_found = True
    retry = 0.25  # a failover lasts some seconds; to ask a sentinel costs little

    def __init__(self, target: Target, options: LinkOptions) -> None:
        """Make one for links with these options; the sentinels are connected to with the first of them."""
        super().__init__(target.master)
        self._target = target
        self._sentinels = _Sentinels(target)
        self._master: Address | None = None  # that they have named last
        self._former: Address | None = None  # the one before it
        self._doubted_until = 0.0  # when who names the former one is believed again
        deadline, silence = min(options.deadline, 3 * _ANSWER), min(options.silence, _ANSWER)
        own = replace(options, name=f"{options.name}:sentinel", backlog=0, deadline=deadline, silence=silence)
        self._watch = Link(self._sentinels, own, setup=self._subscribe, on_push=self._pushed)
        self._loop = asyncio.get_running_loop()
        self._asked_since = 0.0  # when this sentinel was first asked since a link was up; 0 when it was not

    @property
    def shown(self) -> str:
        """The server for people and logs."""
        return self._target.shown

    def joined(self, link: Link) -> None:
        """Count a link in; the first one connects to the sentinels."""
        if not self.links:
            self._watch.open()
        super().joined(link)

    async def left(self, link: Link) -> None:
        """Count a link out; the last one disconnects from the sentinels."""
        await super().left(link)
        if not self.links:
            await self._watch.close()

    async def locate(self, link: Link) -> Address:
        """Ask a sentinel for the master.

        Raises:
            RedisRefused: the sentinels know no master of this name.
            GatewayError: none of them answers.
        """
        now = self._loop.time()
        self._asked_since = self._asked_since or now
        if now - self._asked_since > _TRUSTED:
            self._asked_since = now
            self._watch.leave(_ROTATED)
        try:
            async with asyncio.timeout(_ANSWER):
                await self._watch.wait_up()
                found = await self._watch.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._target.name)
        except TimeoutError:
            raise self._nobody() from None
        except GatewayError as error:
            if "unknown command" in error.message:
                asked = self._watch.leads_to.shown
                raise RedisRefused(f"{asked} is no sentinel: write redis:// for redis+sentinel://") from None
            raise self._nobody() from None
        if not found:
            raise RedisRefused(f"The sentinels of {self.shown} know no master of the name {self._target.name!r}")
        with understood():
            host, port = found
            if (address := self._named(host, port)) is None:
                self._watch.leave(_ROTATED)
                raise unavailable("the sentinels do not agree on the master yet")
        return address

    def _named(self, host: str, port: str, former: Address | None = None) -> Address | None:
        """Take note of a master that a sentinel names, `former` being that which it replaces, as far as it says.

        Returns None for the one before the last: that sentinel is late, and a replaced master may still take writes.
        """
        address = replace(self._target.master, host=host, port=int(port))
        if address != self._master:
            now = self._loop.time()
            if address == self._former and former != self._master and now < self._doubted_until:
                return None
            self._former, self._master, self._doubted_until = self._master, address, now + _DOUBTED
        return address

    def has_left(self, address: Address) -> bool:
        """Return whether the sentinels have named another master since."""
        return address != self._master

    def _nobody(self) -> NotConnected:
        what = "no sentinel answers"
        return NotConnected(what, f"{what}: {self._watch.reason or 'no answer in time'}")

    def up(self, link: Link) -> None:
        """Let the others try at once, now that one is connected."""
        self._asked_since = 0.0
        super().up(link)

    async def _subscribe(self, ask: Callable[..., Awaitable[Any]]) -> None:
        """Learn of the other sentinels, and ask to be told of failovers, where the sentinel can tell (Redis 6.0).

        Nobody has told of one while no sentinel was connected: so the master is asked for, too.
        """
        try:
            others = await ask("SENTINEL", "SENTINELS", self._target.name)
            self._sentinels.learn(dict(zip(other[::2], other[1::2], strict=True)) for other in others)
        except GatewayError:
            return  # it does not know the master
        with suppress(GatewayError):
            await ask("HELLO", "3")
            await ask("SUBSCRIBE", _SWITCH)
        with suppress(GatewayError):
            if found := await ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._target.name):
                self._follow(*found)

    def _pushed(self, message: list[Any]) -> None:
        """Take note of a failover: the message is `<name> <old host> <old port> <new host> <new port>`."""
        words = text_of(message[2]).split() if message[0] == b"message" else []
        if len(words) == 5 and words[0] == self._target.name:
            former = replace(self._target.master, host=words[1], port=int(words[2]))
            self._follow(words[3], words[4], former)

    def _follow(self, host: str, port: str, former: Address | None = None) -> None:
        """Move all links to the master that a sentinel names."""
        if self._named(host, port, former) is None:
            return
        for link in tuple(self.links):
            if self.has_left(link.leads_to):
                link.leave(LEFT)
            link.hurry()


class _Sentinels(Server):
    """Any of the sentinels: each attempt goes to the next one."""

    needs_master = False
    retry = 0.25

    def __init__(self, target: Target) -> None:
        super().__init__(target.seeds[0])
        self._addresses = list(target.seeds)
        self._shown = f"the sentinels of {target.shown}"

    @property
    def shown(self) -> str:
        return self._shown

    async def locate(self, link: Link) -> Address:
        self._addresses.append(self._addresses.pop(0))
        return self._addresses[-1]

    def down(self, link: Link, reason: str) -> None:
        """Take note that the link is down, unless it only goes to another sentinel."""
        if reason != _ROTATED:
            super().down(link, reason)

    def learn(self, others: Any) -> None:
        """Remember further sentinels."""
        for other in others:
            address = replace(self.address, host=other["ip"], port=int(other["port"]))
            if address not in self._addresses and len(self._addresses) < _MOST:
                self._addresses.append(address)
