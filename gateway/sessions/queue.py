"""The session of a Queue or Flows connection: requests in, replies out."""

from __future__ import annotations

from typing import Any

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.sessions.call_session import EndsWithCalls
from bullmq_proxy.gateway.sessions.calling import Caller
from bullmq_proxy.gateway.sessions.interfaces import Client
from bullmq_proxy.gateway.sessions.under_way import CallLimits
from bullmq_proxy.gateway.wire.envelope import InvalidMessage, decode_request, err


class QueueSession(EndsWithCalls):
    """A client that calls functions of one queue, or of what else has a table of functions."""

    __slots__ = ("__weakref__", "_caller", "_client")  # thousands of them do nothing for hours

    def __init__(
        self, target: Any, context: Context, client: Client, limits: CallLimits, table: FunctionTable = TABLE
    ) -> None:
        """Make a session; the functions are those of `table`, and of `target`; `limits` of the calls under way."""
        self._client = client
        self._caller = Caller(table, target, context, client, limits)

    async def prepare(self) -> None:
        """Do nothing: Redis is asked when the client asks."""

    def start(self) -> None:
        """Do nothing: the client speaks first."""

    def message_received(self, message: bytes) -> None:
        """Answer one request."""
        try:
            request = decode_request(message)
        except InvalidMessage as error:
            self._client.penalize(len(message))
            self._client.send(err(error.id, error))
            return
        self._caller.call(bytes(request.id), request.data.fn, request.data.args, len(message))

    def late_message_received(self, message: bytes) -> None:
        """Ignore it: nothing is started that could not be answered any more."""
