"""The first message on a control socket: all that a supervisor hands to a new shard, which may be of a newer version.

A shard runs the code that is installed when it starts, under a supervisor that runs the code of its own start. Settings
that only one of them knows do no harm; what would is refused by its number, `PROTOCOL` or the memory's `LAYOUT`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bullmq_proxy.gateway import __version__
from bullmq_proxy.gateway.access.certificates import Certificate
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.settings import SettingError, Settings, options

log = logging.getLogger(__name__)

HANDOVER: Final = 2.0
"""Seconds for which a shard with a successor serves on and accepts nobody: clients that come and go have gone then."""

PROTOCOL: Final = 4
"""Number of the messages between supervisor and shard. Count up with any change that one side could misread."""


class IncompatibleError(Exception):
    """This shard cannot run under its supervisor, which is of another version."""

    def __init__(self, version: object, reason: object) -> None:
        super().__init__(
            f"the installed bullmq-proxy {__version__} cannot serve under the running supervisor {version}"
            f" ({reason}): restart the service"
        )


class StartMessage(NamedTuple):
    """All that a new shard needs.

    Attributes:
        settings: complete: port, redis_url and auth_keys are final.
        slot: the shard's place among its siblings.
        listener: index of the listening socket that it serves.
        incarnation: number of processes that have served the slot before.
        must_reach_redis: whether it is to end when it cannot, since nobody serves yet, or another shard still does.
        gateway_id: of this run of the service, the same for all its shards.
        keys: those of the keys file; later lists are messages of their own.
        certificate: of the listener, as it was read; None for no TLS. Later ones are messages of their own.
        listeners: descriptors of all listening sockets, which the shard inherits. It serves others than its own one
            when it is told to.
        memory: descriptor of the shared memory, which the shard inherits.
        lines: those of the lines by which shards hand on sockets; none where they do not.
    """

    settings: Settings
    slot: int
    listener: int
    incarnation: int
    must_reach_redis: bool
    gateway_id: str
    keys: tuple[Key, ...]
    certificate: Certificate | None
    listeners: tuple[int, ...]
    memory: int
    lines: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the message for the control socket."""
        return {
            "event": "start",
            "protocol": PROTOCOL,
            "version": __version__,
            "settings": {option.name: getattr(self.settings, option.name) for option in options()},
            "slot": self.slot,
            "listener": self.listener,
            "incarnation": self.incarnation,
            "must_reach_redis": self.must_reach_redis,
            "gateway_id": self.gateway_id,
            "keys": [key.to_json() for key in self.keys],
            "certificate": self.certificate and self.certificate.to_json(),
            "listeners": self.listeners,
            "memory": self.memory,
            "lines": self.lines,
        }

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> StartMessage:
        """Read what `to_json` of another version, too, has made.

        Raises:
            IncompatibleError: the supervisor speaks another protocol, or has a setting that cannot be used here.
        """
        version, protocol = message.get("version"), message.get("protocol")
        if protocol != PROTOCOL:
            raise IncompatibleError(version, f"protocol {PROTOCOL} instead of {protocol}")
        known = {option.name for option in options()}
        given = message["settings"]
        for name in given.keys() - known:
            log.warning(
                "the supervisor, version %s, has a setting that version %s ignores: %s", version, __version__, name
            )
        for name in known - given.keys():
            log.warning("the supervisor, version %s, has no setting %s: its default is used", version, name)
        try:
            settings = Settings(**{name: value for name, value in given.items() if name in known})
        except SettingError as error:
            raise IncompatibleError(version, error) from None
        return cls(
            settings=settings,
            slot=message["slot"],
            listener=message["listener"],
            incarnation=message["incarnation"],
            must_reach_redis=message["must_reach_redis"],
            gateway_id=message["gateway_id"],
            keys=tuple(map(Key.from_json, message["keys"])),
            certificate=message["certificate"] and Certificate.from_json(message["certificate"]),
            listeners=tuple(message["listeners"]),
            memory=message["memory"],
            lines=tuple(message.get("lines", ())),
        )
