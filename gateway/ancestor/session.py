"""The session of requests in the ancestor's form: each endpoint is a function, and each answer is text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, assert_never

from msgspec import Raw

from bullmq_proxy.gateway.ancestor.functions import ANCESTOR, NamedQueue
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, invalid_arguments
from bullmq_proxy.gateway.sessions.call_session import EndsWithCalls
from bullmq_proxy.gateway.sessions.calling import Caller
from bullmq_proxy.gateway.sessions.interfaces import CallClient, Exchange, Result
from bullmq_proxy.gateway.sessions.under_way import CallLimits
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.wire.connection_options import Limits, Options
from bullmq_proxy.gateway.wire.endpoint_rows import PathParameter
from bullmq_proxy.gateway.wire.guest_endpoints import AncestorEndpoint
from bullmq_proxy.gateway.wire.routes import AncestorError, Target, decode_segment

LONGEST_PAGE: Final = 100
_FIRST_PAGE: Final = 10
_STATUSES: Final = "waiting,active,completed,failed"
_NUMBER: Final = re.compile(r"\s*([+-]?[0-9]{1,20})(?![0-9])")


class AncestorSession(EndsWithCalls):
    """A client of the ancestor's that sends requests for one queue."""

    def __init__(
        self,
        queue: Queue,
        context: Context,
        client: CallClient,
        limits: CallLimits,
        table: FunctionTable = ANCESTOR,
        *,
        of_path: Limits,
    ) -> None:
        """Make a session, with the limits of the calls under way and those of the path, for functions of `table`."""
        self._client = client
        self._queue = NamedQueue(queue, of_path)
        self._caller = Caller(table, self._queue, context, client, limits)

    def requested(self, exchange: Exchange, target: Target, options: Options, body: bytes, *, writes: bool) -> None:
        """Carry one request out."""
        endpoint = target.endpoint
        assert isinstance(endpoint, AncestorEndpoint)
        reply = _Reply(exchange, endpoint)
        try:
            if not endpoint.is_for_holders:  # who need not learn more before they have shown their token
                self._queue.check_name()
            function, args = _call(endpoint, target, body)
        except GatewayError as error:
            self._client.penalize(len(body))
            reply.reply(error)
        else:
            self._caller.call(reply, function, args, len(body))


def _call(endpoint: AncestorEndpoint, target: Target, body: bytes) -> tuple[str, list[Raw]]:
    """Return the function of a request, and its arguments."""
    match endpoint:
        case AncestorEndpoint.ADD_JOBS:
            return "addJobs", [Raw(body)]
        case AncestorEndpoint.GET_JOBS:
            statuses = (target.query.get("statuses") or _STATUSES).split(",")
            return "getJobs", _args([status for status in statuses if status], *_page(target.query))
        case AncestorEndpoint.GET_JOB:
            return "getJob", _args(_id(target))
        case AncestorEndpoint.GET_LOGS:
            return "getLogs", _args(_id(target), *_page(target.query))
        case AncestorEndpoint.UPDATE_PROGRESS:
            [id, token] = _args(_id(target), target.token)
            return "updateProgress", [id, Raw(body), token]
        case AncestorEndpoint.ADD_LOG:
            [id, token] = _args(_id(target), target.token)
            return "addLog", [id, Raw(body), token]
        case _:
            assert_never(endpoint)


def _args(*values: Any) -> list[Raw]:
    return [Raw(encode(value)) for value in values]


def _id(target: Target) -> str:
    return decode_segment(target.path_parameters[PathParameter.JOB])


def _page(query: Mapping[str, str]) -> tuple[int, int]:
    return _whole(query, "start", 0, 10**15), _whole(query, "length", _FIRST_PAGE, LONGEST_PAGE)


def _whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Return a number as the ancestor reads it, by `parseInt`: what follows its digits does not count (ECMA-262)."""
    number = _NUMBER.match(query.get(name) or str(default))
    if number is None or not 0 <= (whole := int(number[1])) <= most:
        raise invalid_arguments(f"Expected a whole number from 0 to {most} - at `?{name}`")
    return whole


class _Reply:
    """What a request waits for, as the caller's `id` of the call."""

    __slots__ = ("_endpoint", "_exchange")

    def __init__(self, exchange: Exchange, endpoint: AncestorEndpoint) -> None:
        self._exchange = exchange
        self._endpoint = endpoint

    def reply(self, result: Result) -> None:
        """Respond in the ancestor's form."""
        if isinstance(result, GatewayError):
            self._exchange.reply(AncestorError(result, self._status(result)))
        elif self._endpoint.is_for_holders:
            self._exchange.respond_text(b"OK")
        else:
            self._exchange.respond_text(*((result,) if isinstance(result, bytes) else result))

    def _status(self, error: GatewayError) -> HTTPStatus:
        """Return the status of an error: who holds a job that is missing hears of it as of a failure."""
        if self._endpoint.is_for_holders and error.code is ErrorCode.NOT_FOUND:
            return HTTPStatus.INTERNAL_SERVER_ERROR
        return error.code.http_status
