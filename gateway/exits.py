"""Exit codes: what a dying process tells its parent, and the service tells its user."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """A contract: shards, the supervisor, service units and scripts rely on these numbers."""

    DONE = 0
    """Drained and finished on request."""

    FAILED = 1
    """A shard: crashed, start another one after a pause. The service: it could not start or go on."""

    USAGE = 2
    """A flag, variable or configuration file cannot be used."""

    INCOMPATIBLE = 69
    """A shard: the version installed now cannot run under this supervisor (`EX_UNAVAILABLE`): end the service, if no
    other shard serves."""

    BAD_START = 78
    """A shard's start cannot succeed by trying again (`EX_CONFIG` of sysexits): stop the service."""
