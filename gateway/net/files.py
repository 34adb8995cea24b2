"""The files that are served as they are: the JavaScript client with its types, and the console."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path, PurePath
from typing import Final

from websockets.http11 import Response

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net import http

_FOLDER: Final = Path(__file__).parents[1] / "pages"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": http.TEXT,  # TypeScript has no type of its own
}

CONSOLE: Final = frozenset(
    f"{name}.js"
    for name in (
        "add-view",
        "call-view",
        "charts",
        "connections-view",
        "dialogs",
        "dom",
        "family",
        "format",
        "functions",
        "job-actions",
        "job-list",
        "job-view",
        "key-view",
        "live",
        "main",
        "queue-actions",
        "queue-view",
        "queues-view",
        "routes",
        "schedulers-view",
        "session",
        "states",
        "theme",
    )
) | {"console.css", "parts.css"}
"""The files under `/console/`."""

BY_ACCEPT: Final = {"Vary": "Accept"}
"""The header of a page that is HTML for some and text for others."""

# Job data is shown: whatever it says, no script of it may run, and nothing may leave for elsewhere.
_POLICY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


@functools.cache
def _read(name: str) -> tuple[bytes, str]:
    """Return a file of this version, and its tag."""
    body = (_FOLDER / name).read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def file(path: str, headers: Mapping[str, str] = {}) -> Response:
    """Return the file that is served at a path; who has it already asks whether it is still the same.

    Args:
        path: of a table; it is not checked.
        headers: beside those of every file.
    """
    body, tag = _read(path.removeprefix("/"))
    known = {"ETag": tag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return http.respond(HTTPStatus.OK, body, _TYPES[PurePath(path).suffix], {**known, **headers})


def console() -> Response:
    """Return the page itself."""
    return file("console/index.html", {**_POLICY, **BY_ACCEPT})


def console_file(name: str) -> Response:
    """Return a file of the console, or that there is none of this name."""
    if name not in CONSOLE:
        return http.refusal(GatewayError(ErrorCode.NOT_FOUND, "The console has no such file, or is turned off"))
    return file(f"console/{name}")
