"""The session of an HTTP connection: requests that call functions of one queue, or of flows."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from msgspec import Raw, ValidationError

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, invalid_arguments
from bullmq_proxy.gateway.sessions.call_session import EndsWithCalls
from bullmq_proxy.gateway.sessions.calling import Caller
from bullmq_proxy.gateway.sessions.interfaces import CallClient, Exchange, Result
from bullmq_proxy.gateway.sessions.under_way import CallLimits
from bullmq_proxy.gateway.values.json_text import UNREADABLE, encode, error_json
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import describe
from bullmq_proxy.gateway.wire.connection_options import Options
from bullmq_proxy.gateway.wire.endpoints import FUNCTIONS
from bullmq_proxy.gateway.wire.envelope import Call
from bullmq_proxy.gateway.wire.routes import MethodNotAllowedError, Target, decode_name

T = TypeVar("T")

BATCH: Final = 1000
"""Calls of one request."""

_args: Final[Reader[list[Raw]]] = Reader(list[Raw])
_calls: Final[Reader[Call | list[Call]]] = Reader(Call | list[Call])
_WRITING: Final = ("POST", "OPTIONS")


class RequestSession(EndsWithCalls):
    """A client that calls functions by HTTP requests."""

    def __init__(
        self, target: Any, context: Context, client: CallClient, limits: CallLimits, table: FunctionTable = TABLE
    ) -> None:
        """Make a session; the functions are those of `table`, and of `target`; `limits` of the calls under way."""
        self._table = table
        self._client = client
        self._caller = Caller(table, target, context, client, limits)

    def requested(self, exchange: Exchange, target: Target, options: Options, body: bytes, *, writes: bool) -> None:
        """Carry one request out."""
        function = target.function
        try:
            if (named := FUNCTIONS.get(target.endpoint)) is not None:
                function, given = named, _named_arguments(target, options)
            elif function is None:
                self._call_each(exchange, _read(_calls, body, "body"), len(body))
                return
            else:
                if not writes and (row := self._table.get(function)) is not None and row.writes:
                    raise MethodNotAllowedError(_WRITING)
                given = _arguments(target.args, body)
        except GatewayError as error:
            self._client.penalize(len(body))
            exchange.reply(error)
        else:
            self._caller.call(exchange, function, given, len(body))

    def _call_each(self, exchange: Exchange, calls: Call | list[Call], size: int) -> None:
        if isinstance(calls, Call):
            self._caller.call(exchange, calls.fn, calls.args, size)
            return
        if len(calls) > BATCH:
            raise invalid_arguments(f"Expected at most {BATCH} calls, got {len(calls)} - at `body`")
        if not calls:
            exchange.respond_json(b"[]")
            return
        batch = _Batch(exchange, len(calls))
        for place, call in enumerate(calls):
            self._caller.call(_Part(batch, place), call.fn, call.args, sum(map(len, call.args)))


class _Batch:
    """The calls of one request, whose replies go out together."""

    __slots__ = ("exchange", "missing", "replies")

    def __init__(self, exchange: Exchange, count: int) -> None:
        self.exchange = exchange
        self.missing = count
        self.replies: list[Result] = [b""] * count


class _Part:
    """One call of a batch, as the client's `id` of it."""

    __slots__ = ("_batch", "_place")

    def __init__(self, batch: _Batch, place: int) -> None:
        self._batch = batch
        self._place = place

    def reply(self, result: Result) -> None:
        """Take the reply; the last one to come sends all."""
        batch = self._batch
        batch.replies[self._place] = result
        batch.missing -= 1
        if not batch.missing:
            parts: list[bytes | Raw] = []
            for reply in batch.replies:
                parts.append(b"," if parts else b"[")
                parts.extend(_shown(reply))
            batch.exchange.respond_json(*parts, b"]")


def _shown(result: Result) -> tuple[bytes | Raw, ...]:
    if isinstance(result, GatewayError):
        return (b'{"err":', error_json(result), b"}")
    return (b'{"ok":', *((result,) if isinstance(result, bytes) else result), b"}")


def _named_arguments(target: Target, options: Options) -> list[Raw]:
    """Return the arguments of an endpoint that is one function: the parameters of the path, then the options."""
    given = [Raw(encode(decode_name(text))) for text in target.path_parameters.values()]
    return given if options is None else [*given, Raw(encode(options))]


def _arguments(args: str | None, body: bytes) -> list[Raw]:
    if args is not None and body:
        raise invalid_arguments("Arguments stand in the body or in `?args`, not in both - at `?args`")
    text = body if args is None else args.encode()
    return _read(_args, text, "args") if text else []


def _read(reader: Reader[T], text: bytes, root: str) -> T:
    """Read the JSON of a request, whose place in messages is `root`.

    Raises:
        GatewayError: INVALID_MESSAGE; INVALID_ARGUMENTS for JSON of another form, with the place.
    """
    try:
        if not text.isascii():
            text.decode()
        return reader.decode(text)
    except UnicodeDecodeError:
        raise GatewayError(ErrorCode.INVALID_MESSAGE, "The message is not UTF-8") from None
    except UNREADABLE as error:
        refusal = error
    try:
        return reader.read_again(text, refusal)
    except UNREADABLE as last:
        code = ErrorCode.INVALID_ARGUMENTS if isinstance(last, ValidationError) else ErrorCode.INVALID_MESSAGE
        raise GatewayError(code, describe(last, reader.shape, root)) from None
