"""The lines that are printed once all shards serve: where to connect, how to show a key, and a first call."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from bullmq_proxy.gateway.settings import Settings


def welcome(settings: Settings, place: str, authority: str | None, made_key: str | None) -> list[str]:
    """Return the lines.

    Args:
        settings: in force.
        place: of the socket, which is its path where there is no `authority`.
        authority: host and port; None for a unix socket.
        made_key: the key that was made for this run, which is shown.
    """
    # The form in which clients that can use unix sockets take them: path of the socket, colon, path of the request.
    scheme = "ws" if settings.tls_cert is None else "wss"
    origin = f"{scheme}+unix://{place}:" if authority is None else f"{scheme}://{authority}"
    url = f"{origin}/queue/welcome"
    if made_key is not None:
        lines = [
            f"{url}?token={made_key}",
            'The key was made for this run; it may also be sent as "Authorization: Bearer <key>".',
        ]
    elif settings.no_auth:
        lines = [url, "Everybody is let in (--no-auth)."]
    else:
        lines = [url, 'Clients send one of the configured keys: "Authorization: Bearer <key>" or ?token=<key>.']
    if authority is not None:
        key = "" if settings.no_auth else f"?token={made_key or 'KEY'}"
        remark = "" if settings.no_auth or made_key else ", with one of the keys in place of KEY"
        if not settings.no_console:
            lines.append(f"For people: http{scheme[2:]}://{authority}/")
        if settings.tls_cert is not None:
            lines.append("The host in a URL has to be a name that the certificate has.")
            return lines
        lines += [f"A first call, which adds a job to the queue `welcome`{remark}:", "  " + _first_call(f"{url}{key}")]
    return lines


def _first_call(url: str) -> str:
    """Return a command for a shell that adds a job; the interpreter is ours, which has what it needs."""
    call = '{"id":1,"data":{"fn":"add","args":["hello"]}}'
    steps = (
        "from contextlib import ExitStack",
        "from websockets.sync.client import connect",
        "open = ExitStack()",
        f'c = open.enter_context(connect("{url}"))',
        f'c.send("""{call}""")',
        "print(c.recv())",
        "open.close()",
    )
    return f"{shlex.quote(sys.executable)} -c '{'; '.join(steps)}'"


def say(lines: Sequence[str]) -> None:
    """Print lines, if anybody reads what we print: else that is no reason to stop serving."""
    try:
        print("\n".join(lines), flush=True)
    except OSError:
        # What is left in the buffer would fail again at the end and spoil the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
