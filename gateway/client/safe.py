"""Which calls that write may be made a second time: those that add jobs under ids, which are made here if need be."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

KEPT: Final = 1000
"""Finished jobs that stay, at least, for an `add` to be safe: the second one must find the job of the first."""
KEPT_AGE: Final = 600
"""Seconds that finished jobs stay, at least, for that."""


def made_safe(api: str, fn: str, args: list[Any]) -> tuple[list[Any], bool]:
    """Return the arguments of a call that writes, with ids for new jobs, and whether it may be made twice."""
    match (api, fn):
        case ("queue", "add" | "addAndWait"):
            name, data, opts, *rest = [*args, {}, {}][: max(len(args), 3)]
            opts, is_safe = _with_id(opts)
            return [name, data, opts, *rest], is_safe
        case ("queue", "addBulk"):
            jobs, safe = _each(args[0], _named)
            return [jobs, *args[1:]], safe
        case ("flows", "add"):
            flow, is_safe = _node(args[0])
            return [flow, *args[1:]], is_safe and len(args) == 1
        case ("flows", "addBulk"):
            flows, safe = _each(args[0], _node)
            return [flows, *args[1:]], safe
    return args, False


def is_made_here(data: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Return whether the job of a result has the id that was made here for it."""
    args = data.get("args") or []
    opts = args[2] if len(args) > 2 and data.get("fn") == "add" else None
    return isinstance(opts, _Made) and opts["jobId"] == result.get("id")


class _Made(dict[str, Any]):
    """Options with an id that was made here."""


def _with_id(opts: Any) -> tuple[Any, bool]:
    if opts is not None and not isinstance(opts, Mapping):
        return opts, False  # the gateway says what is wrong
    opts = opts or {}
    made = opts if opts.get("jobId") is not None else _Made(opts, jobId=str(uuid.uuid4()))
    return made, all(_stays(opts.get(name)) for name in ("removeOnComplete", "removeOnFail"))


def _stays(keep: Any) -> bool:
    """Return whether a finished job is there for long enough."""
    if keep is None or isinstance(keep, bool):
        return not keep
    if isinstance(keep, Mapping):
        return _stays(keep.get("count")) and keep.get("age", KEPT_AGE) >= KEPT_AGE
    return isinstance(keep, int) and (keep < 0 or keep >= KEPT)


def _named(job: Any) -> tuple[Any, bool]:
    if not isinstance(job, Mapping):
        return job, False
    opts, is_safe = _with_id(job.get("opts"))
    return {**job, "opts": opts}, is_safe


def _node(node: Any) -> tuple[Any, bool]:
    made, is_safe = _named(node)
    if isinstance(made, dict) and made.get("children"):
        made["children"], safe_too = _each(made["children"], _node)
        return made, is_safe and safe_too
    return made, is_safe


def _each(values: Any, make: Any) -> tuple[Any, bool]:
    if not isinstance(values, list | tuple):
        return values, False
    made = [make(each) for each in values]
    return [each for each, _ in made], all(is_safe for _, is_safe in made)
