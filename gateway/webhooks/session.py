"""The session of requests about webhook workers: ours are JSON, and the ancestor's are text."""

from __future__ import annotations

from typing import assert_never

from msgspec import Raw

from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.sessions.call_session import EndsWithCalls
from bullmq_proxy.gateway.sessions.calling import Caller
from bullmq_proxy.gateway.sessions.interfaces import CallClient, Exchange, Result
from bullmq_proxy.gateway.sessions.under_way import CallLimits
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.webhooks.functions import QUEUE, WORKERS
from bullmq_proxy.gateway.webhooks.workers import Webhooks
from bullmq_proxy.gateway.wire.connection_options import Options
from bullmq_proxy.gateway.wire.endpoint_rows import PathParameter
from bullmq_proxy.gateway.wire.guest_endpoints import WorkersEndpoint
from bullmq_proxy.gateway.wire.routes import Target, decode_name, decode_segment


class WorkersSession(EndsWithCalls):
    """A client that registers, sees and deletes webhook workers."""

    def __init__(self, workers: Webhooks, context: Context, client: CallClient, limits: CallLimits) -> None:
        """Make a session; `limits` of the calls under way."""
        self._client = client
        self._caller = Caller(WORKERS, workers, context, client, limits)

    def requested(self, exchange: Exchange, target: Target, options: Options, body: bytes, *, writes: bool) -> None:
        """Carry one request out."""
        reply = _Reply(exchange, target)
        try:
            function, args = _call(target, body)
        except GatewayError as error:
            self._client.penalize(len(body))
            reply.reply(error)
        else:
            self._caller.call(reply, function, args, len(body))


def _call(target: Target, body: bytes) -> tuple[str, list[Raw]]:
    """Return the function of a request, and its arguments."""
    endpoint = target.endpoint
    assert isinstance(endpoint, WorkersEndpoint)
    match endpoint:
        case WorkersEndpoint.POST_WORKER:
            return "putWorkerOfQueue", [Raw(body)]
        case WorkersEndpoint.GET_WORKERS:
            return ("getWorkers" if target.in_json else "getUrls"), []
        case WorkersEndpoint.PUT_WORKER:
            return "putWorker", [_name(target), Raw(body)]
        case WorkersEndpoint.GET_WORKER:
            return "getWorker", [_name(target), _queue(target)]
        case WorkersEndpoint.DELETE_WORKER:
            return "deleteWorker", [_name(target), _queue(target)]
        case _:
            assert_never(endpoint)


def _name(target: Target) -> Raw:
    """Return the name in the path, as JSON: the ancestor's clients mean it as it decodes names."""
    decode = decode_name if target.in_json else decode_segment
    return Raw(encode(decode(target.path_parameters[PathParameter.WORKER])))


def _queue(target: Target) -> Raw:
    """Return the queue in the query string, as JSON."""
    return Raw(encode(target.query.get(QUEUE)))


class _Reply:
    """What a request waits for, as the caller's `id` of the call."""

    __slots__ = ("_exchange", "_target")

    def __init__(self, exchange: Exchange, target: Target) -> None:
        self._exchange = exchange
        self._target = target

    def reply(self, result: Result) -> None:
        """Respond in the form that was asked for."""
        if isinstance(result, GatewayError):
            self._exchange.reply(self._target.refused(result))
        elif self._target.in_json:
            self._exchange.reply(result)
        elif self._target.endpoint is WorkersEndpoint.GET_WORKERS:
            self._exchange.respond_text(*((result,) if isinstance(result, bytes) else result))
        else:
            self._exchange.respond_text(b"OK")
