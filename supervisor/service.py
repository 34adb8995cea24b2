"""The service: complete settings in, an exit code out. It opens the port, starts what is needed, and runs the loop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bullmq_proxy.gateway.access.certificates import Certificate
from bullmq_proxy.gateway.access.keys_file import KeysFile
from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.supervisor.activation import one_per_slot
from bullmq_proxy.supervisor.embedded import EmbeddedValkey
from bullmq_proxy.supervisor.fleet import GRACE
from bullmq_proxy.supervisor.master import Master
from bullmq_proxy.supervisor.notify import Notifier
from bullmq_proxy.supervisor.pid_file import PidFile
from bullmq_proxy.supervisor.process import occupy_standard_streams
from bullmq_proxy.supervisor.reload import Reload
from bullmq_proxy.supervisor.resources import raise_descriptor_limit
from bullmq_proxy.supervisor.signals import STOP, Inbox, hangup_ends
from bullmq_proxy.supervisor.slots import StartError, open_slots
from bullmq_proxy.supervisor.successor import Predecessor


def serve(
    settings: Settings,
    made_key: str | None,
    keys_file: KeysFile | None = None,
    certificate: Certificate | None = None,
    handed: Sequence[socket.socket] = (),
    notifier: Notifier | None = None,
    reload: Reload | None = None,
    predecessor: Predecessor | None = None,
) -> Exit:
    """Run the service until it is told to stop.

    Args:
        settings: with the keys in force; port 0 and no Redis URL are filled in here.
        made_key: the key that was made for this run, to be shown once.
        keys_file: keys with permissions, read once; SIGHUP reads them again.
        certificate: of the port, read once; SIGHUP reads it again; None for no TLS.
        handed: sockets that listen already, one for all shards or one for each; closed in the end.
        notifier: is told how the service is.
        reload: reads the settings again on SIGHUP; None where they cannot change.
        predecessor: has handed over the sockets, and leaves when all shards serve.

    Raises StartError when the service cannot start or go on.
    """
    occupy_standard_streams()
    raise_descriptor_limit()
    with ExitStack() as stack:
        notifier = notifier or Notifier()
        ends = hangup_ends(reloads=any((keys_file, settings.token_keys, certificate, settings.pid_file)))
        inbox = stack.enter_context(Inbox(STOP if ends else STOP - {signal.SIGHUP}))
        if handed:
            listeners = one_per_slot(handed, settings.procs)
        else:
            listeners = open_slots(settings.host, settings.port, settings.procs)
            settings = replace(settings, port=listeners[0].getsockname()[1])
        for listener in listeners:
            stack.enter_context(listener)
        if settings.pid_file is not None:
            stack.enter_context(PidFile(settings.pid_file))
        valkey = None
        if settings.redis_url is None:
            assert settings.data_dir is not None, "the command line always fills in a data directory"
            server = None if settings.valkey_server is None else Path(settings.valkey_server)
            valkey = EmbeddedValkey(Path(settings.data_dir), server, patience=settings.drain_timeout + GRACE)
            stack.enter_context(valkey)
            notifier.say("the embedded Valkey starts")
            if not valkey.start(inbox):
                return Exit.DONE
            settings = replace(settings, redis_url=valkey.url)
        known = (made_key, keys_file, certificate)
        master = stack.enter_context(Master(settings, listeners, inbox, valkey, *known, notifier, reload, predecessor))
        outcome = master.run()
    if outcome.reason:
        raise StartError(outcome.reason)
    return outcome.code
