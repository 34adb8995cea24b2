"""Logging set-up: one line per record on stderr, as text for people or as JSON for machines.

Called once by a process when it starts, never at import. What goes into a record is its author's duty: no
key, no query string and no job data is ever logged.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

SUPERVISOR = "supervisor"

# C0 and C1, the line and paragraph separators, and what turns the direction of text around.
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SHORT: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def speaker(slot: int | None) -> str:
    """Return who is talking: the parent has no slot."""
    return SUPERVISOR if slot is None else f"shard {slot}"


def timestamp(seconds: float) -> str:
    """UTC in ISO 8601 with milliseconds, so that lines of several processes sort."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _safe(text: str) -> str:
    """Escape what a client may have put into a text to end the line, to act on a terminal, or to hide something."""
    return _UNSAFE.sub(lambda found: _SHORT.get(found[0]) or rf"\u{ord(found[0]):04x}", text)


class TextLines(logging.Formatter):
    """`2026-01-31T07:00:00.123Z INFO shard 0: message [event]`; a traceback follows, indented by two spaces."""

    def __init__(self, slot: int | None) -> None:
        super().__init__()
        self._speaker = speaker(slot)

    def format(self, record: logging.LogRecord) -> str:
        # A line break that a client smuggled into a text must not look like a record of its own.
        line = f"{timestamp(record.created)} {record.levelname} {self._speaker}: {_safe(record.getMessage())}"
        if event := getattr(record, "event", None):
            line += f" [{event}]"
        story = _story(self, record)
        return "\n  ".join([line, *(_safe(each) for each in story.split("\n"))]) if story else line


class JsonLines(logging.Formatter):
    """One JSON object per line: ts, level, logger, msg, slot, pid; of an event its name and fields; and trace."""

    def __init__(self, slot: int | None) -> None:
        super().__init__()
        self._slot = slot

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "ts": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            "slot": self._slot,
            "pid": os.getpid(),
        }
        if event := getattr(record, "event", None):
            entry["event"] = event
            if isinstance(record.args, Mapping):
                entry = {**record.args, **entry}
        story = _story(self, record)
        if story:
            entry["trace"] = story
        return _safe(json.dumps(entry, ensure_ascii=False, default=str))


def _story(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def configure(level: str, form: str, slot: int | None = None) -> None:
    """Send every record of this process to stderr.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `text` or `json`.
        slot: the shard's slot; None for the supervisor.

    A forked shard calls it again: its parent's handler, which names the parent, is replaced.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(slot) if form == "json" else TextLines(slot))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
