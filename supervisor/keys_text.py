"""The text of a keys file, changed by commands: what they do not change stays as it is, byte for byte."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bullmq_proxy.gateway.access import keys_file
from bullmq_proxy.gateway.access.keys_file import Key, KeysError
from bullmq_proxy.supervisor.sources import UsageError

Show = Callable[[], None]

_HEADER: Final = re.compile(
    r"""^[ \t]*\[[ \t]*keys[ \t]*\.[ \t]*(["']?)(?P<name>[\w-]+)\1[ \t]*\].*\n?""", re.MULTILINE
)
_NEXT_TABLE: Final = re.compile(r"(?:^[ \t]*(?:#.*)?\n)*^[ \t]*\[[^\n]*(?:\n|\Z)", re.MULTILINE)
_HASH: Final = re.compile(r"^(?P<begin>[ \t]*hash[ \t]*=[ \t]*)(?:\[[^\]]*\]|\"[^\"\n]*\"|'[^'\n]*')", re.MULTILINE)


def hash_of(secret: str) -> str:
    """Return what stands for a secret in the file, in quotes."""
    return _quoted(keys_file.digest(secret))


def append(path: str, name: str, block: str, show: Show) -> None:
    """Add a table to the file, which is made if there is none.

    Args:
        path: of the file.
        name: of the key.
        block: the table.
        show: is called when all but the last step is done; if it fails nothing is added.

    Raises:
        UsageError, KeysError: nothing was changed.
    """

    def add(text: str) -> str:
        if any(each.name == name for each in keys_file.parse(text, path)):
            raise UsageError(f"{path} has a key {name} already: choose another name, or remove it from the file first")
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        try:
            keys_file.parse(text + gap + block, path)
        except KeysError as error:
            raise UsageError(f"cannot add to {path}, write the key into it by hand: {error}") from None
        return text + gap + block

    _edit(path, add, show, may_be_new=True)


def rotate(path: str, name: str, secret: str | None, show: Show | None) -> None:
    """Put a new secret in front of those of a key, or leave it only the first of them where there is no new one.

    Arguments and errors as for `append`.
    """

    def change(text: str) -> str:
        keys = keys_file.parse(text, path)
        key = _find(keys, name, path)
        digests = key.digests[:1] if secret is None else (keys_file.digest(secret), *key.digests)
        if len(digests) > keys_file.SECRETS:
            raise UsageError(
                f"{path}: key {name} has {keys_file.SECRETS} secrets, the most: end the old ones with"
                f" `bullmq-proxy key rotate {name} --finish`"
            )
        listed = ", ".join(map(_quoted, digests))
        written = listed if len(digests) == 1 else f"[{listed}]"
        begin, end = _table(text, name)
        after = _HASH.sub(lambda found: found["begin"] + written, text[begin:end], count=1)
        wanted = [each._replace(digests=digests) if each is key else each for each in keys]
        return _checked(text[:begin] + after + text[end:], wanted, path, f"hash = {written}")

    _edit(path, change, show)


def revoke(path: str, name: str) -> None:
    """Take a key out of the file; arguments and errors as for `append`."""

    def remove(text: str) -> str:
        keys = keys_file.parse(text, path)
        key = _find(keys, name, path)
        begin, end = _table(text, name)
        return _checked(text[:begin] + text[end:], [each for each in keys if each is not key], path, "the table goes")

    _edit(path, remove)


def _quoted(digest: bytes) -> str:
    return f'"sha256:{digest.hex()}"'


def _find(keys: Sequence[Key], name: str, path: str) -> Key:
    for key in keys:
        if key.name == name:
            return key
    known = ", ".join(sorted(key.name for key in keys)[:20]) or "no keys at all"
    raise UsageError(f"{path} has no key {name[:64]!r}; there are {known}")


def _table(text: str, name: str) -> tuple[int, int]:
    """Return where the table of a key begins and ends: before the next one with the comments right above that."""
    header = next((found for found in _HEADER.finditer(text) if found["name"] == name), None)
    if header is None:
        return len(text), len(text)
    after = _NEXT_TABLE.search(text, header.end())
    return header.start(), after.start() if after else len(text)


def _checked(text: str, wanted: Sequence[Key], path: str, by_hand: str) -> str:
    """Return a changed text, if it has just the keys that are wanted: a file can be written in many ways."""
    with suppress(KeysError):
        if list(keys_file.parse(text, path)) == list(wanted):
            return text
    raise UsageError(f"{path} is written in a way that this command cannot change, do it by hand: {by_hand}")


def _edit(path: str, change: Callable[[str], str], show: Show | None = None, *, may_be_new: bool = False) -> None:
    """Put the text that `change` makes of a file's in its place; no reader ever sees half of it."""
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        with _locked(target.parent):
            before, like = _read(target, may_be_new=may_be_new)
            _replace(target, change(_decoded(before, path)).encode(), like, show)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _read(target: Path, *, may_be_new: bool) -> tuple[bytes, os.stat_result | None]:
    """Return the file's bytes, and whose it is; nothing and None where there is none yet."""
    try:
        return keys_file.read_file(target)
    except FileNotFoundError:
        if not may_be_new:
            raise
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


def _replace(target: Path, content: bytes, like: os.stat_result | None, show: Show | None) -> None:
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
        if show is not None:
            show()
        os.replace(made, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(made)
        raise
