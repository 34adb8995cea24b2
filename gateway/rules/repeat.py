"""Job schedulers: which repeat options are right, when the next job is due, and what its options are, as in Node.

The rules are those of Node's `Queue.upsertJobScheduler` and `JobScheduler`. They hold for the one who sets a scheduler
up and for the workers, who create the next job when they take one. For `every` the script computes when that is due.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, NamedTuple, cast

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.rules.cron import LAST_INSTANT, next_fire
from bullmq_proxy.gateway.rules.dates import javascript_instant
from bullmq_proxy.gateway.rules.jobs import EMPTY_OBJECT, long_names, read_options
from bullmq_proxy.gateway.rules.options import JobOptions, Refused, kept_parent, short_names, wrong_template
from bullmq_proxy.gateway.rules.shapes import AddedJob
from bullmq_proxy.gateway.values.numbers import Count
from bullmq_proxy.gateway.values.text import text_of

# Lua writes 14 digits of a number into a job's id: dates from the year 5138 on would share one.
LATEST_START: Final = 90_000_000_000_000
LONGEST: Final = 5_000_000_000_000
"""Milliseconds: the longest `every` and `offset`; both after the latest start date are still 14 digits."""

Date = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(max_length=40)]


class RepeatOptions(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """When a job scheduler's jobs are due: either `pattern` or `every`.

    Attributes:
        pattern: a cron pattern of one to six fields (docs/cron.md).
        every: milliseconds from one job to the next.
        limit: the most jobs.
        start_date: none is due before; milliseconds or ISO 8601.
        end_date: none is created after; milliseconds or ISO 8601.
        tz: the time zone of the pattern.
        immediately: the first one is due at once.
        offset: milliseconds by which jobs are due after the multiples of `every`.
        count: of the jobs so far.
    """

    pattern: str | UnsetType = UNSET
    every: Annotated[int, Meta(ge=0, le=LONGEST)] | UnsetType = UNSET
    limit: Count | UnsetType = UNSET
    start_date: Date | UnsetType = UNSET
    end_date: Date | UnsetType = UNSET
    tz: str | UnsetType = UNSET
    immediately: bool | UnsetType = UNSET
    offset: Annotated[int, Meta(ge=0, le=LONGEST)] | UnsetType = UNSET
    count: Count | UnsetType = UNSET


class TemplateOptions(JobOptions, frozen=True):
    """The options of a scheduler's jobs: those of a job, without what the scheduler decides."""

    # Known only to be refused.
    job_id: Refused | UnsetType = UNSET  # type: ignore[assignment]
    delay: Refused | UnsetType = UNSET  # type: ignore[assignment]
    deduplication: Refused | UnsetType = UNSET  # type: ignore[assignment]
    repeat: Refused | UnsetType = UNSET


_DECIDED: Final = ("jobId", "delay", "deduplication", "repeat")


class Iteration(NamedTuple):
    """The next job of a scheduler.

    Attributes:
        due: when, in milliseconds since 1970; None for `every`, where the script knows.
        options: of the job, under Node's names.
    """

    due: int | None
    options: dict[str, Any]


def given_repeat(options: RepeatOptions, place: str) -> dict[str, Any]:
    """Return a client's repeat options by their names.

    Raises:
        GatewayError: INVALID_ARGUMENTS for a date that is none, or too late.
    """
    repeat: dict[str, Any] = msgspec.to_builtins(options)
    for name, latest in (("startDate", LATEST_START), ("endDate", LAST_INSTANT)):
        if name in repeat:
            instant = _instant(repeat[name])
            if instant is None:
                raise invalid_arguments(f"Expected milliseconds or a date in ISO 8601 - at `{place}.{name}`")
            if instant > latest:
                raise invalid_arguments(f"Expected a date up to {latest} ms - at `{place}.{name}`")
    if repeat.get("every") == 0 and repeat.get("pattern"):
        raise invalid_arguments(f"Expected a whole number >= 1 - at `{place}.every`")
    return repeat


def given_template(options: TemplateOptions | None, place: str) -> dict[str, Any]:
    """Return a client's options for the jobs of a scheduler, by their names.

    Raises:
        GatewayError: INVALID_ARGUMENTS for one that the scheduler decides.
    """
    template: dict[str, Any] = {} if options is None else msgspec.to_builtins(options)
    for name in _DECIDED:
        if name in template:
            raise invalid_arguments(f"The jobs of a scheduler cannot have this option - at `{place}.{name}`")
    return template


def check_repeat(repeat: dict[str, Any], options: dict[str, Any]) -> None:
    """Check as Node's JobScheduler does, in its order and words.

    Args:
        repeat: the repeat options.
        options: of the template, or of a job.

    Raises:
        GatewayError: INVALID_ARGUMENTS.
    """
    pattern, every = repeat.get("pattern"), repeat.get("every")
    wrong = None
    if pattern and every:
        wrong = "Both .pattern and .every options are defined for this repeatable job"
    elif not pattern and not every:
        wrong = "Either .pattern or .every options must be defined for this repeatable job"
    elif repeat.get("immediately") and repeat.get("startDate"):
        wrong = "Both .immediately and .startDate options are defined for this repeatable job"
    elif "debounce" in options:
        wrong = "Debounce option has been removed. Use deduplication option instead"
    if wrong:
        raise invalid_arguments(wrong)


def check_template(options: dict[str, Any]) -> None:
    """Refuse what would break the jobs of a scheduler.

    Raises:
        GatewayError: INVALID_ARGUMENTS.
    """
    if wrong := wrong_template(options):
        raise invalid_arguments(wrong)


def check_end_date(repeat: dict[str, Any], now: int) -> None:
    """Check what only the one who sets a scheduler up goes through, before all others.

    Raises:
        GatewayError: INVALID_ARGUMENTS.
    """
    end = _instant(repeat.get("endDate"))
    if end and end < now:
        raise invalid_arguments("End date must be greater than current timestamp")


def next_iteration(scheduler_id: str, repeat: dict[str, Any], options: dict[str, Any], now: int) -> Iteration | None:
    """Return the next job of a scheduler, or None where there is none: the limit or the end date is reached.

    Args:
        scheduler_id: the scheduler's id.
        repeat: the repeat options, as a client gives them or as they stand in a job's options.
        options: of the template, or of the job that has been taken; its `prevMillis` counts.
        now: the time in milliseconds.

    Raises:
        GatewayError: INVALID_ARGUMENTS in cron-parser's words.
    """
    count = int(_number(repeat.get("count"))) + 1
    limit = repeat.get("limit")
    if limit is not None and count > _number(limit):
        return None
    start, end = _instant(repeat.get("startDate")), _instant(repeat.get("endDate"))
    if end and now > end:
        return None
    due, offset = None, None
    if repeat.get("every"):
        offset = repeat.get("offset") or None
    else:
        after = max(now, int(_number(options.get("prevMillis"))))
        due = next_fire(
            str(repeat["pattern"]),
            max(after, start or after),
            tz=repeat.get("tz"),
            start_date=_cron_date(repeat.get("startDate")),
            end_date=_cron_date(repeat.get("endDate")),
        )
        if repeat.get("immediately"):
            due = now
        if due is None:
            return None
        due = max(due, after)
    kept = {name: value for name, value in repeat.items() if name not in ("immediately", "startDate", "endDate")}
    kept.update(offset=offset, count=count)
    kept.update({name: date for name, date in (("startDate", start), ("endDate", end)) if date})
    job = {name: value for name, value in options.items() if name != "prevMillis"}
    job.update(
        repeat=kept,
        jobId=f"repeat:{scheduler_id}:{'undefined' if due is None else due}",
        timestamp=now,
        repeatJobKey=scheduler_id,
    )
    if due is not None:
        job.update(delay=max(0, due - now), prevMillis=due)
    return Iteration(due, job)


def _cron_date(date: Any) -> int | str | None:
    """Return a date for cron-parser, which reads texts by itself."""
    return date if isinstance(date, str) else int(_number(date)) or None


def scheduler_options(name: str, repeat: dict[str, Any], iteration: Iteration) -> dict[str, Any]:
    """Return what the script stores in the scheduler itself."""
    kept = iteration.options["repeat"]
    options = {"name": name, **{key: kept.get(key) for key in ("startDate", "endDate", "offset")}}
    options.update({key: repeat.get(key) for key in ("tz", "pattern", "every", "limit")})
    return {key: value for key, value in options.items() if value is not None}


def stored_options(options: dict[str, Any]) -> dict[str, Any]:
    """Job options in the form in which the scripts take them."""
    stored = short_names(options)
    if "repeat" in stored:  # Redis' msgpack knows null, but a null in a Lua table is none
        stored["repeat"] = {name: value for name, value in stored["repeat"].items() if value is not None}
    return stored


def taken_options(text: bytes | None) -> dict[str, Any]:
    """Return the options of a job that has been taken, as Node's Worker sees them."""
    options = long_names(read_options(text))
    options.pop("repeatJobKey", None)
    return _with_backoff({"attempts": 0, **options})


def _with_backoff(options: dict[str, Any]) -> dict[str, Any]:
    """Options whose backoff is an object, as each Node `Job` has them; in a scheduler's jobs a number is stored."""
    backoff = options.get("backoff")
    if isinstance(backoff, int | float) and not isinstance(backoff, bool):
        return {**options, "backoff": {"type": "fixed", "delay": backoff}}
    return options


def created_iteration(id: bytes, name: str, data: Raw, iteration: Iteration, delay: int, queue: str) -> AddedJob:
    """Return the job as `upsertJobScheduler` returns it.

    Args:
        id: what the script returned.
        name: of the job.
        data: of the job, as JSON text.
        iteration: the job's options.
        delay: milliseconds until it is due, as the script says.
        queue: the qualified name, `<prefix>:<queue>`.
    """
    options = dict(iteration.options)
    key = options.pop("repeatJobKey")
    job: dict[str, Any] = {
        "name": name,
        "data": data,
        "opts": _with_backoff({"attempts": 0, **options, "delay": delay}),
        "id": text_of(id),
        "progress": 0,
        "returnvalue": None,
        "stacktrace": None,
        "delay": delay,
        "priority": options.get("priority", 0),
        "attemptsStarted": 0,
        "attemptsMade": 0,
        "stalledCounter": 0,
        "repeatJobKey": key,
        "timestamp": options["timestamp"],
        "queueQualifiedName": queue,
    }
    if parent := options.get("parent"):
        job["parentKey"] = f"{parent['queue']}:{parent['id']}"
        job["parent"] = kept_parent(parent, options)
    return cast(AddedJob, job)


def template_data(text: Raw) -> Raw:
    """Return a template's data as it is stored: `{}` in place of none, and of any other way to write it.

    The script keeps no data for a scheduler whose data is `{}`, to the letter.
    """
    return EMPTY_OBJECT if re.fullmatch(rb"\s*(null|\{\s*\})\s*", bytes(memoryview(text)[:64])) else text


def _instant(date: Any) -> int | None:
    """Return the milliseconds of `new Date(date)`; None where that is invalid."""
    if isinstance(date, str):
        return javascript_instant(date)
    number = _number(date)
    return int(number) if abs(number) <= LAST_INSTANT else None


def _number(value: Any) -> float:
    """Return a stored number; 0 where there is none."""
    return value if isinstance(value, int | float) else float(value or 0)
