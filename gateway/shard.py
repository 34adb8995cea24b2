"""A shard: one gateway under a supervisor, from its start to its exit code."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import uvloop

from bullmq_proxy.gateway.access.certificates import Certificate
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.access.token_keys import TokenKeysError, load_library
from bullmq_proxy.gateway.app import App
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.redis.address import Target
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.loads import Lines
from bullmq_proxy.gateway.memory import Spikes
from bullmq_proxy.gateway.net.balance import Balance
from bullmq_proxy.gateway.shared_memory import ShardMemory
from bullmq_proxy.gateway.start_message import HANDOVER, StartMessage
from bullmq_proxy.gateway.tracing import extra
from bullmq_proxy.gateway.wire.closing import CloseCode

log = logging.getLogger(__name__)

_CHUNK: Final = 64 * 1024


def load(settings: Mapping[str, Any]) -> None:
    """Import what these settings need beside the gateway, before shards are forked that share it."""
    if settings.get("token_keys") is not None:
        load_library()
    if settings.get("tracing"):
        extra.load_library()


def run(
    start: StartMessage,
    listeners: Sequence[socket.socket],
    control: socket.socket,
    unread: bytes,
    memory: ShardMemory,
) -> int:
    """Run one shard until it has drained, and return the exit code.

    Args:
        start: settings, keys and place of the shard.
        listeners: all listening sockets.
        control: this end of the socket pair to the parent: lines of JSON; its end means that the parent has died.
        unread: what has been read from `control` after the start message.
        memory: where connections and calls of keys are counted, and figures shown.
    """
    shard = _Shard(start, listeners, control, unread, memory)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(shard.live())


class _Shard:
    """One App, and the messages between it and the parent."""

    def __init__(
        self,
        start: StartMessage,
        listeners: Sequence[socket.socket],
        control: socket.socket,
        unread: bytes,
        memory: ShardMemory,
    ) -> None:
        self._start = start
        self._settings = start.settings
        self._listeners = listeners
        self._control = control
        self._unread = unread
        self._memory = memory
        self._unsent = bytearray()  # messages that the parent has not taken yet
        self._leave: asyncio.Event
        self._told: asyncio.Event  # by SIGTERM
        self._app: App | None = None
        self._is_ready = False
        self._has_successor = False
        self._shares: list[int] = []  # listeners without a shard

    async def live(self) -> int:
        self._leave, self._told = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told_to_leave)
        self._control.setblocking(False)
        watch = asyncio.create_task(self._watch_parent(), name="parent")
        spikes = asyncio.create_task(Spikes().watch(), name="memory")
        try:
            assert self._settings.redis_url is not None
            where = Target.from_url(self._settings.redis_url, self._settings.redis_password_file)
            identity = Identity(self._start.gateway_id, self._start.slot, self._start.incarnation)
            start = self._start
            app = App(self._settings, where, identity, start.keys, self._memory, start.certificate)
            self._app = app
            if lines := Lines.of(self._start.lines):
                app.listener.balance_by(Balance(lines, self._start.slot))
            # Others serve at once and wait for Redis meanwhile.
            timeout = self._settings.redis_start_timeout if self._start.must_reach_redis else None
            starting = asyncio.create_task(app.start(self._listeners[self._start.listener], redis_timeout=timeout))
            if not await self._started(starting):
                return Exit.DONE
        except GatewayError as error:
            self._report(event="failed", message=f"{error}; the address is that of --redis-url, or REDIS_URL")
            return Exit.BAD_START
        except (OSError, ValueError) as error:
            self._report(event="failed", message=str(error))
            return Exit.BAD_START
        try:
            self._is_ready = True
            self._share()
            for remark in app.broker.remarks:
                self._report(event="remark", text=remark)
            self._report(event="ready")
            await self._leave.wait()
            self._report(event="leaving")
            for listener in self._listeners:
                if listener is not self._listeners[self._start.listener]:
                    listener.close()
            if self._has_successor:
                app.listener.stop_accepting()
                await self._hand_over(app)
            await app.drain(self._settings.drain_timeout, CloseCode.GOING_AWAY)
            return Exit.DONE
        finally:
            watch.cancel()
            spikes.cancel()

    async def _hand_over(self, app: App) -> None:
        """Serve on for a moment, and then send the clients to the successor a few at a time; SIGTERM cuts it short."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), HANDOVER)
        shedding, told = (
            asyncio.ensure_future(each) for each in (app.shed(self._settings.reload_spread), self._told.wait())
        )
        await asyncio.wait((shedding, told), return_when=asyncio.FIRST_COMPLETED)
        shedding.cancel()
        told.cancel()

    def _told_to_leave(self) -> None:
        """Drain on SIGTERM; on a second one do not wait for the clients."""
        if self._told.is_set() and self._app is not None:
            self._app.hurry()
        self._told.set()
        self._leave.set()

    async def _started(self, starting: asyncio.Task[None]) -> bool:
        """Wait for the start, and return whether it was finished: a SIGTERM cancels it."""
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

    def _report(self, **message: Any) -> None:
        """Send a message to the parent, as soon as it can take it."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self._send()

    def _send(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            del self._unsent[: self._control.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the parent has died: `_watch_parent` sees it, too
            self._unsent.clear()
        if self._unsent:
            loop.add_writer(self._control, self._send)
        else:
            loop.remove_writer(self._control)

    async def _watch_parent(self) -> None:
        """Carry out the parent's messages, one JSON object per line. The end of the socket is the parent's death."""
        loop = asyncio.get_running_loop()
        chunk, unread = self._unread, b""
        try:
            while True:
                *lines, unread = (unread + chunk).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
                if not (chunk := await loop.sock_recv(self._control, _CHUNK)):
                    break
            log.warning("the supervisor has ended: draining")
        except OSError:
            log.warning("the supervisor has ended: draining")
        except Exception:  # rather a successor with the new keys than a shard that goes on with old ones
            log.exception("cannot understand a message of the supervisor: draining")
        self._leave.set()

    def _share(self) -> None:
        """Accept on the sockets that have no shard, too."""
        if self._is_ready and self._app is not None and not self._leave.is_set():
            self._app.listener.serve_also({slot: self._listeners[slot] for slot in self._shares})

    def _obey(self, message: dict[str, Any]) -> None:
        match message:
            case {"event": "keys", "keys": [*keys]} if self._app is not None:
                try:
                    self._app.replace_keys(map(Key.from_json, keys))
                except TokenKeysError as error:
                    log.error("token_keys: %s; the keys that were read before stay in force", error)
            case {"event": "certificate", "certificate": dict(values)} if self._app is not None:
                self._app.use_certificate(Certificate.from_json(values))
            case {"event": "died", "slot": int(slot), "incarnation": int(incarnation)} if self._app is not None:
                self._app.broker.presence.bury(Identity(self._start.gateway_id, slot, incarnation))
            case {"event": "replaced"}:
                self._has_successor = True
                self._leave.set()
            case {"event": "ending"} if self._app is not None:
                self._app.unready()
            case {"event": "share", "slots": [*slots]}:
                self._shares = [int(slot) for slot in slots if slot != self._start.listener]
                self._share()
