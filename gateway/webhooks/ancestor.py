"""Workers in the form of taskforcesh/bullmq-proxy: one for each queue, whose name it has."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, invalid_arguments
from bullmq_proxy.gateway.rules.ids import check_queue_name
from bullmq_proxy.gateway.values.json_text import UNREADABLE
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import describe
from bullmq_proxy.gateway.webhooks.registration import LONGEST_TIMEOUT, Endpoint, Limiter, Registration, check
from bullmq_proxy.gateway.wire.connection_options import Limits

_TIMEOUT: Final = 3000  # ms, unless a worker says it
_METHODS: Final = ("POST", "PUT", "PATCH")
_Number = Annotated[int, Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)] | float


class _Keep(Struct, forbid_unknown_fields=True):
    count: _Number | UnsetType = UNSET
    age: _Number | UnsetType = UNSET


class _Endpoint(Struct, forbid_unknown_fields=True):
    url: str
    method: str
    headers: dict[str, str] | UnsetType = UNSET
    timeout: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class _Limiter(Struct, forbid_unknown_fields=True):
    max: Annotated[int, Meta(ge=1)]
    duration: Annotated[int, Meta(ge=1)]


class _Options(Struct, forbid_unknown_fields=True):
    concurrency: Annotated[int, Meta(ge=1)] = 1
    maxStalledCount: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    limiter: _Limiter | UnsetType = UNSET
    removeOnComplete: bool | _Number | _Keep | UnsetType = UNSET
    removeOnFail: bool | _Number | _Keep | UnsetType = UNSET


class _Worker(Struct, forbid_unknown_fields=True):
    queue: str
    endpoint: _Endpoint
    opts: _Options | UnsetType = UNSET


_reader: Final[Reader[_Worker]] = Reader(_Worker)


def read_worker(text: bytes | Raw, limits: Limits) -> Registration:
    """Read a worker as the ancestor's clients write it.

    Raises:
        GatewayError: INVALID_MESSAGE, no JSON; INVALID_ARGUMENTS, with the place and what is wrong there.
    """
    try:
        if not bytes(text).isascii():
            bytes(text).decode()
        given = _reader.read(text)
    except UNREADABLE as error:
        code = ErrorCode.INVALID_ARGUMENTS if isinstance(error, msgspec.ValidationError) else ErrorCode.INVALID_MESSAGE
        raise GatewayError(code, describe(error, _reader.shape, "body")) from None
    check_queue_name(given.queue, limits.max_queue_name, "`body.queue`", limits.min_queue_name)
    registration = Registration(queue=given.queue, endpoint=_endpoint(given.endpoint), **_options(given.opts))
    check(registration, limits)
    return registration


def _endpoint(given: _Endpoint) -> Endpoint:
    method = given.method.upper()
    if method not in _METHODS:
        raise invalid_arguments(f"Expected one of {', '.join(_METHODS)} - at `body.endpoint.method`")
    timeout = _TIMEOUT if given.timeout is UNSET else min(given.timeout, LONGEST_TIMEOUT)
    headers = {} if given.headers is UNSET else given.headers
    return msgspec.convert({"url": given.url, "method": method, "headers": headers, "timeout": timeout}, Endpoint)


def _options(given: _Options | UnsetType) -> dict[str, Any]:
    if given is UNSET:
        return {}
    options: dict[str, Any] = {"concurrency": given.concurrency}
    if given.maxStalledCount is not UNSET:
        options["max_stalled_count"] = given.maxStalledCount
    if given.limiter is not UNSET:
        options["limiter"] = Limiter(max=given.limiter.max, duration=given.limiter.duration)
    for name, kept in (("remove_on_complete", given.removeOnComplete), ("remove_on_fail", given.removeOnFail)):
        if kept is not UNSET:
            options[name] = msgspec.convert(msgspec.to_builtins(kept), bool | int | dict[str, int], strict=False)
    return options
