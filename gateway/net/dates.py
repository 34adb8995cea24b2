"""The date that responses have, written once a second (RFC 9110 §6.6.1)."""

from __future__ import annotations

import email.utils
import time


class _Clock:
    second = 0
    text = ""


def date() -> str:
    """Return the value of the header."""
    second = int(time.time())
    if second != _Clock.second:
        _Clock.second, _Clock.text = second, email.utils.formatdate(second, usegmt=True)
    return _Clock.text
