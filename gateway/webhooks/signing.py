"""The headers of a request: the signature of the Standard Webhooks convention, and where a trace goes on."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bullmq_proxy.gateway.values.json_text import read_json

_PARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[\x21-\x7e]*)?")
_STATE: Final = re.compile(r"[\x20-\x7e]{1,512}")


def message_id(queue: str, job: str, created: int) -> str:
    """Return the id of all requests about one job: its retries have the same, and no other job has.

    Args:
        queue: the qualified name.
        job: the id, which a later job may have again.
        created: when the job was, in ms since 1970.
    """
    return "msg_" + hashlib.sha256(f"{queue}:{job}:{created}".encode(errors="surrogatepass")).hexdigest()[:32]


def signature(keys: Iterable[bytes], id: str, timestamp: int, body: bytes) -> str:
    """Return the header's value: `v1,` and the HMAC-SHA256 in base64 for each key, with spaces between them."""
    signed = b"%b.%d.%b" % (id.encode(), timestamp, body)
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)


def headers(keys: list[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of the convention; without keys there is no signature.

    Args:
        keys: of the registration.
        id: of the message.
        timestamp: in s since 1970.
        body: of the request.
    """
    given = {"webhook-id": id, "webhook-timestamp": str(timestamp)}
    if keys:
        given["webhook-signature"] = signature(keys, id, timestamp, body)
    return given


def trace(options: bytes | None) -> dict[str, str]:
    """Return the headers of W3C's Trace Context that a job carries, as BullMQ's producers write them.

    Args:
        options: of the job, as stored: `tm` holds the headers as JSON text.
    """
    if options is None or b'"tm"' not in options:
        return {}
    stored = read_json(options)
    metadata = stored.get("tm") if isinstance(stored, Mapping) else None
    carried: Any = read_json(metadata.encode(errors="replace")) if isinstance(metadata, str) else metadata
    if not isinstance(carried, Mapping):
        return {}
    parent, state = carried.get("traceparent"), carried.get("tracestate")
    if not isinstance(parent, str) or not _PARENT.fullmatch(parent):
        return {}
    given = {"traceparent": parent}
    if isinstance(state, str) and _STATE.fullmatch(state):
        given["tracestate"] = state
    return given
