"""Listeners: functions of the user's that are called when something happens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

log = logging.getLogger("bullmq_proxy.client")

Listener = TypeVar("Listener", bound=Callable[..., None])
_HEARD: Final = frozenset({"error", "lost"})  # go to the log where nobody listens


class Listeners:
    """Listeners by the names of what they wait for."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Callable[..., None]]] = {}

    def on(self, name: str, listener: Listener) -> Listener:
        """Call `listener` whenever `name` happens."""
        self._listeners.setdefault(name, []).append(listener)
        return listener

    def off(self, name: str, listener: Callable[..., None]) -> None:
        """Call it no more; a ValueError when it was not called."""
        self._listeners.get(name, []).remove(listener)

    def emit(self, name: str, *args: Any) -> None:
        """Call the listeners; what they raise goes to the log."""
        listeners = self._listeners.get(name, [])
        if name in _HEARD and not listeners:
            log.warning("%s: %s", name, ", ".join(map(str, args)))
        for listener in list(listeners):
            try:
                listener(*args)
            except Exception:
                log.exception("a listener to %r has failed", name)
