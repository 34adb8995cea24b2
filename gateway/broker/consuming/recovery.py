"""Orphans: jobs in `active` whose lock is ours although nobody of us holds them; they are given back at once.

They are left behind by shards that were killed, and by a link that broke before the reply to a fetch. BullMQ's own
check would find them too, after 30 to 60 seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from bullmq_proxy.gateway.broker.consuming.leases import Leases
from bullmq_proxy.gateway.broker.consuming.stalled import AT_A_TIME, CHECK_KEYS
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.errors import reply_error
from bullmq_proxy.gateway.broker.redis.socket import pack_command, resolve
from bullmq_proxy.gateway.broker.tasks import Tasks
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions

log = logging.getLogger(__name__)

_LOOKED_AT: Final = 1000  # locks that one command reads

IsOrphan = Callable[[str, str], bool]

_MAX_STALLED_COUNT: Final = WorkerOptions().max_stalled_count  # nobody knows what the clients of the dead asked for


class Recovery:
    """Remembers in which queues a fetch of this shard may be lost, and searches them whenever Redis can be asked."""

    def __init__(self, queue: Callable[[str], Queue], leases: Leases) -> None:
        """Make one for a shard.

        Args:
            queue: gives the queue of a name.
            leases: of the shard, which know what an orphan is.
        """
        self._queue = queue
        self._leases = leases
        self._of_lost_fetches: set[str] = set()
        self._tasks = Tasks()

    def expect_lost_fetches(self, queues: Iterable[str]) -> None:
        """Remember that the reply to a fetch from these queues may have been lost."""
        self._of_lost_fetches.update(queues)

    def search(self) -> None:
        """Begin to search all queues that were remembered; those for which the link breaks are remembered again."""
        while self._of_lost_fetches:
            self._tasks.spawn(self._search_for_lost_fetches(self._of_lost_fetches.pop()))

    async def close(self) -> None:
        """Wait for the searches; a closed link ends them."""
        await self._tasks.wait()

    async def _search_for_lost_fetches(self, name: str) -> None:
        try:
            await give_back(self._queue(name), self._leases.is_lost)
        except GatewayError:
            self.expect_lost_fetches((name,))


async def take_back(queue: Queue, dead: Identity) -> int:
    """Give back the jobs of a dead shard, with whatever has lost its lock; they count as stalled.

    Args:
        queue: where to look.
        dead: the shard; those before it in its slot are dead, too.

    Returns:
        How many there were.

    Raises:
        GatewayError: Redis is not reachable.
    """
    keys, count, passed = queue.keys(*CHECK_KEYS), 0, 0
    while passed >= 0:
        args = [_MAX_STALLED_COUNT, queue.base, now_ms(), 0, passed, AT_A_TIME]
        dead_args = [f"{dead.run}:{dead.slot}:", dead.incarnation + 1]
        passed, taken = await queue.scripts["stalledSlice"].run(keys, [*args, *dead_args])
        count += len(taken)
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
