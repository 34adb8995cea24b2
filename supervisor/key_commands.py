"""`bullmq-proxy key`: makes keys with permissions, and lists those of a keys file. Secrets are shown once, not kept."""

from __future__ import annotations

import datetime
import difflib
import errno
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import click

from bullmq_proxy.gateway.access import keys_file
from bullmq_proxy.gateway.access.keys_file import Key, KeysError
from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.settings import options
from bullmq_proxy.gateway.value_types import quoted
from bullmq_proxy.supervisor import keys_text
from bullmq_proxy.supervisor.sources import UsageError

F = TypeVar("F", bound=Callable[..., Any])

_SECRET_BYTES = 32  # what makes a plain SHA-256 of it safe to keep
_PREFIX = "bmq_"  # tells people and scanners what it is, and is never taken for a flag
_FILE = next(option for option in options() if option.name == "keys_file")


def _keys_file(*, required: bool) -> Callable[[F], F]:
    return click.option(
        _FILE.flag, "path", metavar="FILE", envvar=_FILE.environment[0], required=required,
        help=f"The keys file.  [env: {_FILE.environment[0]}]",
    )  # fmt: skip


def _permissions(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> list[str]:
    """Return the words of `--allow`, which may be repeated and may have commas."""
    words = [word.strip() for text in given for word in text.split(",")]
    for word in words:
        if word not in keys_file.PERMISSIONS:
            near = difflib.get_close_matches(word, keys_file.PERMISSIONS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.BadParameter(f"{word[:64]!r} is not one of {', '.join(keys_file.PERMISSIONS)}{hint}")
    return words


@click.group()
def key() -> None:
    """Make keys with permissions, list, rotate and revoke them."""


@key.command()
@click.argument("name")
@_keys_file(required=False)
@click.option("--queue", "queues", metavar="PATTERN", multiple=True, help="Queue it is for; * stands for any text.")
@click.option(
    "--allow", "permissions", metavar=f"[{'|'.join(keys_file.PERMISSIONS)}]", multiple=True, callback=_permissions,
    help="Permission that it gets, or several with commas. May be repeated, as --queue may.",
)  # fmt: skip
@click.option("--expires", metavar="DATE", help="As 2027-01-31 or 2027-01-31T12:00:00Z; UTC unless it says otherwise.")
@click.option("--messages-per-second", "rate", metavar="NUMBER", type=float, help="Calls of all its connections.")
@click.option("--connections", metavar="NUMBER", type=int, help="How many may be open at a time.")
@click.option("--address", "addresses", metavar="NETWORK", multiple=True, help="Where its clients come from; else any.")
def create(
    name: str,
    path: str | None,
    queues: Sequence[str],
    permissions: Sequence[str],
    expires: str | None,
    rate: float | None,
    connections: int | None,
    addresses: Sequence[str],
) -> int:
    """Make a key and print its secret, alone, on stdout.

    With a keys file the key is added to it, and a running gateway takes it over on SIGHUP. Without one, what belongs
    into the file is printed on stderr. The secret is shown this once: only its hash is kept.
    """
    if not keys_file.NAME.fullmatch(name):
        raise UsageError(f"key {name[:64]!r}: {keys_file.NAME_RULE}")
    secret = _new_secret()
    lines = [f"[keys.{name}]", f"hash = {keys_text.hash_of(secret)}"]
    lines += [f"queues = [{', '.join(map(quoted, queues))}]"]
    lines += [f"permissions = [{', '.join(map(quoted, dict.fromkeys(permissions)))}]"]
    lines += [f"expires = {_moment(expires)}"] if expires else []
    lines += [f"messages_per_second = {int(rate) if rate.is_integer() else rate}"] if rate is not None else []
    lines += [f"connections = {connections}"] if connections is not None else []
    lines += [f"addresses = [{', '.join(map(quoted, addresses))}]"] if addresses else []
    block = "".join(f"{line}\n" for line in lines)
    try:
        made = keys_file.parse(block, "the new key")[0]
        if path is None:
            click.echo(f"Paste this into your keys file, then send SIGHUP to a running gateway:\n\n{block}", err=True)
            _show(secret)
        else:
            keys_text.append(path, name, block, partial(_show, secret))
            click.echo(f"Added key {name} to {path}; a running gateway takes it over on SIGHUP.", err=True)
    except KeysError as error:
        raise UsageError(str(error)) from None
    if not made.grant.queues or not made.grant.permissions:
        click.echo("It may do nothing yet: give it queues (--queue) and permissions (--allow).", err=True)
    return Exit.DONE


def _new_secret() -> str:
    return _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def _show(secret: str) -> None:
    """Print the secret; raises UsageError when nobody can have got it."""
    click.echo("The secret, which is not kept anywhere:", err=True)
    try:
        if sys.stdout is None:  # it was closed when we started
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sys.stdout.write(f"{secret}\n")
        sys.stdout.flush()
    except OSError as error:
        if sys.stdout is not None:  # what is left in the buffer would fail again at the end and spoil the exit code
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UsageError(f"cannot print the secret on stdout, so no key is made: {error.strerror}") from None


@key.command()
@click.argument("name")
@_keys_file(required=True)
@click.option("--finish", is_flag=True, help="Make no secret: end all of them but the newest.")
def rotate(name: str, path: str, finish: bool) -> int:
    """Give a key a new secret beside the old one, and print it, alone, on stdout.

    Both let clients in after a SIGHUP. When all clients have the new one, --finish and another SIGHUP end the old one.
    """
    secret = None if finish else _new_secret()
    try:
        keys_text.rotate(path, name, secret, None if secret is None else partial(_show, secret))
    except KeysError as error:
        raise UsageError(str(error)) from None
    done = f"Only the newest secret of {name} is left" if finish else f"{name} has one more secret"
    click.echo(f"{done} in {path}; a running gateway takes that over on SIGHUP.", err=True)
    return Exit.DONE


@key.command()
@click.argument("name")
@_keys_file(required=True)
def revoke(name: str, path: str) -> int:
    """Take a key out of the file; a SIGHUP then closes its connections."""
    try:
        keys_text.revoke(path, name)
    except KeysError as error:
        raise UsageError(str(error)) from None
    click.echo(f"Key {name} is gone from {path}; a running gateway closes its connections on SIGHUP.", err=True)
    return Exit.DONE


@key.command(name="list")
@_keys_file(required=True)
def list_keys(path: str) -> int:
    """List the keys of a file: what they may do, until when, and how much. No hashes."""
    file = keys_file.KeysFile(path)
    try:
        file.read()
    except KeysError as error:
        raise UsageError(str(error)) from None
    for remark in file.remarks:
        click.echo(f"warning: {remark}", err=True)
    for row in _table(file.keys):
        click.echo(row)
    return Exit.DONE


def _table(listed: Sequence[Key]) -> Iterator[str]:
    rows = [("NAME", "QUEUES", "PERMISSIONS", "EXPIRES", "CALLS/S", "CONNECTIONS", "SECRETS", "ADDRESSES")]
    for each in listed:
        rows.append(
            (
                each.name,
                ",".join(each.grant.queues) or "-",
                ",".join(word for word in keys_file.PERMISSIONS if word in each.grant.permissions) or "-",
                "-" if each.expires is None else _shown(each.expires),
                "-" if each.messages_per_second is None else f"{each.messages_per_second:g}",
                "-" if each.connections is None else str(each.connections),
                str(len(each.digests)),
                ",".join(map(str, each.addresses)) or "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shown(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat().replace("+00:00", "Z")


def _moment(text: str) -> str:
    """Return a date or date-time of the command line as TOML has it."""
    try:
        moment: datetime.date = (
            datetime.date.fromisoformat(text) if len(text) <= 10 else datetime.datetime.fromisoformat(text)
        )
    except ValueError:
        raise UsageError(
            f"--expires: expected a date such as 2027-01-31 or 2027-01-31T12:00:00Z, got {text!r}"
        ) from None
    try:
        end = keys_file.timestamp(moment)
    except ValueError as error:
        raise UsageError(f"--expires: {error}") from None
    if end <= time.time():
        raise UsageError(f"--expires: {text} is in the past")
    return moment.isoformat()
