"""The loop of the service: keeps the shards alive, and ends them.

It waits for signals, for the shards' messages and for the next due time; `fleet` decides, this acts.
"""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bullmq_proxy.gateway import logs
from bullmq_proxy.gateway.access.certificates import Certificate
from bullmq_proxy.gateway.access.keys_file import KeysError, KeysFile
from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.loads import Lines
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.settings import Settings, masked
from bullmq_proxy.gateway.shared_memory import SharedMemory
from bullmq_proxy.gateway.start_message import StartMessage
from bullmq_proxy.supervisor.activation import place_of
from bullmq_proxy.supervisor.embedded import STOP_TIMEOUT, EmbeddedValkey
from bullmq_proxy.supervisor.fleet import GRACE, Fleet, Outcome, Retire, Signal, Spawn
from bullmq_proxy.supervisor.notify import Notifier
from bullmq_proxy.supervisor.process import ShardProcess, start_shards
from bullmq_proxy.supervisor.reload import Reload
from bullmq_proxy.supervisor.resources import resident_memory
from bullmq_proxy.supervisor.signals import Inbox
from bullmq_proxy.supervisor.slot import describe
from bullmq_proxy.supervisor.slots import authority, reachable_host
from bullmq_proxy.supervisor.sources import UsageError
from bullmq_proxy.supervisor.successor import Predecessor, Successor, obstacle
from bullmq_proxy.supervisor.welcome import say, welcome

log = logging.getLogger(__name__)

_WEIGHING = 5.0  # s between two looks at the memory of the shards


class Master:
    """The loop. Holds everything that is open; all decisions are the fleet's."""

    def __init__(
        self,
        settings: Settings,
        listeners: list[socket.socket],
        inbox: Inbox,
        valkey: EmbeddedValkey | None,
        made_key: str | None,
        keys_file: KeysFile | None,
        certificate: Certificate | None,
        notifier: Notifier,
        reload: Reload | None,
        predecessor: Predecessor | None,
    ) -> None:
        self._predecessor = predecessor
        self._successor: Successor | None = None
        self._settings, self._certificate = settings, certificate
        self._proven = settings, certificate  # a shard has started with these
        self._reload = reload
        self._remarks: set[str] = set()  # of shards about Redis, that the log has
        self._is_reloading = False
        self._weigh_due = float("-inf")
        self._notifier = notifier
        self._place = place_of(listeners[0])
        self._is_unix = listeners[0].family == socket.AF_UNIX
        self._listeners = listeners
        self._inbox = inbox
        self._valkey = valkey
        self._made_key = made_key
        self._keys_file = keys_file
        self._memory = SharedMemory.create(len(listeners) + 1)  # the spare slot has a row, too
        # Sockets of the kernel's own choice are all that a single shard has.
        self._lines = Lines.create(len(listeners) + 1) if settings.balance == "exact" and len(listeners) > 1 else None
        self._announced = False
        self._shards: dict[int, ShardProcess] = {}
        # No process id: it comes again, in a container even in each run, and clients see this in their tokens.
        self._gateway_id = secrets.token_hex(8)
        self._fleet = Fleet(len(listeners), **_times(settings))
        self._selector = selectors.DefaultSelector()
        self._selector.register(inbox, selectors.EVENT_READ)

    def __enter__(self) -> Master:
        return self

    def __exit__(self, *_: object) -> None:
        # Only an error of our own leaves shards behind here; a closed control socket tells them to go.
        for shard in self._shards.values():
            shard.control.close()
        self._selector.close()
        os.close(self._memory.fd)
        if self._lines is not None:
            self._lines.close()

    def run(self) -> Outcome:
        """Fork, watch and restart shards until the service has ended."""
        settings = self._settings
        redis = "the embedded Valkey" if self._valkey else masked(settings.redis_url or "")
        place = self._place if self._is_unix else self._authority
        log.info("starting on %s, pid %d, shards: %d, redis: %s", place, os.getpid(), settings.procs, redis)
        self._hear_signals()  # that came before there was a shard
        while (outcome := self._fleet.outcome) is None:
            self._act()
            self._notify()
            for key, ready in self._selector.select(self._timeout()):
                if key.data is None:
                    self._hear_signals()
                    continue
                if isinstance(key.data, Successor):
                    self._hear_successor(key.data)
                    continue
                if ready & selectors.EVENT_WRITE:
                    self._flush(key.data)
                if ready & selectors.EVENT_READ:
                    self._hear(key.data)
        self._notify()  # where no shard had to leave first, nobody has said yet that this is the end
        return outcome

    @property
    def _authority(self) -> str:
        return authority(reachable_host(self._settings.host), self._settings.port)

    def _timeout(self) -> float | None:
        now = time.monotonic()
        weigh = None if self._settings.max_shard_memory is None else self._weigh_due
        valkey = self._valkey.tend(now) if self._valkey else None
        succeeds = None if self._successor is None else self._successor.due
        due = [self._fleet.next_due(), valkey, self._notifier.next_due(), weigh, succeeds]
        return min((max(0.0, at - now) for at in due if at is not None), default=None)

    def _act(self) -> None:
        now = time.monotonic()
        self._fleet.check_beats(self._memory.beats(), now)
        self._replace_used(now)
        if self._successor is not None and now >= self._successor.due:
            self._lose_successor(self._successor)
        actions = self._fleet.plan(now)
        if spawns := [action for action in actions if isinstance(action, Spawn)]:
            self._spawn(spawns)
        for action in actions:
            if isinstance(action, Retire):
                self._tell(self._shards[action.slot], {"event": "replaced"})
            elif isinstance(action, Signal):
                why = f"{action.reason}: " if action.reason else ""
                level = logging.WARNING if action.reason else logging.DEBUG
                log.log(level, "%s%s to pid %d", why, action.signum.name, action.pid)
                os.kill(action.pid, action.signum)  # still our child, even if dead: only _reap takes it away
                if action.signum == signal.SIGABRT:
                    os.kill(action.pid, signal.SIGCONT)  # a process that was stopped dies of it only then
        self._share(self._fleet.shared())
        if self._fleet.ending:
            # Once the shards have let go of theirs, too, clients are refused and can turn elsewhere at once.
            for listener in self._listeners:
                listener.close()

    def _replace_used(self, now: float) -> None:
        """Replace shards that are too old or too large."""
        said, limit = self._fleet.replace_old(now), self._settings.max_shard_memory
        if limit is not None and now >= self._weigh_due:
            self._weigh_due = now + _WEIGHING
            memory = {shard.slot: resident_memory(shard.pid) for shard in self._shards.values()}
            said += self._fleet.replace_heavy(memory, limit, now)
        for line in said:
            log.info("%s", line)

    def _share(self, slots: tuple[int, ...]) -> None:
        """Let all shards serve the sockets of these slots, which have none of their own, beside their own."""
        for shard in self._shards.values():
            if shard.shares != slots:
                shard.shares = slots
                self._tell(shard, {"event": "share", "slots": slots})

    def _notify(self) -> None:
        fleet, settings = self._fleet, self._settings
        place = self._place if self._is_unix else f"port {settings.port}"
        status = f"{fleet.serving} of {len(self._listeners)} shards serve on {place}"
        if self._is_reloading and not fleet.replacing:
            self._is_reloading = False
            self._notifier.reloaded()
        takes = settings.shutdown_delay + settings.drain_timeout + 2 * GRACE + (STOP_TIMEOUT if self._valkey else 0)
        self._notifier.report(
            time.monotonic(),
            status="draining" if fleet.ending else status,
            complete=fleet.all_ready,
            able=fleet.able,
            ending=takes if fleet.ending else None,
        )

    def _spawn(self, spawns: Sequence[Spawn]) -> None:
        now = time.monotonic()
        try:
            held = self._valkey.held if self._valkey else ()
            shards = start_shards([self._start_message(spawn) for spawn in spawns], held)
        except OSError as error:
            pause = max(self._fleet.not_started(spawn.slot, now) for spawn in spawns)
            log.error("cannot start %d shards: %s; trying again in %g s", len(spawns), error.strerror, pause)
            return
        for spawn, shard in zip(spawns, shards, strict=True):
            log.debug("shard %d starts with pid %d, incarnation %d", spawn.slot, shard.pid, spawn.incarnation)
            self._shards[spawn.slot] = shard
            self._selector.register(shard.control, selectors.EVENT_READ, shard)
            self._flush(shard)
            self._fleet.started(spawn.slot, shard.pid, now)

    def _start_message(self, spawn: Spawn) -> StartMessage:
        return StartMessage(
            settings=self._settings,
            slot=spawn.slot,
            listener=spawn.listener,
            incarnation=spawn.incarnation,
            must_reach_redis=spawn.must_reach_redis,
            gateway_id=self._gateway_id,
            keys=self._keys_file.keys if self._keys_file else (),
            certificate=self._certificate,
            listeners=tuple(listener.fileno() for listener in self._listeners),
            memory=self._memory.fd,
            lines=self._lines.descriptors if self._lines is not None else (),
        )

    def _hear_signals(self) -> None:
        signals = self._inbox.take()
        if signal.SIGCHLD in signals:
            self._reap()
        for signum in signals:
            if signum in self._inbox.stop:
                if self._successor is not None:
                    self._lose_successor(self._successor)
                if self._fleet.ending:
                    log.info("%s again: jobs in hand are given back now", signum.name)
                else:
                    limit = self._settings.drain_timeout
                    log.info("%s: draining, for up to %g s; a second one gives jobs back at once", signum.name, limit)
                    if self._settings.shutdown_delay:
                        log.info("the drain begins in %g s; until then /ready says 503", self._settings.shutdown_delay)
                        self._tell_all({"event": "ending"})
                self._fleet.stop(time.monotonic())
            elif signum == signal.SIGUSR1:
                log.warning("SIGUSR1: above are the supervisor's stacks, those of the shards follow")
                self._fleet.show_stacks(time.monotonic())
            elif signum == signal.SIGUSR2 and not self._fleet.ending:
                self._start_successor()
            elif signum == signal.SIGHUP and not self._fleet.ending:
                self._notifier.reloading()
                self._is_reloading = True
                self._read_again()

    def _start_successor(self) -> None:
        """Let a supervisor of the code that is installed now take over, if that can be done."""
        has_valkey, has_successor = self._valkey is not None, self._successor is not None
        reason = obstacle(self._shards.values(), has_valkey=has_valkey, has_successor=has_successor)
        if reason:
            log.error("SIGUSR2: %s", reason)
            return
        environment = {**os.environ, **self._notifier.environment}
        if self._made_key is not None:
            environment["AUTH_KEYS"] = self._made_key
        try:
            self._successor = Successor([listener.fileno() for listener in self._listeners], environment)
        except OSError as error:
            log.error("SIGUSR2: cannot start a successor: %s", error.strerror)
            return
        self._selector.register(self._successor, selectors.EVENT_READ, self._successor)
        log.info("SIGUSR2: a supervisor of the installed code starts with pid %d", self._successor.pid)

    def _hear_successor(self, successor: Successor) -> None:
        if not successor.serves():
            self._lose_successor(successor)
            return
        self._selector.unregister(successor)
        successor.close()
        self._successor = None
        log.info("pid %d serves: the shards of this supervisor drain", successor.pid)
        self._notifier.hand_over(successor.pid)
        self._fleet.hand_over(time.monotonic())

    def _lose_successor(self, successor: Successor) -> None:
        self._selector.unregister(successor)
        self._successor = None
        successor.give_up()
        log.error("pid %d does not serve, all stays as it was; its own lines say why", successor.pid)

    def _read_again(self) -> None:
        """Put in force what is configured now: keys and certificate at once, all else in fresh shards, or nothing."""
        before = self._keys_file.keys if self._keys_file else ()
        if self._keys_file is not None and not self._reload_keys(self._keys_file):
            return
        are_other_keys = self._keys_file is not None and self._keys_file.keys != before
        try:
            found = self._reload.find(self._settings, self._keys_file) if self._reload else None
        except (UsageError, OSError) as error:
            LogEvent.RELOAD_REFUSED.log(reason=str(error))
            return
        if found is not None:
            for name in found.ignored:
                log.warning("SIGHUP: %s counts from a restart on", name)
            for remark in found.remarks:
                log.warning("%s", remark)
            is_renewed = found.certificate != self._certificate
            self._use(found.settings, found.certificate)
            if found.changed:
                log.info("SIGHUP: changed: %s", ", ".join(found.changed))
            elif is_renewed and found.certificate:
                log.info("SIGHUP: the certificate is another one")
                self._proven = self._proven[0], found.certificate
                self._tell_all({"event": "certificate", "certificate": found.certificate.to_json()})
                return
        if are_other_keys and (found is None or not found.changed):
            return
        LogEvent.RELOAD.log()
        self._remarks.clear()
        self._fleet.replace()

    def _use(self, settings: Settings, certificate: Certificate | None) -> None:
        """Put settings in force: shards that are started from now on have them."""
        self._settings, self._certificate = settings, certificate
        logs.configure(settings.log_level, settings.log_format)
        self._fleet.take_times(**_times(settings))

    def _reload_keys(self, keys_file: KeysFile) -> bool:
        """Read the keys again and hand them on; return whether they can be used."""
        try:
            keys_file.read()
        except KeysError as error:
            log.error("keys_file: %s; the keys that were read before stay in force", error)
            return False
        except Exception:  # a file is somebody else's text: whatever it does to us, the gateway goes on
            log.exception("keys_file: %s; the keys that were read before stay in force", keys_file.path)
            return False
        for remark in keys_file.remarks:
            log.warning("keys_file: %s", remark)
        if not keys_file.keys and not self._settings.auth_keys:
            log.warning("keys_file: %s holds no key: nobody can connect", keys_file.path)
        LogEvent.KEYS_READ.log(keys=len(keys_file.keys))
        self._tell_all({"event": "keys", "keys": [key.to_json() for key in keys_file.keys]})
        return True

    def _tell_all(self, message: Mapping[str, Any]) -> None:
        for shard in self._shards.values():
            self._tell(shard, message)

    def _tell(self, shard: ShardProcess, message: Mapping[str, Any]) -> None:
        shard.send(message)
        self._flush(shard)

    def _flush(self, shard: ShardProcess) -> None:
        """Send what a shard has still to get, now or when its socket can take more."""
        shard.flush()
        if shard.control.fileno() < 0:  # it is dead, and forgotten
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if shard.has_unsent else 0)
        self._selector.modify(shard.control, wanted, shard)

    def _hear(self, shard: ShardProcess) -> None:
        messages, open_still = shard.messages()
        for message in messages:
            match message:
                case {"event": "process", "pid": int(pid)}:
                    shard.pid = pid
                    self._fleet.forked(shard.slot, pid, time.monotonic())
                case {"event": "remark", "text": str(text)}:
                    self._say_once(text)
                case {"event": "ready"}:
                    self._fleet.ready(shard.slot, time.monotonic())
                    if self._reload and shard.settings is self._settings is not self._proven[0]:
                        self._proven = self._settings, self._certificate
                        self._reload.prove()
                    LogEvent.SHARD_READY.log(shard=shard.slot, process=shard.pid)
                    self._announce()
                case {"event": "leaving"}:
                    self._fleet.leaving(shard.slot, time.monotonic())
                case {"event": "failed", "message": str(reason)}:
                    self._fleet.failed(shard.slot, reason)
        if not open_still:
            self._forget(shard)

    def _say_once(self, remark: str) -> None:
        """Log what a shard has to say of Redis, unless another one has said it since the start or the last reload."""
        if remark not in self._remarks:
            self._remarks.add(remark)
            log.warning("%s", remark)

    def _forget(self, shard: ShardProcess) -> None:
        if shard.control.fileno() >= 0:
            self._selector.unregister(shard.control)
            shard.control.close()

    def _reap(self) -> None:
        """Take away the shards that have ended. Never waitpid(-1): it would steal the Valkey from its Popen."""
        for pid in {shard.pid for shard in self._shards.values()}:
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # the process that has forked it still lives: we are its parent in a moment
                continue
            if not ended:
                continue
            # Several shards have one process until they are forked from it, as their last messages may say.
            for shard in [shard for shard in self._shards.values() if shard.pid == pid]:
                self._hear(shard)
                if shard.pid == pid:
                    self._bury(shard, os.waitstatus_to_exitcode(status))

    def _bury(self, shard: ShardProcess, code: int) -> None:
        self._forget(shard)
        del self._shards[shard.slot]
        self._memory.clear(shard.slot)
        slot = self._fleet.slots[shard.slot]
        if self._lines is not None:
            self._lines.forget(shard.slot, closes=slot.listener is None)
        # Whichever is the quickest gives its jobs back.
        self._tell_all({"event": "died", "slot": shard.slot, "incarnation": slot.incarnation})
        expected, succeeds = self._fleet.ending or slot.listener is None, slot.replaces is not None
        pause = self._fleet.exited(shard.slot, code, time.monotonic())
        if code != Exit.BAD_START:  # of which the last line of the service says why
            event = LogEvent.SHARD_ENDED if expected and code == Exit.DONE else LogEvent.SHARD_LOST
            how = slot.message if code == Exit.INCOMPATIBLE else describe(code)
            again = "" if pause is None else f"; starting it again in {pause:g} s"
            event.log(shard=shard.slot, process=shard.pid, how=f"{how}{again}")
        if succeeds and not self._fleet.ending:
            log.error("the reload is given up, the shards that serve go on: %s", slot.message or describe(code))
            if self._reload and self._settings != self._proven[0]:
                log.warning("no shard has started with the settings that were changed: those of before are in force")
                self._use(*self._proven)
                self._reload.undo()

    def _announce(self) -> None:
        """Tell the user where to connect, once, when every shard serves."""
        if self._announced or not self._fleet.all_ready:
            return
        self._announced = True
        if self._predecessor is not None:
            self._predecessor.dismiss()
        host = None if self._is_unix else self._authority
        say(welcome(self._settings, self._place, host, self._made_key))


def _times(settings: Settings) -> dict[str, float]:
    """Return the times of the fleet in seconds."""
    return {
        "start_timeout": settings.redis_start_timeout + 20,
        "drain_timeout": settings.drain_timeout + settings.reload_spread,
        "shard_timeout": settings.shard_timeout,
        "shutdown_delay": settings.shutdown_delay,
        "max_shard_age": settings.max_shard_age,
    }
