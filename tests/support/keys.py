"""Keys files for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bullmq_proxy.gateway.access.keys_file import digest


def entry(name: str, *permissions: str, queues: Iterable[str] = ("*",), secret: str = "", **limits: Any) -> str:
    """The table of one key in a keys file.

    Args:
        name: of the key; also its secret, unless `secret` is another.
        permissions: that it has.
        queues: patterns.
        limits: further fields, as TOML has them.
    """
    lists = {"queues": queues, "permissions": permissions}
    fields = {
        "hash": f'"sha256:{digest(secret or name).hex()}"',
        **{field: "[" + ", ".join(f'"{word}"' for word in words) + "]" for field, words in lists.items()},
        **limits,
    }
    return f"[keys.{name}]\n" + "".join(f"{field} = {value}\n" for field, value in fields.items())


def write_keys(path: Path, *entries: str) -> str:
    """Write a keys file that nobody else can read; returns its path."""
    path.write_text("\n".join(entries))
    path.chmod(0o600)
    return str(path)
