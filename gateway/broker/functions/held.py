"""Jobs that a caller holds: what a key without the permission `manage` may write on, and give children."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bullmq_proxy.gateway.access.grants import MANAGERS, Grant, Permission
from bullmq_proxy.gateway.broker.consuming.tokens import ANY_KEY, parse_token
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink, Links
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, invalid_arguments
from bullmq_proxy.gateway.rules.options import Prepared
from bullmq_proxy.gateway.values.slots import ONE_SLOT

GIVE_CHILD: Final = "give it a child"
_GIVES_CHILD: Final = "gives a job of others a child"
_ADOPTERS: Final = MANAGERS | {Permission.CONSUME}  # a worker adds to the job that it holds

_ROUND: Final = 200  # jobs whose locks are read in one round trip


async def check_held(queue: Queue, job_id: str, token: str | None, grant: Grant, action: str) -> None:
    """Refuse what a key may do only with a job that it holds; other arguments as for `check_all_held`."""
    await check_all_held(queue.link, [queue.key(job_id)], grant, action, token)


async def check_all_held(link: Links, keys: Sequence[str], grant: Grant, action: str, token: str | None = None) -> None:
    """Refuse what a key may do only with jobs that it holds.

    A job that a Worker connection holds is its key's. What else has locked a job says nothing of a key: it takes the
    token. A job that is missing is left to the function, which says so.

    Args:
        link: to Redis, of any queue.
        keys: of the jobs' hashes.
        grant: of the caller.
        action: such as `call updateJobData for it`, for the message.
        token: under which the caller says that it has locked the jobs, by hand.

    Raises:
        GatewayError: FORBIDDEN.
    """
    if grant.allows(Permission.MANAGE):
        return
    together: dict[CommandLink, list[str]] = {}  # on a cluster, those of each slot
    for key in keys:
        together.setdefault(link.of(key), []).append(key)
    rounds = [
        (each, theirs[first : first + _ROUND])
        for each, theirs in together.items()
        for first in range(0, len(theirs), _ROUND)
    ]
    for each, some in rounds:
        locks = await each.call("MGET", *(f"{key}:lock" for key in some))
        loose = [key for key, lock in zip(some, locks, strict=True) if not _holds(grant.key, token, lock)]
        if loose and await each.call("EXISTS", *loose):
            raise GatewayError(
                ErrorCode.FORBIDDEN,
                f"The key {grant.key} does not hold the job {loose[0].rpartition(':')[2][:100]}, and may not {action}:"
                f" it needs the token of the job's lock, or the permission {Permission.MANAGE}",
            )


def _holds(key: str, token: str | None, lock: str | None) -> bool:
    owner = None if lock is None else parse_token(lock)
    if owner is None or owner.key == ANY_KEY:
        return lock is not None and lock == token
    return owner.key == key


def check_options(options: Prepared, place: str, prefix: str, grant: Grant, link: CommandLink) -> list[str]:
    """Check what a job's options do to others; whether its parent is the caller's is still to be asked.

    Args:
        options: of the job.
        place: in the arguments.
        prefix: of the gateway's own queues.
        grant: of the caller.
        link: of the job's queue.

    Returns:
        The keys of the jobs that the caller must hold: the parent, which will wait for the job and can fail with it.

    Raises:
        GatewayError: FORBIDDEN.
    """
    grant.check_effects(options.effects, f"{place}.")
    if options.parent is None or options.parent_key is None:
        return []
    if link.of(options.parent_key) is not link:
        raise invalid_arguments(f"{ONE_SLOT} - at `{place}.parent`")
    grant.check_reach(prefix, [options.parent["queueKey"]])
    grant.check_any_permission(_ADOPTERS, f"set `{place}.parent`, which {_GIVES_CHILD}")
    return [] if grant.allows(Permission.MANAGE) else [options.parent_key]
