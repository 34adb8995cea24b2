"""The files that are served as they are: the modules of the JavaScript client, and its types."""

from __future__ import annotations

import functools
import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Final

from websockets.http11 import Response

from bullmq_proxy.gateway.net import http

_FOLDER: Final = Path(__file__).parents[1] / "pages"
_JAVASCRIPT: Final = "text/javascript; charset=utf-8"
_TYPES: Final = "text/plain; charset=utf-8"  # of TypeScript; it has no type of its own


@functools.cache
def _read(name: str) -> tuple[bytes, str]:
    """Return a file of this version, and its tag."""
    body = (_FOLDER / name).read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def file(path: str) -> Response:
    """Return the file that is served at a path; who has it already asks whether it is still the same."""
    body, tag = _read(path.removeprefix("/"))
    headers = {"ETag": tag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return http.respond(HTTPStatus.OK, body, _JAVASCRIPT if path.endswith(".js") else _TYPES, headers)
