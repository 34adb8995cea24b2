"""A clock of its own for a process, which can be set: by Debian's libfaketime, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_LIBRARY = "usr/lib/*/faketime/libfaketime.so.1"


class Clock:
    """The time of day for processes that are started with `environment`; their monotonic time is the true one."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(0)

    @classmethod
    def found(cls, file: Path) -> Clock | None:
        """Return a clock that is told by a file, or None where the library is missing."""
        libraries = sorted(Path("/").glob(_LIBRARY))
        return cls(libraries[0], file) if libraries else None

    def set(self, seconds: int) -> None:
        """Let the clock be fast by so much, or slow."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
