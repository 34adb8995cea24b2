"""Commands for daily work on a gateway that runs somewhere: `call`, `add`, `queues`, `connections`, `watch`."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import update_wrapper
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

import click

from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.supervisor.slots import StartError
from bullmq_proxy.supervisor.sources import UsageError

F = TypeVar("F", bound=Callable[..., Any])

URL_VARIABLE, KEY_VARIABLE = "BULLMQ_URL", "BULLMQ_KEY"  # as the examples of clients have them
CA_VARIABLE, CERT_VARIABLE = "BULLMQ_CA", "BULLMQ_CERT"
_DEFAULT = "http://127.0.0.1:8080"
_PATIENCE = 30.0  # s for a reply
_SCHEMES = {"http": False, "ws": False, "https": True, "wss": True}  # whether TLS is spoken
_STATES = ("waiting", "active", "delayed", "prioritized", "waiting-children", "completed", "failed")


class Gateway:
    """A gateway, and the key that is shown to it."""

    def __init__(self, url: str, key: str | None, ca: str | None = None, cert: str | None = None) -> None:
        """Name a gateway.

        Args:
            url: of the gateway.
            key: that is shown; None for none.
            ca: path of certificates to trust in place of the system's: the gateway's own one, or who signs it.
            cert: path of a certificate to show, with its key; None for none.

        Raises:
            UsageError: the URL is that of no gateway, or a file cannot be used.
        """
        parts = urlsplit(url)
        try:
            is_secure, port = _SCHEMES[parts.scheme], parts.port
        except (KeyError, ValueError):
            is_secure, port = None, None
        if is_secure is None or not parts.hostname:
            raise UsageError(f"expected a URL such as {_DEFAULT}, got {url!r}")
        self._name = f"{parts.hostname}{'' if port is None else f':{port}'}"
        if is_secure:
            tls = _tls(ca, cert)
            self._connection: HTTPConnection = HTTPSConnection(parts.hostname, port, timeout=_PATIENCE, context=tls)
        else:
            self._connection = HTTPConnection(parts.hostname, port, timeout=_PATIENCE)
        self._base = parts.path.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(self, path: str, args: Sequence[Any]) -> Any:
        """Return what a function returns; raises StartError with its error."""
        return self._result(self._request("POST", path, json.dumps(list(args)).encode()))

    def get(self, path: str, **query: str) -> Any:
        """Return what is at a path; raises StartError."""
        return self._result(self._request("GET", f"{path}?{urlencode(query)}" if query else path))

    def page(self, path: str) -> Any:
        """Return the JSON of a page, whatever its status; raises StartError."""
        try:
            return json.loads(self.text(path))
        except ValueError:
            raise StartError(f"{self._name} answers {path} with no JSON of a gateway") from None

    def text(self, path: str) -> str:
        """Return a page, whatever its status; raises StartError."""
        try:
            return self._request("GET", path).read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise StartError(f"no whole reply from {self._name}: {_shown(error)}") from None

    def stream(self, path: str, **query: str) -> Iterator[Any]:
        """Give each event of a stream, as it happens, until the stream ends."""
        response = self._request("GET", f"{path}?{urlencode(query)}", accept="text/event-stream")
        if response.status != 200:
            self._result(response)
        for line in self._lines(response):
            if line.startswith(b"data:"):
                yield json.loads(line.removeprefix(b"data:"))

    def _lines(self, response: HTTPResponse) -> Iterator[bytes]:
        try:
            yield from response
        except (OSError, HTTPException) as error:
            raise StartError(f"the stream from {self._name} broke: {_shown(error)}") from None

    def _request(self, method: str, path: str, body: bytes | None = None, accept: str = "*/*") -> HTTPResponse:
        try:
            self._connection.request(method, self._base + path, body, {**self._headers, "Accept": accept})
            response: HTTPResponse = self._connection.getresponse()
        except (OSError, HTTPException, UnicodeError) as error:
            raise StartError(f"no reply from {self._name}: {_shown(error)}") from None
        return response

    def _result(self, response: HTTPResponse) -> Any:
        try:
            text = response.read()
            data = json.loads(text)
            if "err" in data:
                raise StartError(f"{data['err']['code']}: {data['err']['message']}")
            return data["ok"]
        except (OSError, HTTPException) as error:
            raise StartError(f"no whole reply from {self._name}: {_shown(error)}") from None
        except (ValueError, KeyError, TypeError):
            raise StartError(f"{self._name} answers with {response.status} and no JSON of a gateway") from None


def _tls(ca: str | None, cert: str | None) -> ssl.SSLContext:
    path = ca or cert
    try:
        context = ssl.create_default_context(cafile=ca)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the gateway's own certificate may be named
        if (path := cert) is not None:
            context.load_cert_chain(path)
    except OSError as error:  # of OpenSSL, too
        raise UsageError(f"cannot use the certificate {path}: {error.strerror or error}") from None
    return context


def _shown(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message} (--ca names whom to trust)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it took too long" if isinstance(error, socket.timeout) else str(error) or type(error).__name__


def of_gateway(command: F) -> F:
    """Give a command the gateway that the flags or the environment name, as its first argument."""

    def run(*args: Any, url: str, key: str | None, ca: str | None, cert: str | None, **more: Any) -> Any:
        with closing(Gateway(url, key, ca, cert)) as gateway:
            return command(gateway, *args, **more)

    about = f"URL of the gateway.  [env: {URL_VARIABLE}]"
    secret = f"The key; others on this machine may see flags, so rather set {KEY_VARIABLE}."
    named = click.option("--url", envvar=URL_VARIABLE, default=_DEFAULT, show_default=True, help=about)
    shown = click.option("--key", envvar=KEY_VARIABLE, help=secret)
    trusts = f"Certificates to trust in place of the system's, for https.  [env: {CA_VARIABLE}]"
    trusted = click.option("--ca", metavar="FILE", envvar=CA_VARIABLE, help=trusts)
    proves = f"A certificate to show, and its key in the same file, for https.  [env: {CERT_VARIABLE}]"
    proved = click.option("--cert", metavar="FILE", envvar=CERT_VARIABLE, help=proves)
    return cast("F", named(shown(trusted(proved(update_wrapper(run, command))))))


def _value(text: str) -> Any:
    """Return the value of an argument: JSON, or text where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _object(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    value = _value(text)
    if not isinstance(value, dict):
        raise click.BadParameter("expected a JSON object")
    return value


def _path(queue: str, rest: str) -> str:
    return f"/queue/{quote(queue, safe='')}/{quote(rest, safe='')}"


def _print(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


@click.command()
@click.argument("queue")
@click.argument("function")
@click.argument("args", nargs=-1)
@of_gateway
def call(gateway: Gateway, queue: str, function: str, args: tuple[str, ...]) -> int:
    """Call a function of a queue: each argument is JSON, or text where it is none."""
    _print(gateway.call(_path(queue, function), [_value(text) for text in args]))
    return Exit.DONE


@click.command()
@click.argument("queue")
@click.argument("name")
@click.argument("data", default="{}")
@click.option("--opts", callback=_object, help="Options of the job: '{\"delay\": 5000}'.")
@of_gateway
def add(gateway: Gateway, queue: str, name: str, data: str, opts: Mapping[str, Any] | None) -> int:
    """Add a job, with JSON or text as its data, and print its id."""
    added = gateway.call(_path(queue, "add"), [name, _value(data), *([] if opts is None else [opts])])
    click.echo(added["id"])
    return Exit.DONE


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@of_gateway
def queues(gateway: Gateway, as_json: bool) -> int:
    """Show the queues that the key may see: jobs by state, the age of the job next in line, who is connected."""
    found: list[dict[str, Any]] = []
    query = {"counts": "true", "oldest": "true", "connected": "true"}
    while True:
        page = gateway.get("/queues", **query)
        found += page["queues"]
        if not page.get("cursor"):
            break
        query["cursor"] = page["cursor"]
    if as_json:
        _print(found)
        return Exit.DONE
    rows: list[tuple[str, ...]] = [("queue", *_STATES, "oldest", "workers", "watchers")]
    for row in sorted(found, key=lambda row: str(row["name"])):
        counts, name = row.get("counts", {}), row["name"] + (" (paused)" if row.get("paused") else "")
        states = (str(counts.get(state, "")) for state in _STATES)
        connected = (str(row.get("workers", "")), str(row.get("watchers", "")))
        rows.append((name, *states, age(row.get("oldest")), *connected))
    show(rows)
    return Exit.DONE


@click.command()
@click.option("--queue", help="Only those of this queue.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@of_gateway
def connections(gateway: Gateway, queue: str | None, as_json: bool) -> int:
    """Show who is connected to the queues that the key manages, over all shards and hosts."""
    found = gateway.get("/connections", limit="1000", **({} if queue is None else {"queue": queue}))
    if as_json:
        _print(found)
        return Exit.DONE
    now = time.time() * 1000
    rows: list[tuple[str, ...]] = [("id", "kind", "queue", "key", "address", "host", "for", "in hand", "calls", "lag")]
    for each in found["connections"]:
        words = [each[name] for name in ("id", "kind", "queue", "key", "address", "host")]
        numbers = (str(each[name] or 0) for name in ("inHand", "calls", "lag"))
        rows.append((*(str(word or "") for word in words), age(now - each["since"]), *numbers))
    show(rows)
    if found["omitted"] or found["silent"]:
        click.echo(f"not shown: {found['omitted']} more; shards that did not answer: {found['silent']}", err=True)
    return Exit.DONE


@click.command()
@click.argument("queue")
@click.option("--events", help="Only these, with commas between them: completed,failed.")
@of_gateway
def watch(gateway: Gateway, queue: str, events: str | None) -> int:
    """Print the events of a queue, a line of JSON for each, until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        for event in gateway.stream(_path(queue, "events"), events="*" if events is None else events):
            click.echo(json.dumps(event, ensure_ascii=False))
    return Exit.DONE


COMMANDS = (add, call, connections, queues, watch)


def age(milliseconds: float | None) -> str:
    """Return a time for people: `12 s`, `3 min`, `5 h`, `2 d`."""
    if milliseconds is None:
        return ""
    seconds = max(0.0, milliseconds / 1000)
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def show(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows as a table; the first one has the heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join("".join(c if c.isprintable() else "?" for c in cell) for cell in cells).rstrip())
