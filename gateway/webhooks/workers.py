"""All webhook workers of a prefix, as one shard sees them: what is registered in Redis, and which of them it runs.

Registrations stand in one hash with a version, each under its ident, `QUEUE:NAME`: a name is one of its queue, so that
who may not see a queue learns nothing of its workers. Each shard is shown the version with the signs of life, once a
second, and reads the hash when it has changed: nothing runs for this where nothing is registered. Each registration has
a lease in Redis, which its owner renews with each look. A lease that is free is taken by whoever sees it first; each
shard takes its part of those that are free.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bullmq_proxy.gateway.access.grants import Grant
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.redis.scripts import scripts_on
from bullmq_proxy.gateway.broker.tasks import Tasks
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.text import text_of
from bullmq_proxy.gateway.webhooks.clock import clock
from bullmq_proxy.gateway.webhooks.guard import Guard
from bullmq_proxy.gateway.webhooks.registration import Registration, read_stored
from bullmq_proxy.gateway.wire.connection_options import Limits

if TYPE_CHECKING:
    from bullmq_proxy.gateway.webhooks.runner import Runner

log = logging.getLogger(__name__)

_STORED, _CHANGED, _TOO_MANY, _TOO_MANY_OF_KEY = 0, -1, -2, -3  # storeWorker.lua
_TRIES: Final = 10  # to store a registration that others change at the same time

MOST_WORKERS: Final = 1000
"""Registrations of a prefix."""

MOST_OF_A_KEY: Final = 100
"""Registrations that one key has stored; there is no such limit for a key that may do everything."""

LARGEST_REGISTRATION: Final = 2**16
"""Bytes of a registration."""

LEASE: Final = 3000
"""Milliseconds that a shard owns a registration for, unless it renews that: once a second."""


class Webhooks:
    """The webhook workers of one shard.

    Attributes:
        guard: of all requests.
        limits: that registrations are checked against.
    """

    def __init__(
        self,
        broker: Broker,
        prefix: str,
        limits: Limits,
        allowed: Iterable[str],
        configured: Mapping[str, Registration],
    ) -> None:
        """Make it; it begins when the broker's link is up.

        Args:
            broker: of the shard.
            prefix: of the queues.
            limits: that registrations are checked against.
            allowed: where requests may go beside the public network.
            configured: registrations that are stored at the start.
        """
        self.guard = Guard(allowed)
        self.limits = limits
        base = f"{prefix}:{{gateways}}:"
        self._link = broker.link.of(base)
        self._scripts = scripts_on(self._link)
        self._hash, self._version_key, self._keys = f"{base}workers", f"{base}workers:version", f"{base}workers:keys"
        self._lease = f"{base}worker:"
        self._broker = broker
        self._address = broker.leases.identity.address
        self._configured = configured  # each shard sees to it: which slots have one after a reload nobody knows
        self._version: bytes | None = None
        self._texts: dict[str, bytes] = {}  # as they stand in Redis; only what can be read
        self._free = 0  # registrations without an owner, at the last look
        self._runners: dict[str, Runner] = {}
        self._retiring: set[Runner] = set()
        self._tasks = Tasks()
        self._shards = 1  # that show a sign of life
        self._dead = ""  # a shard whose leases are free
        self._reading = False
        self._draining = self._closed = False
        broker.presence.on_look = self._look
        broker.presence.on_dead = self._take_over

    # Registrations

    async def all(self, grant: Grant) -> list[tuple[str, Registration]]:
        """Return the registrations that the key is for, each with its name; raises GatewayError."""
        stored = sorted(_pairs(await self._link.call("HGETALL", self._hash, decode=False)).items())
        shown = [(name_of(ident), read_stored(text)) for ident, text in stored if grant.covers(queue_of(ident))]
        return [(name, registration) for name, registration in shown if registration is not None]

    async def get(self, name: str, queue: str | None, grant: Grant) -> Registration:
        """Return a registration; raises as `_find`."""
        _, text = await self._find(name, queue, grant)
        registration = read_stored(text)
        if registration is None:
            raise _missing(name)
        return registration

    async def put(self, name: str, registration: Registration, grant: Grant) -> None:
        """Store a registration in the place of the one of this name, and see to it at once.

        Raises:
            GatewayError: CONFLICT, there are too many; INVALID_ARGUMENTS, it is too long.
        """
        ident = ident_of(name, registration.queue)
        text = registration.stored()
        if len(text) > LARGEST_REGISTRATION:
            raise GatewayError(
                ErrorCode.INVALID_ARGUMENTS, f"The registration is longer than {LARGEST_REGISTRATION} bytes - at `body`"
            )
        for _ in range(_TRIES):
            before = await self._read(ident)
            outcome = await self._store(ident, text, before, "" if grant.everything else grant.key)
            if outcome != _CHANGED:
                break
        _check_stored(outcome, name)
        await self._refresh()

    async def delete(self, name: str, queue: str | None, grant: Grant) -> None:
        """Remove a registration; raises as `_find`."""
        for _ in range(_TRIES):
            ident, before = await self._find(name, queue, grant)
            outcome = await self._store(ident, b"", before)
            if outcome != _CHANGED:
                break
        _check_stored(outcome, name)
        await self._refresh()

    async def _find(self, name: str, queue: str | None, grant: Grant) -> tuple[str, bytes]:
        """Return the ident of a registration, and its text; `queue` says which one, where several have the name.

        The worker of the queue that has this very name comes before others.

        Raises:
            GatewayError: NOT_FOUND, also for one that the key is not for; CONFLICT, there are several.
        """
        if queue is None:
            idents = map(text_of, await self._link.call("HKEYS", self._hash, decode=False))
            queues = [queue_of(ident) for ident in idents if name_of(ident) == name]
        else:
            queues = [queue]
        mine = [each for each in queues if grant.covers(each)]
        mine = [name] if name in mine else mine  # as the ancestor's clients mean it
        if len(mine) > 1:
            raise GatewayError(
                ErrorCode.CONFLICT, f"Workers of several queues are called {name[:100]}: add ?queue=QUEUE"
            )
        text = await self._read(ident_of(name, mine[0])) if mine else None
        if text is None:
            raise _missing(name)
        return ident_of(name, mine[0]), text

    async def _read(self, ident: str) -> bytes | None:
        text: bytes | None = await self._link.call("HGET", self._hash, ident, decode=False)
        return text

    async def _store(self, ident: str, text: bytes, before: bytes | None, key: str = "") -> int:
        """Store a registration unless another one is there by now; arguments and reply as in storeWorker.lua."""
        keys = [self._hash, self._version_key, self._keys]
        args = [ident, text, before or b"", MOST_WORKERS, key, MOST_OF_A_KEY]
        outcome: int = await self._scripts["storeWorker"].run(keys, args)
        return outcome

    # Which of them this shard runs

    def _look(self, shards: int, version: bytes | None) -> None:
        """Take note of what a look at Redis has shown: once a second."""
        if self._closed:
            return
        self._shards = max(1, shards)
        if self._configured:
            configured, self._configured = self._configured, {}
            self._tasks.spawn(self._configure(configured))
        if version != self._version and not self._reading:
            self._tasks.spawn(self._refresh_unasked())
        elif self._texts:
            self._hold(self._part(self._free))

    async def _configure(self, configured: Mapping[str, Registration]) -> None:
        """Store the registrations of the configuration that Redis does not have in this form."""
        try:
            stored = _pairs(await self._link.call("HGETALL", self._hash, decode=False))
            for name, registration in configured.items():
                text, ident = registration.stored(), ident_of(name, registration.queue)
                if stored.get(ident) != text and await self._store(ident, text, stored.get(ident)) == _TOO_MANY:
                    log.error("webhook %s of the configuration: there are %d workers already", name, MOST_WORKERS)
            await self._refresh()
        except GatewayError as error:
            log.warning("the webhook workers of the configuration are not stored yet: %s", error.message)
            self._configured = configured

    async def _refresh_unasked(self) -> None:
        try:
            await self._refresh()
        except GatewayError as error:
            log.warning("the webhook workers cannot be read: %s", error.message)

    async def _refresh(self) -> None:
        """Read the registrations, and run those of them that are ours or free."""
        self._reading = True
        try:
            version = self._link.call("GET", self._version_key, decode=False)
            reply = self._link.call("HGETALL", self._hash, decode=False)
            self._version, self._texts = await version, _readable(_pairs(await reply))
        finally:
            self._reading = False
        if self._closed:
            return
        for ident in self._runners.keys() - self._texts.keys():
            self._give_up(ident)
        for ident, runner in list(self._runners.items()):
            if runner.text != self._texts[ident]:
                self._retire(self._runners.pop(ident))
                if self._draining:  # it is another shard's business from now on
                    self._release(ident)
                else:
                    self._run(ident, runner.owned_until)
        fresh = len(self._texts.keys() - self._runners.keys())
        self._hold(self._part(fresh))

    def _take_over(self, dead: str) -> None:
        """Run what a dead shard has run, or others do, without waiting for its leases to expire."""
        self._dead = dead
        self._shards = max(1, self._shards - 1)
        self._hold(self._part(len(self._texts)))

    def _part(self, registrations: int) -> int:
        """Return how many of so many registrations are this shard's share, one at least."""
        return max(1, math.ceil(registrations / self._shards))

    def _hold(self, most: int) -> None:
        """Renew the leases of what this shard runs, and take `most` of those that are free."""
        if self._texts and not self._closed:
            dead, self._dead = self._dead, ""  # once: it may have been silent only, and own them again
            free = list(self._texts.keys() - self._runners.keys())
            random.shuffle(free)
            idents = [*self._runners, *free]
            keys = [self._lease + ident for ident in idents]
            args = [self._address, LEASE, 0 if self._draining else most, dead, len(self._runners)]
            self._scripts["holdWorkers"].send(keys, args, partial(self._held, idents, clock() + LEASE / 1000))

    def _held(self, idents: list[str], until: float, owners: Any) -> None:
        """Run what is ours `until` a time of `clock`: the leases were renewed after we have asked for it."""
        if isinstance(owners, Exception) or self._closed:
            return
        self._free = sum(owner == 0 for owner in owners)
        for ident, owner in zip(idents, owners, strict=True):
            if owner == 1 and ident in self._runners:
                self._runners[ident].own(until)
            elif owner == 1 and ident in self._texts and not self._draining:
                self._run(ident, until)
            elif owner < 0 and ident in self._runners:
                log.warning("webhook %s: another shard runs it now", ident)
                self._retire(self._runners.pop(ident))

    def _run(self, ident: str, until: float) -> None:
        """Run a registration that is ours `until` then; one that cannot be run is left alone until it changes."""
        try:
            self._start(ident, until)
        except Exception:
            log.exception("webhook %s cannot be run", ident)
            self._runners.pop(ident, None)
            del self._texts[ident]
            self._release(ident)

    def _start(self, ident: str, until: float) -> None:
        text = self._texts[ident]
        registration = read_stored(text)
        assert registration is not None  # `_refresh` has looked
        from bullmq_proxy.gateway.webhooks.runner import Runner  # noqa: PLC0415 - see `TestIdleCost`

        runner = self._runners[ident] = Runner(ident, text, registration, self._broker, self.guard)
        runner.own(until)
        runner.start([before for before in self._retiring if before.ident == ident])
        log.info("webhook %s: jobs of %s go to %s", ident, registration.queue, registration.place)

    def _give_up(self, ident: str) -> None:
        """Run a registration no more that is gone."""
        self._retire(self._runners.pop(ident))
        self._release(ident)

    def _release(self, ident: str) -> None:
        keys = [self._lease + ident]
        self._scripts["deleteOwn"].send(keys, [self._address], _ignore)

    def _retire(self, runner: Runner) -> None:
        self._retiring.add(runner)
        runner.retire(self._retired)

    def _retired(self, runner: Runner) -> None:
        self._retiring.discard(runner)
        self._tasks.spawn(runner.close())

    # The end

    def drain(self) -> None:
        """Take no more jobs; whoever has nothing under way is another shard's at once."""
        self._draining = True
        for runner in self._runners.values():
            runner.retire(_nothing)
        self.hand_on()

    def hand_on(self) -> None:
        """Give up the leases of those that have no request under way any more."""
        for ident, runner in list(self._runners.items()):
            if runner.is_idle:
                self._retiring.add(self._runners.pop(ident))
                self._release(ident)

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return all(runner.is_idle for runner in (*self._runners.values(), *self._retiring))

    async def close(self) -> None:
        """End everything: what has no answer yet goes back to wait."""
        self._closed = True
        for ident in self._runners:
            self._release(ident)
        for runner in (*self._runners.values(), *self._retiring):
            await runner.close()
        self._runners.clear()
        self._retiring.clear()
        await self._tasks.wait()


def ident_of(name: str, queue: str) -> str:
    """Return under what a registration is stored; there is no `:` in the names of queues."""
    return f"{queue}:{name}"


def queue_of(ident: str) -> str:
    """Return the queue of a registration."""
    return ident.partition(":")[0]


def name_of(ident: str) -> str:
    """Return the name of a registration."""
    return ident.partition(":")[2]


def _pairs(reply: list[bytes]) -> dict[str, bytes]:
    """Return the registrations by their idents."""
    flat = iter(reply)
    return {text_of(ident): text for ident, text in zip(flat, flat, strict=True)}


def _readable(texts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the registrations that this version can run; the others are for shards of the one that wrote them."""
    read = {ident: text for ident, text in texts.items() if read_stored(text) is not None}
    for ident in texts.keys() - read.keys():
        log.error("webhook %s: the registration in Redis cannot be read: put it again", ident)
    return read


def _check_stored(outcome: int, name: str) -> None:
    """Raise CONFLICT for what could not be stored."""
    if outcome != _STORED:
        raise GatewayError(ErrorCode.CONFLICT, _WHY_NOT[outcome].format(name[:100]))


_WHY_NOT: Final = {
    _CHANGED: "Others change the worker {} at this moment: look at it, and try again",
    _TOO_MANY: f"There are {MOST_WORKERS} workers, which is the most: delete one first",
    _TOO_MANY_OF_KEY: f"The key has registered {MOST_OF_A_KEY} workers, which is the most: delete one first",
}


def _missing(name: str) -> GatewayError:
    return GatewayError(ErrorCode.NOT_FOUND, f"There is no worker {name[:100]}")


def _nothing(runner: Runner) -> None:
    """Do nothing: the end of the shard closes the runner."""


def _ignore(reply: Any) -> None:
    """Expect no reply: a lease that was not given up expires."""
