"""`bullmq-proxy key`: makes keys with permissions, and lists those of a keys file. Secrets are shown once, not kept."""

from __future__ import annotations

import datetime
import difflib
import errno
import fcntl
import os
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from bullmq_proxy.gateway.access import keys_file
from bullmq_proxy.gateway.access.keys_file import Key, KeysError
from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.settings import options
from bullmq_proxy.gateway.value_types import quoted
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
    """Make keys with permissions, or list them."""


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
def create(
    name: str,
    path: str | None,
    queues: Sequence[str],
    permissions: Sequence[str],
    expires: str | None,
    rate: float | None,
    connections: int | None,
) -> int:
    """Make a key and print its secret, alone, on stdout.

    With a keys file the key is added to it, and a running gateway takes it over on SIGHUP. Without one, what belongs
    into the file is printed on stderr. The secret is shown this once: only its hash is kept.
    """
    if not keys_file.NAME.fullmatch(name):
        raise UsageError(f"key {name[:64]!r}: {keys_file.NAME_RULE}")
    secret = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    lines = [f"[keys.{name}]", f'hash = "sha256:{keys_file.digest(secret).hex()}"']
    lines += [f"queues = [{', '.join(map(quoted, queues))}]"]
    lines += [f"permissions = [{', '.join(map(quoted, dict.fromkeys(permissions)))}]"]
    lines += [f"expires = {_moment(expires)}"] if expires else []
    lines += [f"messages_per_second = {int(rate) if rate.is_integer() else rate}"] if rate is not None else []
    lines += [f"connections = {connections}"] if connections is not None else []
    block = "".join(f"{line}\n" for line in lines)
    try:
        made = keys_file.parse(block, "the new key")[0]
        if path is None:
            click.echo(f"Paste this into your keys file, then send SIGHUP to a running gateway:\n\n{block}", err=True)
            _show(secret)
        else:
            _append(path, name, block, partial(_show, secret))
            click.echo(f"Added key {name} to {path}; a running gateway takes it over on SIGHUP.", err=True)
    except KeysError as error:
        raise UsageError(str(error)) from None
    if not made.grant.queues or not made.grant.permissions:
        click.echo("It may do nothing yet: give it queues (--queue) and permissions (--allow).", err=True)
    return Exit.DONE


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
    rows = [("NAME", "QUEUES", "PERMISSIONS", "EXPIRES", "CALLS/S", "CONNECTIONS")]
    for each in listed:
        rows.append(
            (
                each.name,
                ",".join(each.grant.queues) or "-",
                ",".join(word for word in keys_file.PERMISSIONS if word in each.grant.permissions) or "-",
                "-" if each.expires is None else _shown(each.expires),
                "-" if each.messages_per_second is None else f"{each.messages_per_second:g}",
                "-" if each.connections is None else str(each.connections),
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


def _append(path: str, name: str, block: str, show: Callable[[], None]) -> None:
    """Add a table to the file. What is in it stays as it is, byte for byte, and no reader ever sees half of it.

    Args:
        path: of the file.
        name: of the key.
        block: the table.
        show: is called when all but the last step is done; if it fails nothing is added.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        with _locked(target.parent):
            before, like = _read(target)
            known = [each.name for each in keys_file.parse(_decoded(before, path), path)]
            if name in known:
                raise UsageError(
                    f"{path} has a key {name} already: choose another name, or remove it from the file first"
                )
            gap = b"" if not before else b"\n" if before.endswith(b"\n") else b"\n\n"
            after = before + gap + block.encode()
            try:
                keys_file.parse(after.decode(), path)
            except KeysError as error:
                raise UsageError(f"cannot add to {path}, write the key into it by hand: {error}") from None
            _replace(target, after, like, show)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _read(target: Path) -> tuple[bytes, os.stat_result | None]:
    """Return the file's bytes, and whose it is; nothing and None where there is none yet."""
    try:
        return keys_file.read_file(target)
    except FileNotFoundError:
        return b"", None


def _decoded(content: bytes, path: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise KeysError(f"{path} is not UTF-8 text") from None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Two commands at once would each write what it has read, and lose the other's key."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _replace(target: Path, content: bytes, like: os.stat_result | None, show: Callable[[], None]) -> None:
    """Put new content in the file's place, with the owner and mode that it had, or 0600 for a new one."""
    fd, made = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # 0600
    try:
        with open(fd, "wb") as file:
            file.write(content)
            if like is not None:
                if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(fd, like.st_uid, like.st_gid)
                os.fchmod(fd, stat.S_IMODE(like.st_mode))
            file.flush()
            os.fsync(fd)
        show()
        os.replace(made, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(made)
        raise
