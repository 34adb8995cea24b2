"""Job ids: which ones would be taken for something else in Redis.

A job's hash lies at `<prefix>:<queue>:<id>`, beside BullMQ's own keys. A job with the name of one of these would break
its queue for good, and a function that is given such a name would work on that key.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import matching, read_by

_KEYS: Final = (
    "active",
    "completed",
    "de",
    "delayed",
    "events",
    "failed",
    "id",
    "limiter",
    "marker",
    "meta",
    "paused",
    "pc",
    "prioritized",
    "priority",
    "repeat",
    "stalled",
    "stalled-check",
    "wait",
    "waiting",
    "waiting-children",
)
# Of deduplication, of a job that follows the active one, of figures; and of job schedulers, whose jobs end with a time.
_FAMILIES: Final = ("de:", "dn:", "metrics:", r"repeat:(?![\s\S]*:[0-9]+$)")
# What a job has beside its hash.
_PARTS: Final = ("dependencies", "failed", "lock", "logs", "processed", "unsuccessful")

_END: Final = r"$(?!\n)"
_RESERVED: Final = rf"(?:(?:{'|'.join(_KEYS)}){_END}|{'|'.join(_FAMILIES)}|[\s\S]*:(?:{'|'.join(_PARTS)}){_END})"
_is_reserved: Final = re.compile(_RESERVED).match


class _IdReader(Reader[str]):
    """Reads an id: a string, or a whole number, which JavaScript would put into the key as text."""

    def __init__(self, text: Any) -> None:
        """Make a reader of ids, those of the type `text` among the strings."""
        super().__init__(text | int)
        self._text = self.decode
        self._number = msgspec.json.Decoder(int | float)
        self.decode = self._decode

    def _decode(self, id: bytes | Raw) -> str:
        if memoryview(id)[0] in b"-0123456789":
            number = self._number.decode(id)
            if number == number // 1:
                return str(int(number))
        return self._text(id)


def _id(text: Any) -> Meta:
    return read_by(_IdReader(text), shows=text | int)


JobIdText = Annotated[
    str,
    matching(
        rf"^(?!{_RESERVED})",
        "a job's id, not the name of one of BullMQ's own keys",
        min_length=1,
        title="a job's id",
    ),
]
JobId = Annotated[str, _id(JobIdText)]
"""The id of a job that a function works on."""

AnyJobId = Annotated[str, _id(str)]
"""The id of a job that a function looks for."""


def is_reserved(id: str) -> bool:
    """Return whether an id is the name of one of BullMQ's own keys."""
    return _is_reserved(id) is not None


def check_queue_name(name: str, max_length: int, place: str, min_length: int = 1) -> None:
    """Check the name of a queue, whose lengths are in characters.

    Raises:
        GatewayError: INVALID_ARGUMENTS that names the `place`.
    """
    if not name:
        raise invalid_arguments(f"Queue name must be provided - at {place}")
    if ":" in name:
        raise invalid_arguments(f"Queue name cannot contain : - at {place}")
    if len(name) < min_length:
        raise invalid_arguments(f"The queue name must have at least {min_length} characters - at {place}")
    if len(name) > max_length:
        raise invalid_arguments(f"The queue name has {len(name)} characters, {max_length} are allowed - at {place}")
