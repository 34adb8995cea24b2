"""Presence: each shard's sign of life in Redis with the queues that it serves; jobs of silent shards are given back.

A shard counts its signs up, and the others look whether the count grows: nobody's clock matters. All keys of a prefix
have one hash tag, so that they are on one node of a cluster.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from bullmq_proxy.gateway.broker.consuming.leases import Leases
from bullmq_proxy.gateway.broker.consuming.recovery import take_back
from bullmq_proxy.gateway.broker.consuming.renewal import LockRenewer
from bullmq_proxy.gateway.broker.consuming.tokens import Identity, parse_identity
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink
from bullmq_proxy.gateway.broker.redis.errors import LostReply, will_pass
from bullmq_proxy.gateway.broker.redis.scripts import Script
from bullmq_proxy.gateway.broker.redis.socket import pack_command
from bullmq_proxy.gateway.broker.tasks import Tasks
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.turns import Turns
from bullmq_proxy.gateway.values.histogram import CALLS, Histogram
from bullmq_proxy.gateway.values.numbers import parse_int
from bullmq_proxy.gateway.values.text import text_of

log = logging.getLogger(__name__)

PERIOD: Final = 1.0
"""Seconds between two signs of life, each with a look at those of the others."""

_CLAIM: Final = 5000  # ms in which one shard alone gives back the jobs of another
_AT_A_TIME: Final = 64  # queues
_NAMES: Final = 1000  # queues that one command names
_FORGOTTEN: Final = 3600  # looks without a sign after which a shard is forgotten, where none is taken for dead
_FAREWELL: Final = 1.0  # seconds in which the server is to have taken the sign away
_FORGETTING: Final = 10  # looks between two searches for queues that are served no more


class Presence:
    """The sign of life of one shard, and its eye on the others of its prefix.

    Attributes:
        latency: how long the server took for each sign.
        served: names of the queues in which this shard may hold jobs.
        on_dead: is told the address of a shard that is known to be dead; one that is only silent may be back.
        on_look: is told after each look how many shards show a sign, and the version of the webhook registrations.
    """

    def __init__(
        self,
        prefix: str,
        link: CommandLink,
        show_life: Script,
        leases: Leases,
        renewer: LockRenewer,
        queue: Callable[[str], Queue],
        turns: Turns,
        timeout: float,
    ) -> None:
        """Make it; it begins when `link_is_up` is called.

        Args:
            prefix: of BullMQ's keys.
            link: for commands.
            show_life: the script of this name.
            leases: of the shard.
            renewer: of their locks.
            queue: gives the queue of a name.
            turns: are told how long the way to Redis is.
            timeout: seconds without a sign after which a shard of another gateway is taken for dead; 0 for never.
        """
        self.latency = Histogram(CALLS)
        self.served: set[str] = set()
        self.on_dead: Callable[[str], None] = lambda shard: None
        self.on_look: Callable[[int, bytes | None], None] = lambda shards, version: None
        self._base = f"{prefix}:{{gateways}}:"  # no name of a queue: BullMQ puts no braces around one by itself
        self._link = link
        self._show_life = show_life
        self._leases = leases
        self._own = leases.identity
        self._renewer = renewer
        self._queue = queue
        self._turns = turns
        self._patience = round(timeout / PERIOD)  # looks
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._asked = False  # a sign is on its way
        self._asked_at = 0.0
        self._given = 0  # signs
        self._is_known = False
        self._trouble = ""
        self._seen: dict[Identity, tuple[int, int]] = {}  # signs of the others, and for how many looks it is the number
        self._idle: set[str] = set()  # served queues that nobody consumes now: a job may still be on its way back
        self._looks = 0
        self._takeovers: dict[Identity, int | None] = {}  # under way: signs of one that is silent, None of a dead one
        self._tasks = Tasks()
        self._closed = False

    # Its own

    def serve(self, name: str) -> None:
        """Write down that this shard may hold jobs of a queue, before it takes the first one."""
        self._idle.discard(name)
        if name not in self.served:
            self.served.add(name)
            self._link.send(pack_command("SADD", self._key("served", self._own), name), _ignore)

    def retire(self, name: str) -> None:
        """Note that nobody here takes jobs of a queue any more."""
        if name in self.served:
            self._idle.add(name)

    def link_is_up(self) -> None:
        """Write down again what is served, and give a sign: Redis may have lost them, and others may act for us."""
        self._asked = False
        self._register()
        if self._timer is None:
            self._go_on()
        else:
            self._give_sign(counts=False)

    def _register(self) -> None:
        names = list(self.served)
        for first in range(0, len(names), _NAMES):
            some = names[first : first + _NAMES]
            self._link.send(pack_command("SADD", self._key("served", self._own), *some), _ignore)

    def _go_on(self) -> None:
        if not self._closed:
            self._timer = self._loop.call_later(PERIOD, self._go_on)
            self._give_sign(counts=True)

    def _give_sign(self, *, counts: bool) -> None:
        """Give a sign and look at those of the others; `counts` is whether a period has passed for them, too."""
        if self._link.is_up and not self._asked and not self._closed:
            self._asked, self._asked_at = True, time.perf_counter()
            keys = [self._key("signs"), self._key("claim", self._own), self._key("workers:version")]
            self._given += 1
            self._show_life.send(keys, [self._own.address, self._given], partial(self._looked, counts))

    def _key(self, kind: str, shard: Identity | None = None) -> str:
        return f"{self._base}{kind}" if shard is None else f"{self._base}{kind}:{shard.address}"

    def _looked(self, counts: bool, reply: Any) -> None:
        self._asked = False
        if self._closed:
            return
        seconds = time.perf_counter() - self._asked_at
        self.latency.add(seconds)
        if isinstance(reply, Exception):
            self._note(reply)
            return
        self._turns.note_round_trip(seconds)
        if self._trouble:
            LogEvent.WRITES_TAKEN.log()
            self._trouble = ""
        is_new, is_claimed, signs, version = reply
        if (is_new and self._is_known) or is_claimed:
            self._given_up()
        elif not self._is_known:
            self._register()
        self._is_known = True
        pairs = iter(signs)
        shown = {
            parse_identity(text_of(shard)): parse_int(given) or 0 for shard, given in zip(pairs, pairs, strict=True)
        }
        self._judge(shown, counts)
        self.on_look(len(shown), version)
        self._looks += 1
        if self._idle and not self._looks % _FORGETTING:
            self._forget_idle()

    def _note(self, error: Exception) -> None:
        """Log once why the server refuses to write, for whomever; that it cannot be reached is for the link to say."""
        text = str(error)
        if text != self._trouble and self._link.is_up and not isinstance(error, LostReply):
            LogEvent.WRITES_REFUSED.log(reason=text)
            self._trouble = text

    def _given_up(self) -> None:
        """Find out at once which jobs are not ours any more: we were silent, and others have acted for us."""
        self._register()
        if len(self._leases):
            log.warning("this shard was taken for dead: looking which of its %d jobs it still holds", len(self._leases))
            self._renewer.renew_all()

    def _forget_idle(self) -> None:
        idle = self._idle - {lease.consumer.queue for lease in self._leases}
        self._idle -= idle
        self.served -= idle
        names = list(idle)
        for first in range(0, len(names), _NAMES):
            some = names[first : first + _NAMES]
            self._link.send(pack_command("SREM", self._key("served", self._own), *some), _ignore)

    # Those of others

    def _judge(self, signs: Mapping[Identity | None, int], counts: bool) -> None:
        """Act for those that are silent: a predecessor in our slot at once, others when we have been patient.

        Our own link may come up many times a second, with a look each time: `counts` tells the looks by which to judge.
        """
        before, self._seen = self._seen, {}
        for shard, count in signs.items():
            if shard is None or shard == self._own:
                continue
            seen, looks = before.get(shard, (None, 0))
            looks = looks + counts if count == seen else 0
            self._seen[shard] = (count, looks)
            if shard in self._takeovers:
                continue
            if shard.precedes(self._own):
                self.bury(shard)
            elif self._patience and looks >= self._patience:
                self._seen[shard] = (count, 0)  # should another one have claimed it, and die meanwhile
                self._begin_takeover(shard, count)
            elif not self._patience and looks >= _FORGOTTEN:
                self._tasks.spawn(self._forget(shard))

    async def _forget(self, shard: Identity) -> None:
        """Remove what a shard has left that nobody takes for dead; one that comes back writes it down again."""
        with suppress(GatewayError):
            await self._link.call("HDEL", self._key("signs"), shard.address)
            await self._link.call("DEL", self._key("served", shard))

    def bury(self, shard: Identity) -> None:
        """Give back what a shard held that is known to be dead, as soon as Redis can be asked."""
        if shard not in self._takeovers and not self._closed:
            self._begin_takeover(shard, None)

    def _begin_takeover(self, shard: Identity, signs: int | None) -> None:
        self._takeovers[shard] = signs
        if signs is None:
            self.on_dead(shard.address)
        self._tasks.spawn(self._take_over(shard), then=partial(self._takeovers.pop, shard))

    def _is_dead(self, shard: Identity) -> bool:
        """Return whether no sign has come since it was taken for dead."""
        seen, signs = self._seen.get(shard), self._takeovers[shard]
        return not self._closed and (signs is None or seen is None or seen[0] == signs)

    async def _take_over(self, dead: Identity) -> None:
        """Give back what a dead shard held, unless another one does so. What is left undone is done by the next."""
        served, claim = self._key("served", dead), self._key("claim", dead)
        count = 0
        try:
            if not await self._link.call("SET", claim, self._own.address, "NX", "PX", _CLAIM):
                return
            while names := await self._link.call("SRANDMEMBER", served, _AT_A_TIME):
                if not self._is_dead(dead):
                    break
                count += sum(await asyncio.gather(*(self._take_back(name, dead) for name in names)))
                await self._link.call("SREM", served, *names)
                await self._link.call("PEXPIRE", claim, _CLAIM)
            else:
                await self._link.call("HDEL", self._key("signs"), dead.address)
            await self._link.call("DEL", claim)
        except GatewayError as error:
            log.warning("the jobs of shard %s, which is dead, are not given back yet: %s", dead.address, error)
        if count:
            LogEvent.SHARD_SILENT.log(shard=dead.address, jobs=count)

    async def _take_back(self, name: str, dead: Identity) -> int:
        try:
            return await take_back(self._queue(name), dead)
        except GatewayError as error:
            if will_pass(error):
                raise
            log.error("the jobs of shard %s in %s cannot be given back: %s", dead.address, name, error)
            return 0

    # The end

    async def close(self) -> None:
        """Take the sign away, unless jobs are left in hand: then others are to find them."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.wait()
        if self._link.is_up and not len(self._leases):
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._forget(self._own)


def _ignore(reply: Any) -> None:
    """Expect no reply: what a broken link has swallowed is said again when it is back."""
