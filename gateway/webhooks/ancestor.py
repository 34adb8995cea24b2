"""Workers in the form of taskforcesh/bullmq-proxy: one for each queue, whose name it has."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.rules.ids import check_queue_name
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.webhooks.registration import (
    LONGEST_TIMEOUT,
    Limiter,
    Registration,
    read_body,
    read_registration,
)
from bullmq_proxy.gateway.wire.connection_options import Limits

_TIMEOUT: Final = 3000  # ms, unless a worker says it
_METHODS: Final = ("POST", "PUT", "PATCH")
_Whole = Annotated[int, Meta(ge=0)]


class _Keep(Struct, forbid_unknown_fields=True):
    count: _Whole | UnsetType = UNSET
    age: _Whole | UnsetType = UNSET


_Kept = bool | int | float | _Keep | UnsetType


class _Endpoint(Struct, forbid_unknown_fields=True):
    url: str
    method: str
    headers: dict[str, str | bool | int | float] = msgspec.field(default_factory=dict)
    timeout: _Whole = 0  # as if it were not there


class _Options(Struct, forbid_unknown_fields=True):
    concurrency: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    maxStalledCount: _Whole | UnsetType = UNSET
    limiter: Limiter | UnsetType = UNSET
    removeOnComplete: _Kept = UNSET
    removeOnFail: _Kept = UNSET


class _Worker(Struct, forbid_unknown_fields=True):
    queue: str
    endpoint: _Endpoint
    opts: _Options = msgspec.field(default_factory=_Options)


_reader: Final[Reader[_Worker]] = Reader(_Worker)


def read_worker(text: bytes | Raw, limits: Limits) -> Registration:
    """Read a worker as the ancestor's clients write it.

    Raises:
        GatewayError: INVALID_MESSAGE, no JSON; INVALID_ARGUMENTS, with the place and what is wrong there.
    """
    given = read_body(_reader, text)
    check_queue_name(given.queue, limits.max_queue_name, "`body.queue`", limits.min_queue_name)
    return read_registration(encode(_in_our_form(given)), limits)


def _in_our_form(given: _Worker) -> dict[str, Any]:
    endpoint = given.endpoint
    if endpoint.method.upper() not in _METHODS:
        raise invalid_arguments(f"Expected one of {', '.join(_METHODS)} - at `body.endpoint.method`")
    ours = {
        "url": endpoint.url,
        "method": endpoint.method.upper(),
        "headers": {
            name: text if isinstance(text, str) else encode(text).decode() for name, text in endpoint.headers.items()
        },
        "timeout": min(endpoint.timeout or _TIMEOUT, LONGEST_TIMEOUT),
    }
    return {"queue": given.queue, "endpoint": ours, **msgspec.to_builtins(given.opts)}
