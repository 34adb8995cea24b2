"""Files that hold secrets, or decide who comes in: other users of the machine may neither read nor write them."""

from __future__ import annotations

import os
import shlex
import stat
from typing import Final

_LOOSE: Final = stat.S_IRWXO | stat.S_IWGRP  # a group that may read is one that somebody chose
_ROOT: Final = 0


def exposure(found: os.stat_result, path: object) -> str | None:
    """Return how other users can get at a file or directory, and the remedy; None when they cannot.

    Args:
        found: what `stat` says of it.
        path: for the message.
    """
    shown = shlex.quote(str(path))
    if found.st_uid not in (_ROOT, os.geteuid()):
        return f"{path} belongs to another user (uid {found.st_uid}): chown {os.geteuid()} {shown}"
    mode = stat.S_IMODE(found.st_mode)
    if mode & _LOOSE:
        right = "700" if stat.S_ISDIR(found.st_mode) else "600"
        return f"other users can read or write {path} (mode {mode:04o}): chmod {right} {shown}"
    return None
