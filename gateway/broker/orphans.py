"""Orphans: jobs in `active` whose lock is ours although nobody of us holds them; they are given back at once.

They are left behind by a predecessor in our slot that was killed, and by a link that broke before the reply to a fetch.
BullMQ's own check would find them too, after 30 to 60 seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.broker.queue import Queue
from gateway.wire.errors import GatewayError

log = logging.getLogger(__name__)


async def give_back(queue: Queue, is_orphan: Callable[[str, str], bool]) -> int:
    """Give back all orphans of a queue.

    Args:
        queue: where to look.
        is_orphan: takes a lock's token and a job id, and says whether the job is ours and yet in nobody's hands. It is
            asked in the order of replies, so it knows of every job that was handed out before the look.

    Returns:
        How many there were.
    """
    try:
        ids: list[str] = await queue.link.call("LRANGE", queue.key("active"), 0, -1, writes=False)
        if not ids:
            return 0
        locks = await queue.link.call("MGET", *(queue.key(f"{id}:lock") for id in ids), writes=False)
        orphans = [
            (id, token) for id, token in zip(ids, locks, strict=True) if token is not None and is_orphan(token, id)
        ]
        for id, token in orphans:
            await _release(queue, id, token)
    except GatewayError as error:
        log.warning("looking for orphans of %s: %s", queue.name, error)
        return 0
    if orphans:
        log.info("%d orphaned jobs of %s are back in wait", len(orphans), queue.name)
    return len(orphans)


async def _release(queue: Queue, id: str, token: str) -> None:
    """Back to wait, and counted in `stc`: a job that kills its shard must not circle for ever either."""
    await queue.commands["countVanished"](queue.keys(id, f"{id}:lock"), [token])
    await queue.commands["moveJobFromActiveToWait"](queue.release_keys, [id, token, queue.key(id)])
    queue.wake()
