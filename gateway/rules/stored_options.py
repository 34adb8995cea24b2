"""Options of a job as they stand in Redis, where any program can write them; read by JavaScript's conversions."""

from __future__ import annotations

import math
import random
from typing import Any, Final

from msgspec import UNSET, Struct

from bullmq_proxy.gateway.rules.jobs import read_options, remembered
from bullmq_proxy.gateway.rules.trace_context import cut
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER, is_true, number_of

PARENT_FLAGS: Final = ("fpof", "cpof", "idof", "rdof")
"""What becomes of the parent when the job fails, under the names of moveToFinished-14.lua."""

KeptJobs = dict[str, float]
"""How many finished jobs stay, as moveToFinished-14.lua is told: `count`, `age` in s, `limit`."""


class StoredOptions(Struct, frozen=True):
    """What moving a job on needs of its options.

    Attributes:
        attempts: how often it is tried; 0 and 1 are once.
        delay: ms that it was to wait before it could be taken.
        backoff: before a retry, as stored; see `backoff_delay`.
        lifo: whether a retry comes in front of those that wait.
        keep_logs: rows of the log that stay; None for all.
        keep_completed: how many completed jobs stay; None where the worker says it.
        keep_failed: how many failed ones.
        flags: `PARENT_FLAGS`.
        stack_trace_limit: as stored; see `limited_traces`.
        key: equal for options by which jobs are finished alike.
    """

    attempts: int
    delay: int
    backoff: Any
    lifo: bool
    keep_logs: int | None
    keep_completed: KeptJobs | None
    keep_failed: KeptJobs | None
    flags: tuple[bool, ...]
    stack_trace_limit: Any
    key: str


@remembered
def stored_options(text: bytes | None) -> StoredOptions:
    """Read stored options; what is no JSON object counts as none."""
    if text is not None and (parts := cut(text)) is not None:
        return stored_options(parts[1])
    options = read_options(text)
    attempts = whole(number_of(options.get("attempts", 0)))
    completed = keep_jobs(options.get("removeOnComplete", UNSET))
    failed = keep_jobs(options.get("removeOnFail", UNSET))
    flags = tuple(is_true(options.get(flag)) for flag in PARENT_FLAGS)
    return StoredOptions(
        attempts=attempts,
        delay=max(0, whole(number_of(options.get("delay", 0)))),
        backoff=options.get("backoff"),
        lifo=is_true(options.get("lifo")),
        keep_logs=whole(number_of(options["kl"])) or None if "kl" in options else None,
        keep_completed=completed,
        keep_failed=failed,
        flags=flags,
        stack_trace_limit=options.get("stackTraceLimit"),
        key=repr((attempts, completed, failed, flags)),
    )


def whole(number: float) -> int:
    """Return a number without its fraction, within what JavaScript counts exactly; NaN is 0."""
    if math.isnan(number):
        return 0
    return int(max(-MAX_SAFE_INTEGER, min(number, MAX_SAFE_INTEGER)))


def keep_jobs(remove: Any) -> KeptJobs | None:
    """Return how many finished jobs stay (Node's `getKeepJobs`).

    Args:
        remove: `removeOnComplete` or `removeOnFail`: a number, an object, or any value for its truth. UNSET where it
            is not given: then None is returned.

    Where Node passes on what breaks moveToFinished-14.lua halfway (a null, a text in place of a number), the number
    that stands in the text counts, or nothing: the job is finished all the same.
    """
    if remove is UNSET:
        return None
    if isinstance(remove, dict):
        limits = {name: number_of(remove[name]) for name in ("age", "count", "limit") if name in remove}
        return {name: limit for name, limit in limits.items() if abs(limit) <= MAX_SAFE_INTEGER} or {"count": -1}
    if remove is None or isinstance(remove, list):
        return {"count": -1}
    if isinstance(remove, int | float) and not isinstance(remove, bool):
        return {"count": whole(remove)}
    return {"count": 0 if remove else -1}


def backoff_delay(backoff: Any, attempts_made: int) -> int | None:
    """Return the milliseconds until the next attempt, or None when there is to be none (Node's backoffs.js).

    Args:
        backoff: as stored: `{"type", "delay", "jitter"?}`, or a number for a fixed delay, or nothing.
        attempts_made: the attempts so far, this failure counted.

    A type that only a custom worker knows is treated as `fixed`: the gateway cannot ask the client's code.
    """
    if isinstance(backoff, dict):
        delay, jitter = number_of(backoff.get("delay", 0)), number_of(backoff.get("jitter", 0))
        if backoff.get("type") == "exponential":
            delay *= 2.0 ** min(attempts_made - 1, 62)
    else:
        delay, jitter = number_of(backoff), 0
    if jitter > 0:
        return whole(random.random() * delay * jitter + delay * (1 - jitter))
    return None if delay == -1 else whole(delay + 0.5)


def limited_traces(traces: list[Any], limit: Any) -> list[Any]:
    """Return the newest traces, which stay, as JavaScript's `traces.slice(-limit)` does; all without a limit."""
    if limit == 0 and not isinstance(limit, bool):
        return []
    return traces[-whole(number_of(limit)) :] if is_true(limit) else traces
