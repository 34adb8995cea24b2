"""The JSON of a job scheduler, built from what Redis holds of it; and what BullMQ had before there were schedulers."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.jobs import Hash, long_names, payload, read_options
from bullmq_proxy.gateway.rules.shapes import JobScheduler
from bullmq_proxy.gateway.values.numbers import parse_int
from bullmq_proxy.gateway.values.text import text_of

_NUMBERS: Final = (
    (b"ic", "iterationCount"),
    (b"limit", "limit"),
    (b"startDate", "startDate"),
    (b"endDate", "endDate"),
    (b"every", "every"),
    (b"offset", "offset"),
)
_TEXTS: Final = ("tz", "pattern")


def scheduler_json(key: str, fields: Hash, due: bytes | None) -> JobScheduler | None:
    """Return a scheduler as `getJobScheduler` returns it, or None where there is none.

    Args:
        key: the scheduler's id.
        fields: its hash.
        due: the score of its id, when its next job is due.

    Raises:
        GatewayError: CONFLICT where the id looks like one of the repeatable jobs that BullMQ had before.
    """
    if not fields:
        if is_legacy_key(key):
            raise legacy_error(key)
        return None
    shown: dict[str, Any] = {"key": key, "next": parse_int(due)}
    if b"name" in fields:
        shown["name"] = text_of(fields[b"name"])
    shown.update({name: parse_int(fields[field]) for field, name in _NUMBERS if fields.get(field)})
    shown.update({name: text_of(text) for name in _TEXTS if (text := fields.get(name.encode()))})
    data, options = fields.get(b"data"), fields.get(b"opts")
    if data or options:
        template: dict[str, Any] = {}
        if data:
            template["data"] = payload(data)
        if options:
            template["opts"] = long_names(read_options(options))
        shown["template"] = template
    return cast(JobScheduler, shown)


_LEGACY: Final = re.compile(r"[^:]*:[^:]*:[0-9]*:[^:]*:(?:.* .*|[0-9]+)", re.DOTALL)


def is_legacy_key(key: str) -> bool:
    """Return whether a key looks like `name:id:endDate:tz:pattern`, as those of repeatable jobs before schedulers."""
    return _LEGACY.fullmatch(key) is not None


def legacy_error(key: str) -> GatewayError:
    """Node's refusal of repeatable jobs that are left over."""
    return GatewayError(
        ErrorCode.CONFLICT,
        f'Legacy repeatable job metadata is not supported in BullMQ v6 (key: "{key}"). Migrate legacy repeatable jobs '
        "to Job Schedulers before upgrading. See "
        "https://docs.bullmq.io/guide/migrations/migrate-from-v5-to-v6",
    )
