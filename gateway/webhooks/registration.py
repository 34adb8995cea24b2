"""What a registration says: where the jobs of a queue are sent, how many at a time, and how they are signed.

Read from JSON by its types, as the options of functions are; what types cannot say is checked behind that.
"""

from __future__ import annotations

import base64
import binascii
import re
from codecs import BOM_UTF8
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from bullmq_proxy.gateway.broker.functions.base import Arguments
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, invalid_arguments
from bullmq_proxy.gateway.rules.ids import check_queue_name
from bullmq_proxy.gateway.rules.options import KeepJobs
from bullmq_proxy.gateway.values.json_text import UNREADABLE
from bullmq_proxy.gateway.values.numbers import Whole
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import describe
from bullmq_proxy.gateway.wire.connection_options import LONGEST_LOCK, SHORTEST_LOCK, Limits, WorkerOptions

LONGEST_URL: Final = 2048
"""Characters of a URL."""

MOST_HEADERS: Final = 50
"""Headers of a registration."""

LONGEST_HEADER: Final = 4096
"""Characters of a header's value."""

LONGEST_TIMEOUT: Final = 3_600_000
"""Milliseconds that a request may take."""

MOST_SECRETS: Final = 2
"""Secrets at a time: the new one and the one before it."""

LONGEST_NAME: Final = 100
"""Characters of a registration's name."""

_DAY: Final = 86_400_000  # ms
_HIDDEN: Final = "***"
_SECRET: Final = "whsec_"
_SHORTEST_SECRET, _LONGEST_SECRET = 24, 64  # bytes; of the Standard Webhooks convention
_OWN_HEADERS: Final = frozenset(
    ("connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)  # RFC 9110 §5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_NAMED: Final = re.compile(r"[^\x00-\x20\x7f/]+")

T = TypeVar("T")
Method = Literal["POST", "PUT", "PATCH"]


class Endpoint(Arguments, frozen=True):
    """Where the jobs are sent.

    Attributes:
        url: http or https, without a name and a password.
        method: of the requests.
        headers: of each request, beside those of the gateway.
        timeout: ms that a request may take, with the whole response.
    """

    url: Annotated[str, Meta(min_length=1, max_length=LONGEST_URL)]
    method: Method = "POST"
    headers: dict[str, Annotated[str, Meta(max_length=LONGEST_HEADER)]] = msgspec.field(default_factory=dict)
    timeout: Annotated[int, Meta(ge=1, le=LONGEST_TIMEOUT)] = 30_000


class Limiter(Arguments, frozen=True):
    """At most `max` jobs in `duration` ms, over all workers of the queue."""

    max: Annotated[int, Meta(ge=1, le=10**9)]
    duration: Annotated[int, Meta(ge=1, le=_DAY)]


class Registration(Arguments, frozen=True, omit_defaults=True):
    """A webhook worker.

    Attributes:
        queue: whose jobs are sent.
        endpoint: where to.
        concurrency: jobs at a time, in the whole service.
        limiter: as the option of BullMQ's workers.
        lock_duration: ms that the lock of a job lasts; after a 202 the endpoint has so long to finish it.
        max_stalled_count: a job that has lost its lock more often than this fails.
        remove_on_complete: how many completed jobs stay.
        remove_on_fail: how many failed ones.
        secrets: `whsec_` and 24 to 64 bytes in base64; each request is signed with each of them.
    """

    queue: str
    endpoint: Endpoint
    concurrency: Annotated[int, Meta(ge=1)] = 1
    limiter: Limiter | UnsetType = UNSET
    lock_duration: Annotated[int, Meta(ge=SHORTEST_LOCK, le=LONGEST_LOCK)] = WorkerOptions().lock_duration
    max_stalled_count: Annotated[int, Meta(ge=0, le=1_000_000)] = WorkerOptions().max_stalled_count
    remove_on_complete: bool | Whole | KeepJobs | UnsetType = UNSET
    remove_on_fail: bool | Whole | KeepJobs | UnsetType = UNSET
    secrets: Annotated[list[str], Meta(max_length=MOST_SECRETS)] = msgspec.field(default_factory=list)

    @property
    def keys(self) -> list[bytes]:
        """The secrets as bytes."""
        return [base64.b64decode(secret.removeprefix(_SECRET)) for secret in self.secrets]

    def worker_options(self, name: str) -> WorkerOptions:
        """Return the options as those of a Worker connection; `name` becomes the `processedBy` of the jobs."""
        limiter = None if self.limiter is UNSET else (self.limiter.max, self.limiter.duration)
        return WorkerOptions(
            name=name,
            concurrency=self.concurrency,
            limiter=limiter,
            lock_duration=self.lock_duration,
            max_stalled_count=self.max_stalled_count,
            remove_on_complete=_builtin(self.remove_on_complete),
            remove_on_fail=_builtin(self.remove_on_fail),
        )

    @property
    def place(self) -> str:
        """Scheme and host of the URL, for logs: the rest of it may be a secret."""
        parts = urlsplit(self.endpoint.url)
        return f"{parts.scheme}://{parts.netloc}"

    def stored(self) -> bytes:
        """Return JSON text that `read_stored` reads."""
        return msgspec.json.encode(self)

    def shown(self, name: str) -> dict[str, Any]:
        """Return what may be seen of a registration: the secrets, and the values of the headers, are not in it."""
        return {
            "name": name,
            **msgspec.to_builtins(self),
            "endpoint": {
                "url": self.endpoint.url,
                "method": self.endpoint.method,
                "headers": dict.fromkeys(self.endpoint.headers, _HIDDEN),
                "timeout": self.endpoint.timeout,
            },
            "concurrency": self.concurrency,
            "lockDuration": self.lock_duration,
            "maxStalledCount": self.max_stalled_count,
            "secrets": [_HIDDEN] * len(self.secrets),
        }


def _builtin(value: bool | int | KeepJobs | UnsetType) -> Any:
    return None if value is UNSET else msgspec.to_builtins(value)


_reader: Final[Reader[Registration]] = Reader(Registration)
_stored: Final = msgspec.json.Decoder(Registration)


def read_stored(text: bytes) -> Registration | None:
    """Return a registration from Redis, or None where it cannot be read: another version may have written it."""
    try:
        return _stored.decode(text)
    except UNREADABLE:
        return None


def read_registration(text: bytes | Raw, limits: Limits, root: str = "body") -> Registration:
    """Read and check a registration.

    Args:
        text: JSON.
        limits: of the gateway, for the queue and the concurrency.
        root: the place of the text, for messages.

    Raises:
        GatewayError: INVALID_MESSAGE, no JSON; INVALID_ARGUMENTS, with the place and what is wrong there.
    """
    registration = read_body(_reader, text, root)
    check(registration, limits, root)
    return registration


def read_body(reader: Reader[T], text: bytes | Raw, root: str = "body") -> T:
    """Read JSON text; raises GatewayError as `read_registration`."""
    try:
        if not bytes(text).isascii():
            text = bytes(text).removeprefix(BOM_UTF8)
            text.decode()
        return reader.read(text)
    except UnicodeDecodeError:
        raise GatewayError(ErrorCode.INVALID_MESSAGE, f"The registration is not UTF-8 - at `{root}`") from None
    except UNREADABLE as error:
        is_json = isinstance(error, msgspec.ValidationError)
        code = ErrorCode.INVALID_ARGUMENTS if is_json else ErrorCode.INVALID_MESSAGE
        raise GatewayError(code, describe(error, reader.shape, root)) from None


def read_configured(tables: Iterable[str], limits: Limits) -> dict[str, Registration]:
    """Read the registrations of the configuration, each an object with the name as its only member.

    Raises:
        ValueError: one cannot be used; the text names the place.
    """
    configured: dict[str, Registration] = {}
    for name, text in (pair for table in tables for pair in msgspec.json.decode(table, type=dict[str, Raw]).items()):
        try:
            check_name(name)
            configured[name] = read_registration(text, limits, f"webhooks.{name}")
        except GatewayError as error:
            raise ValueError(error.message) from None
    return configured


def check(registration: Registration, limits: Limits, root: str = "body") -> None:
    """Check what the types of a registration do not say; raises INVALID_ARGUMENTS with the place."""
    check_queue_name(registration.queue, limits.max_queue_name, f"`{root}.queue`")
    if registration.concurrency > limits.max_concurrency:
        raise invalid_arguments(
            f"Expected a whole number from 1 to {limits.max_concurrency} (max_concurrency) - at `{root}.concurrency`"
        )
    _check_url(registration.endpoint.url, f"{root}.endpoint.url")
    _check_headers(registration.endpoint.headers, f"{root}.endpoint.headers")
    for place, secret in enumerate(registration.secrets):
        if not _is_secret(secret):
            raise invalid_arguments(
                f"Expected `{_SECRET}` and {_SHORTEST_SECRET} to {_LONGEST_SECRET} bytes in base64"
                f" - at `{root}.secrets[{place}]`"
            )


def _check_url(url: str, place: str) -> None:
    """Refuse what is no URL of http or https, and one that holds a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    is_plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not is_plain:
        raise invalid_arguments(
            f"Expected a URL of http or https, such as https://example.com/jobs, in ASCII - at `{place}`"
        )
    if "@" in parts.netloc:
        raise invalid_arguments(f"A URL with a name or a password: use the header Authorization - at `{place}`")


def _check_headers(headers: dict[str, str], place: str) -> None:
    if len(headers) > MOST_HEADERS:
        raise invalid_arguments(f"Expected at most {MOST_HEADERS} headers - at `{place}`")
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise invalid_arguments(f"A header's name or value has characters that it cannot have - at `{place}`")
        if name.lower() in _OWN_HEADERS:
            raise invalid_arguments(f"The gateway sets the header {name} itself - at `{place}`")


def _is_secret(text: str) -> bool:
    try:
        key = base64.b64decode(text.removeprefix(_SECRET), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(_SECRET) and _SHORTEST_SECRET <= len(key) <= _LONGEST_SECRET


def check_name(name: str) -> None:
    """Refuse what is no name of a registration; raises INVALID_ARGUMENTS."""
    if len(name) > LONGEST_NAME or not _NAMED.fullmatch(name):
        raise invalid_arguments(
            f"The name of a worker has 1 to {LONGEST_NAME} characters, none of them a space or `/` - at the path"
        )
