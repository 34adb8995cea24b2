"""The two sides of a connection: the client as its session sees it, and the session as `net` sees it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from msgspec import Raw

from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.connection_options import Options
from bullmq_proxy.gateway.wire.routes import Target

Result = bytes | tuple[bytes | Raw, ...] | GatewayError
"""What a call ends with: its result as JSON text, whole or in parts, or an error."""


class Work(NamedTuple):
    """The work that a client has under way.

    Attributes:
        jobs: in hand.
        concurrency: how many it may hold; None for a client that is no worker.
        calls: without a reply.
    """

    jobs: int
    concurrency: int | None
    calls: int


class CallClient(Protocol):
    """Whoever calls functions, and gets replies."""

    def reply(self, id: Any, result: Result) -> None:
        """Send the reply to the call that the client knows by `id`."""

    def penalize(self, size: int = 0) -> None:
        """Count a message that was no successful call, nor an answer to a job; too many close the connection.

        A long one, of `size` bytes, counts more.
        """

    def pause_reading(self) -> None:
        """Stop reading from the socket; TCP then slows the client down."""

    def resume_reading(self) -> None:
        """Read from the socket again."""

    @property
    def write_buffer_size(self) -> int:
        """Bytes that were sent and that the client has not read yet."""

    async def wait_writable(self) -> None:
        """Wait until the client has read most of what was sent; raises OSError when the connection ends first."""


class EventClient(Protocol):
    """Whoever watches a queue."""

    def send_event(self, number: int, data: bytes, id: str) -> None:
        """Send an event of a queue.

        Args:
            number: of the message.
            data: JSON text.
            id: of the entry in the queue's stream; empty where it has none.
        """

    def send(self, *parts: bytes | Raw) -> None:
        """Send one text message, given whole or in parts; all messages of one turn of the loop leave in one write."""

    def penalize(self, size: int = 0) -> None:
        """Count a message, as for whoever calls functions."""

    async def wait_writable(self) -> None:
        """Wait until the client has read most of what was sent; raises OSError when the connection ends first."""


class Client(CallClient, EventClient, Protocol):
    """The client of a WebSocket connection; `net.connection` implements it."""

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close the connection."""

    @property
    def number(self) -> int:
        """The number of the connection: no other one of the shard has it."""

    @property
    def is_open(self) -> bool:
        """Whether what is sent goes out: nobody has begun to close the connection."""

    @property
    def last_heard(self) -> float:
        """The loop time at which something came from the client last, to half of `ping_interval`."""


class Session(Protocol):
    """The gateway's side of one WebSocket connection."""

    async def prepare(self) -> None:
        """Do what has to be done before the handshake is answered; a GatewayError refuses the connection."""

    def start(self) -> None:
        """Begin to push: the handshake is answered. A client's first message may come before, and so may a drain."""

    def message_received(self, message: bytes) -> None:
        """Handle a text message: valid UTF-8, within the size limit."""

    def late_message_received(self, message: bytes) -> None:
        """Handle a text message that arrived after the gateway began to close the connection; replies reach nobody."""

    def connection_lost(self) -> None:
        """Release everything that the session holds: the connection has ended, or was never opened."""

    def drain(self, deadline: float) -> None:
        """Take nothing new and finish what is under way: the shard stops in `deadline` seconds."""

    def retire(self) -> bool:
        """Take no new jobs, and let the client finish those that it has; return False for one that is no worker."""

    @property
    def work(self) -> Work:
        """The work under way."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, so that the connection can be closed without loss."""


class Exchange(Protocol):
    """One HTTP request that waits for its response; `net.exchange` implements it."""

    def reply(self, result: Result) -> None:
        """Respond with what a call ends with: `{"ok":…}`, or `{"err":…}` and the status of the error."""

    def respond_json(self, *body: bytes | Raw) -> None:
        """Respond with JSON text."""

    def respond_text(self, *body: bytes | Raw) -> None:
        """Respond with text, in the ancestor's form."""


class CallSession(Protocol):
    """The gateway's side of HTTP requests that call functions, of one queue and by one key."""

    def requested(self, exchange: Exchange, target: Target, options: Options, body: bytes, *, writes: bool) -> None:
        """Carry one request out.

        Args:
            exchange: takes the response.
            target: says what to call, or that the body says it.
            options: of the target, checked.
            body: of the request.
            writes: whether the method is one for functions that write.
        """

    def connection_lost(self) -> None:
        """Release everything that the session holds: nobody waits for a response any more."""

    def drain(self, deadline: float) -> None:
        """Let nobody wait any more."""

    @property
    def work(self) -> Work:
        """The work under way."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
