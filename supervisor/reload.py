"""A reload: flags, environment and configuration file in once more, the settings that can be put in force out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from bullmq_proxy.gateway.access.certificates import Certificate
from bullmq_proxy.gateway.access.keys_file import KeysFile
from bullmq_proxy.gateway.settings import SettingError, Settings, options
from bullmq_proxy.supervisor.keys import open_certificate, require_keys
from bullmq_proxy.supervisor.sources import UsageError

# What is open, forked or locked already.
_FOR_GOOD = ("host", "port", "procs", "data_dir", "valkey_server", "keys_file", "pid_file", "balance")


class Found(NamedTuple):
    """The findings of a reload.

    Attributes:
        settings: to be in force from now on.
        changed: names of those that are others than before.
        ignored: names of those that count from a restart on.
        certificate: of the settings, as its files are now.
        remarks: on it, for the log.
    """

    settings: Settings
    changed: Sequence[str]
    ignored: Sequence[str]
    certificate: Certificate | None
    remarks: Sequence[str]


class Reload:
    """Reads the settings again. What was not given at the start, such as a key that was made then, stays."""

    def __init__(self, read: Callable[[], Settings]) -> None:
        """Make it; `read` returns the settings as they are given now, and may raise UsageError."""
        self._read = read
        self._given = self._proven = read()

    def prove(self) -> None:
        """Note that shards can start with what was found last."""
        self._proven = self._given

    def undo(self) -> None:
        """Forget what was found since `prove`: the settings are again those of then."""
        self._given = self._proven

    def find(self, current: Settings, keys_file: KeysFile | None) -> Found:
        """Return what is to be in force in place of the `current` settings.

        Raises:
            UsageError: something that is given now cannot be used.
        """
        given = self._read()
        for_good = _FOR_GOOD if self._given.redis_url is not None else (*_FOR_GOOD, "redis_url")
        others = [
            option.name for option in options() if getattr(given, option.name) != getattr(self._given, option.name)
        ]
        changed = [name for name in others if name not in for_good]
        try:
            settings = replace(current, **{name: getattr(given, name) for name in changed})
        except SettingError as error:
            raise UsageError(str(error)) from None
        if not {"auth_keys", "no_auth", "token_keys"}.isdisjoint(changed):
            _, made_key = require_keys(settings, keys_file)
            if made_key is not None:
                raise UsageError("auth_keys: none is left, and a key is made only at the start")
        certificate, remarks = open_certificate(settings)
        self._given = replace(given, **{name: getattr(self._given, name) for name in others if name in for_good})
        return Found(settings, changed, [name for name in others if name in for_good], certificate, remarks)
