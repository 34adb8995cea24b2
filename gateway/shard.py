"""One shard: the life of a forked process, from its first line to its exit code."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import uvloop

from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.app import App
from bullmq_proxy.gateway.broker.broker import Identity
from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.shared_memory import ShardMemory
from bullmq_proxy.gateway.wire.closing import CloseCode

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_CHUNK: Final = 64 * 1024


def run(
    settings: Settings,
    *,
    slot: int,
    incarnation: int,
    listener: socket.socket,
    control: socket.socket,
    first: bool,
    gateway_id: str = "",
    orphaned: Sequence[str] = (),
    keys: Sequence[Key] = (),
    row: ShardMemory | None = None,
) -> int:
    """Run one shard until it has drained.

    Args:
        settings: complete, with `redis_url` and `auth_keys`.
        slot: the shard's place among its siblings.
        incarnation: counts the processes that have served this slot.
        listener: the slot's listening socket.
        control: our end of the socket pair to the parent: lines of JSON; its end means that the parent died.
        first: whether this is the start of the service, where Redis must be reachable within `redis_start_timeout`.
            Later ones serve at once and wait for Redis meanwhile.
        gateway_id: of this run of the gateway, the same for all its shards.
        orphaned: queues that the predecessor in this slot served, if it was killed.
        keys: those of the keys file; later lists come from the parent.
        row: where their connections are counted for all shards to see.

    Returns:
        The exit code.
    """
    _spare_memory_management()
    identity = Identity(gateway_id or f"{socket.gethostname()}-{os.getppid()}", slot, incarnation)
    shard = _Shard(settings, identity, listener, control, tuple(orphaned), tuple(keys), row)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(shard.live(first))


def _spare_memory_management() -> None:
    """Spend less on memory than a program with other habits must.

    What is loaded now stays: the collector need not look at it, and what comes later holds few cycles (1 to 3 us per
    add and job). glibc gives each large block back to the system at once, and then clears the pages of the next one: of
    6 ms for a payload of 1 MB that was 4.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with suppress(OSError, AttributeError):  # another C library than glibc has no mallopt
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)


class _Shard:
    """The process around one App."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        listener: socket.socket,
        control: socket.socket,
        orphaned: tuple[str, ...],
        keys: tuple[Key, ...],
        row: ShardMemory | None,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._listener = listener
        self._control = control
        self._orphaned = orphaned
        self._keys = keys
        self._row = row
        self._unsaid = bytearray()  # messages that the parent has not taken yet
        self._leave: asyncio.Event
        self._app: App | None = None

    async def live(self, first: bool) -> int:
        self._leave = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told_to_leave)
        self._control.setblocking(False)
        watch = asyncio.create_task(self._watch_parent(), name="parent")
        try:
            assert self._settings.redis_url is not None
            address = Address.from_url(self._settings.redis_url)
            app = App(self._settings, address, self._identity, self._keys, self._row)
            self._app = app
            timeout = self._settings.redis_start_timeout if first else None
            starting = asyncio.create_task(app.start(self._listener, redis_timeout=timeout))
            if not await self._started(starting):
                return Exit.DONE
        except (GatewayError, OSError, ValueError) as error:
            self._tell(event="failed", message=str(error))
            return Exit.BAD_START
        try:
            app.broker.on_served = lambda queues: self._tell(event="serving", queues=queues)
            app.broker.adopt(self._orphaned)
            self._tell(event="ready")
            await self._leave.wait()
            await app.drain(self._settings.drain_timeout, CloseCode.GOING_AWAY)
            return Exit.DONE
        finally:
            watch.cancel()

    def _told_to_leave(self) -> None:
        """SIGTERM: drain; a second one: do not wait for the clients."""
        if self._leave.is_set() and self._app is not None:
            self._app.hurry()
        self._leave.set()

    async def _started(self, starting: asyncio.Task[None]) -> bool:
        """Wait for the start; being told to leave meanwhile ends it."""
        leave = asyncio.create_task(self._leave.wait())
        await asyncio.wait((starting, leave), return_when=asyncio.FIRST_COMPLETED)
        leave.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        return False

    def _tell(self, **message: Any) -> None:
        """Say something to the parent, at once if it can take it."""
        self._unsaid += json.dumps(message).encode() + b"\n"
        self._speak()

    def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            del self._unsaid[: self._control.send(self._unsaid)]
        except BlockingIOError:
            pass
        except OSError:  # the parent is gone, which `_watch_parent` sees to
            self._unsaid.clear()
        if self._unsaid:
            loop.add_writer(self._control, self._speak)
        else:
            loop.remove_writer(self._control)

    async def _watch_parent(self) -> None:
        """Hear what the parent says, one JSON object per line; the end of it is the parent's end."""
        loop = asyncio.get_running_loop()
        unread = b""
        try:
            while chunk := await loop.sock_recv(self._control, _CHUNK):
                *lines, unread = (unread + chunk).split(b"\n")
                for line in lines:
                    self._hear(json.loads(line))
            log.warning("the supervisor is gone: draining")
        except OSError:
            log.warning("the supervisor is gone: draining")
        except Exception:  # rather a successor with the new keys than a shard that goes on with old ones
            log.exception("what the supervisor says cannot be understood: draining")
        self._leave.set()

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"event": "keys", "keys": [*keys]} if self._app is not None:
                self._app.replace_keys(map(Key.from_json, keys))
