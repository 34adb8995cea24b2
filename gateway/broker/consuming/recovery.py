"""Orphans: jobs in `active` whose lock is ours although nobody of us holds them; they are given back at once.

They are left behind by shards that were killed, and by a link that broke before the reply to a fetch. BullMQ's own
check would find them too, after 30 to 60 seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from bullmq_proxy.gateway.broker.consuming.leases import Leases
from bullmq_proxy.gateway.broker.consuming.stalled import AT_A_TIME, CHECK_KEYS
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.errors import reply_error, will_pass
from bullmq_proxy.gateway.broker.redis.socket import pack_command, resolve
from bullmq_proxy.gateway.broker.tasks import Tasks
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions

log = logging.getLogger(__name__)

_LOOKED_AT: Final = 1000  # locks that one command reads
_MOST_PASSES: Final = 10  # through the active jobs: those that end meanwhile let one pass over others

_PAUSE: Final = 1.0  # s before another search where one has failed
_SOON: Final = 0.05  # s: of many locks that have expired one search finds all

IsOrphan = Callable[[str, str], bool]

_MAX_STALLED_COUNT: Final = WorkerOptions().max_stalled_count  # nobody knows what the clients of the dead asked for


class Recovery:
    """Remembers which queues are to be searched, and searches them as soon as Redis can be asked."""

    def __init__(self, queue: Callable[[str], Queue], leases: Leases) -> None:
        """Make one for a shard.

        Args:
            queue: gives the queue of a name.
            leases: of the shard, which know what an orphan is, and tell when a lock is gone.
        """
        self._queue = queue
        self._leases = leases
        leases.on_lock_gone = self.expect_expired
        self._lost_fetches: set[str] = set()
        self._expired: set[str] = set()
        self._tasks = Tasks()
        self._next: asyncio.TimerHandle | None = None

    def expect_lost_fetches(self, queues: Iterable[str]) -> None:
        """Remember that the reply to a fetch from these queues may have been lost; `search` is to follow."""
        self._lost_fetches.update(queues)

    def expect_expired(self, queue: str) -> None:
        """Search a queue soon for jobs whose lock is gone although they are active: one of ours has lost it."""
        self._expired.add(queue)
        self._search_in(_SOON)

    def _search_in(self, seconds: float) -> None:
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(seconds, self.search)

    def search(self) -> None:
        """Begin to search all queues that were remembered; those where that fails are remembered again."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        while self._lost_fetches:
            self._tasks.spawn(self._search(self._lost_fetches.pop(), self._lost_fetches, self._give_back_lost))
        while self._expired:
            self._tasks.spawn(self._search(self._expired.pop(), self._expired, take_back))

    async def close(self) -> None:
        """Wait for the searches; a closed link ends them."""
        await self._tasks.wait()
        if self._next is not None:
            self._next.cancel()

    async def _search(self, name: str, remembered: set[str], search: Callable[[Queue], Awaitable[int]]) -> None:
        try:
            await search(self._queue(name))
        except GatewayError as error:
            remembered.add(name)
            if will_pass(error):  # it may be refused while the link stays up
                self._search_in(_PAUSE)

    def _give_back_lost(self, queue: Queue) -> Awaitable[int]:
        return give_back(queue, self._leases.is_lost)


async def take_back(queue: Queue, dead: Identity | None = None) -> int:
    """Give back the active jobs that have lost their lock, and those of a dead shard; they count as stalled.

    Args:
        queue: where to look.
        dead: the shard; those before it in its slot are dead, too.

    Returns:
        How many there were.

    Raises:
        GatewayError: Redis is not reachable.
    """
    keys, count = queue.keys(*CHECK_KEYS), 0
    of_dead = (f"{dead.run}:{dead.slot}:", dead.incarnation + 1) if dead is not None else ("", 0)
    for _ in range(_MOST_PASSES):
        before, passed = count, 0
        while passed >= 0:
            args = [_MAX_STALLED_COUNT, queue.base, now_ms(), 0, passed, AT_A_TIME]
            passed, taken = await queue.scripts["stalledSlice"].run(keys, [*args, *of_dead])
            count += len(taken)
        if count == before:
            break
    if count:
        log.info("%d jobs of %s without a holder are back in wait", count, queue.name)
    return count


async def give_back(queue: Queue, is_orphan: IsOrphan) -> int:
    """Give back all orphans of a queue, uncounted: the jobs have nothing to do with it.

    Args:
        queue: where to look.
        is_orphan: takes a lock's token and a job id, and says whether the job is ours and yet in nobody's hands.

    Returns:
        How many there were.

    Raises:
        GatewayError: Redis is not reachable.
    """
    ids: list[str] = await queue.link.call("LRANGE", queue.key("active"), 0, -1)
    orphans: list[tuple[str, str]] = []
    for first in range(0, len(ids), _LOOKED_AT):
        orphans += await _find(queue, ids[first : first + _LOOKED_AT], is_orphan)
    for id, token in orphans:
        await queue.scripts["moveJobFromActiveToWait"].run(queue.release_keys, [id, token, queue.key(id)])
        queue.wake()
    if orphans:
        log.info("%d orphaned jobs of %s are back in wait", len(orphans), queue.name)
    return len(orphans)


def _find(queue: Queue, ids: list[str], is_orphan: IsOrphan) -> asyncio.Future[list[tuple[str, str]]]:
    """Return ids and tokens of the orphans among `ids`.

    They are judged right when the reply comes, not a turn later: then every earlier reply has been seen and no later
    one, so a job that is handed out or given back meanwhile cannot be taken for an orphan.
    """
    found: asyncio.Future[list[tuple[str, str]]] = asyncio.get_running_loop().create_future()

    def judge(locks: Any) -> None:
        if isinstance(locks, Exception):
            resolve(found, reply_error(locks))
        else:
            pairs = zip(ids, locks, strict=True)
            resolve(found, [(id, token) for id, token in pairs if token is not None and is_orphan(token, id)])

    queue.link.send(pack_command("MGET", *(queue.key(f"{id}:lock") for id in ids)), judge, decode=True)
    return found
