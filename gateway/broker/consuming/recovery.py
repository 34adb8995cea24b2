"""Orphans: jobs in `active` whose lock is ours although nobody of us holds them; they are given back at once.

They are left behind by a predecessor in our slot that was killed, and by a link that broke before the reply to a fetch.
BullMQ's own check would find them too, after 30 to 60 seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from bullmq_proxy.gateway.broker.consuming.settling import STALLED_TOO_OFTEN
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.errors import reply_error
from bullmq_proxy.gateway.broker.redis.socket import pack_command, settle

log = logging.getLogger(__name__)

IsOrphan = Callable[[str, str], bool]


async def give_back(queue: Queue, is_orphan: IsOrphan, *, limit: int | None = None) -> int:
    """Give back all orphans of a queue.

    Args:
        queue: where to look.
        is_orphan: takes a lock's token and a job id, and says whether the job is ours and yet in nobody's hands.
        limit: their holder was killed: count that, and let a job fail whose holders are killed more often. None does
            not count: the job has nothing to do with it.

    Returns:
        How many there were.

    Raises:
        GatewayError: Redis is not reachable.
    """
    ids: list[str] = await queue.link.call("LRANGE", queue.key("active"), 0, -1)
    orphans = await _find(queue, ids, is_orphan) if ids else []
    for id, token in orphans:
        await _release(queue, id, token, limit)
    if orphans:
        log.info("%d orphaned jobs of %s are back in wait", len(orphans), queue.name)
    return len(orphans)


def _find(queue: Queue, ids: list[str], is_orphan: IsOrphan) -> asyncio.Future[list[tuple[str, str]]]:
    """Ids and tokens of the orphans among `ids`.

    They are judged right when the reply comes, not a turn later: then every earlier reply has been seen and no later
    one, so a job that is handed out or given back meanwhile cannot be taken for an orphan.
    """
    found: asyncio.Future[list[tuple[str, str]]] = asyncio.get_running_loop().create_future()

    def judge(locks: Any) -> None:
        if isinstance(locks, Exception):
            settle(found, reply_error(locks))
        else:
            pairs = zip(ids, locks, strict=True)
            settle(found, [(id, token) for id, token in pairs if token is not None and is_orphan(token, id)])

    queue.link.send(pack_command("MGET", *(queue.key(f"{id}:lock") for id in ids)), judge, decode=True)
    return found


async def _release(queue: Queue, id: str, token: str, limit: int | None) -> None:
    if limit is not None:
        count = await queue.scripts["countVanished"].run(queue.keys(id, f"{id}:lock"), [token])
        if count > limit:  # as moveStalledJobsToWait-9.lua: whoever takes it next lets it fail
            await queue.link.call("HSET", queue.key(id), "defa", STALLED_TOO_OFTEN)
    await queue.scripts["moveJobFromActiveToWait"].run(queue.release_keys, [id, token, queue.key(id)])
    queue.wake()
