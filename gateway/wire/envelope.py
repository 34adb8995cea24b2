"""Messages in and out: `{"id": …, "data": {…}}`, one text frame each.

Ids and payloads stay the text that the sender wrote (`msgspec.Raw`): an id comes back byte for byte, a payload is never
parsed and written again.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

from msgspec import Raw, Struct

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.json_text import UNREADABLE, error_json
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import in_words

NO_ID: Final = b"null"


class Call(Struct, frozen=True, gc=False):
    """The `data` of a Queue API request: the function by its Node name, and its arguments, each still unread.

    They are taken apart here: the way of a large payload has one pass of the decoder, not two (0.23 ms for 1 MB).
    """

    fn: str
    args: list[Raw] = []


class Request(Struct, frozen=True, gc=False):
    """A message on a Queue or Events connection."""

    id: Raw
    data: Call


class _Head(Struct, gc=False):
    id: Raw = Raw(NO_ID)


M = TypeVar("M", bound=Struct)

_request: Final[Reader[Request]] = Reader(Request)
_head: Final[Reader[_Head]] = Reader(_Head)


class InvalidMessage(GatewayError):
    """A frame that is no envelope; `id` is the sender's id where it could be read, else `null`."""

    def __init__(self, message: str, id: bytes = NO_ID) -> None:
        super().__init__(ErrorCode.INVALID_MESSAGE, message)
        self.id = id


def decode_request(message: bytes) -> Request:
    """Read a Queue API request.

    Args:
        message: UTF-8, which is the caller's to check: what stays `Raw` is handed on as it is.

    Raises:
        InvalidMessage: not JSON, not an envelope, or an id that is neither a number nor a string.
    """
    return decode_as(_request, message)


def decode_as(reader: Reader[M], message: bytes) -> M:
    """Read `message` with the reader of an envelope type that has an `id` of type `Raw`."""
    try:
        request = reader.decode(message)
    except UNREADABLE as error:
        request = _decode_again(reader, message, error)
    id = bytes(request.id)  # type: ignore[attr-defined]
    if not is_id(id):
        raise InvalidMessage("Expected a number or a string as `id` - at `$.id`")
    return request


def _decode_again(reader: Reader[M], message: bytes, error: Exception) -> M:
    try:
        return reader.read_again(message, error)
    except UNREADABLE as last:
        raise _refusal(_describe(last), _find_id(message)) from None


_ARGUMENTS: Final = " - at `$.data.args`"


def _refusal(text: str, id: bytes) -> InvalidMessage:
    refusal = InvalidMessage(text, id)
    if text.endswith(_ARGUMENTS):  # the envelope is right, what is in it is not
        refusal.code = ErrorCode.INVALID_ARGUMENTS
        refusal.message = text.removesuffix(_ARGUMENTS) + " - at `args`"
    return refusal


def is_id(text: bytes) -> bool:
    """Return whether a JSON value, as text, is a number or a string."""
    return text[:1] in b'"-0123456789' if text else False


_NOT_UTF8: Final = "Invalid UTF-8 encoded string"  # msgspec from 0.23 on, in place of UnicodeDecodeError


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "The message is nested too deeply"
    if isinstance(error, UnicodeDecodeError) or str(error) == _NOT_UTF8:
        return "The message is not UTF-8"
    return in_words(str(error))


def _find_id(message: bytes) -> bytes:
    """Return the id of a message whose data is wrong: the sender can then tell which of its requests failed."""
    try:
        id = bytes(_head.read(message).id)
    except UNREADABLE:  # no JSON at all, such as a NaN in the data
        found = _LEADING_ID.match(message) or _TRAILING_ID.search(message[-_LONGEST_END:])
        return found["id"] if found else NO_ID
    return id if is_id(id) else NO_ID


_ID: Final = rb'"id"\s*:\s*(?P<id>-?(?:0|[1-9][0-9]{0,19})|"[^"\\\x00-\x1f]{0,100}")\s*'
_LEADING_ID: Final = re.compile(rb"\s*\{\s*" + _ID + rb",")
_TRAILING_ID: Final = re.compile(rb",\s*" + _ID + rb"\}\s*$")
_LONGEST_END: Final = 200  # bytes in which the id stands that a message ends with


def ok(id: bytes, *result: bytes | Raw) -> tuple[bytes | Raw, ...]:
    """Return the reply that carries a result; both are JSON text. In parts, as the result may be: it can be large."""
    return b'{"id":%b,"data":{"ok":' % id, *result, b"}}"


def err(id: bytes, error: GatewayError) -> bytes:
    """Return the reply that carries an error."""
    return b'{"id":%b,"data":{"err":%b}}' % (id, error_json(error))


def message(id: int, data: bytes) -> bytes:
    """Return a message that the gateway sends of its own accord; `data` is a JSON object as text."""
    return b'{"id":%d,"data":%b}' % (id, data)


def expires(left: float) -> bytes:
    """Return the message that the client's token expires in so many seconds; it has no number, and is no reply."""
    return b'{"id":null,"data":{"type":"expires","in":%d}}' % (left * 1000)
