"""The headers by which an endpoint knows a request: those of the Standard Webhooks convention."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable


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
