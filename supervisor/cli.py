"""The command line: `serve`, `config`, `key`, `schema`, `check-client`, and those for daily work.

Every expected failure is one line on stderr.

0 done, 1 the service could not start or go on, or a client breaks a rule, 2 a flag, variable or file cannot be used.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from bullmq_proxy.gateway import __version__, logs
from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.gateway.settings import options
from bullmq_proxy.gateway.tracing.extra import TracingError, require_library
from bullmq_proxy.supervisor import keys
from bullmq_proxy.supervisor.activation import adopt, handed_sockets
from bullmq_proxy.supervisor.notify import Notifier
from bullmq_proxy.supervisor.options import settings_options
from bullmq_proxy.supervisor.pid_file import hang_up
from bullmq_proxy.supervisor.reload import Reload
from bullmq_proxy.supervisor.service import serve as run_service
from bullmq_proxy.supervisor.slots import StartError
from bullmq_proxy.supervisor.sources import Resolution, UsageError, load, resolve
from bullmq_proxy.supervisor.successor import Predecessor

log = logging.getLogger(__name__)

PROGRAM = "bullmq-proxy"


class _Commands(click.Group):
    """The commands of this file; those of others are imported when one is asked for that is not here.

    They carry HTTP, which takes a tenth of the time in which the service starts.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None where there is none of that name."""
        if cmd_name not in self.commands:
            self._add_others()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        self._add_others()
        return super().list_commands(ctx)

    def _add_others(self) -> None:
        from bullmq_proxy.supervisor import daily, key_commands, status  # noqa: PLC0415 - see above

        for command in (key_commands.key, *daily.COMMANDS, status.status, status.top):
            self.add_command(command)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def commands() -> None:
    """BullMQ queues for every language that has WebSockets.

    Each setting is a flag, an environment variable or a key in a TOML file; a flag beats the environment, the
    environment beats the file.
    """


@commands.command(params=settings_options())
def serve(config: str | None, **flags: Any) -> int:
    """Serve queues until SIGTERM or Ctrl-C."""
    handed, predecessor = handed_sockets(os.environ), Predecessor.from_environment(os.environ)
    giver = "systemd" if predecessor is None else "the supervisor before this one"
    resolution = adopt(_resolved(config, flags), handed, giver)
    reload = Reload(lambda: keys.with_auth_keys_file(adopt(_resolved(config, flags), handed, giver)))
    settings = keys.with_auth_keys_file(resolution)
    keys_file = keys.open_keys_file(settings)
    certificate, remarks = keys.open_certificate(settings)
    settings, made_key = keys.require_keys(settings, keys_file)
    logs.configure(settings.log_level, settings.log_format)
    for remark in (*resolution.remarks, *(keys_file.remarks if keys_file else ()), *remarks):
        log.warning("%s", remark)
    notifier = Notifier.from_environment(os.environ)
    return run_service(settings, made_key, keys_file, certificate, handed, notifier, reload, predecessor)


@commands.command(params=settings_options())
def config(config: str | None, **flags: Any) -> int:
    """Print the settings in force and where each comes from."""
    resolution = _checked(config, flags)
    for line in described(resolution):
        click.echo(line)
    return Exit.DONE


@commands.command(params=settings_options())
def reload(config: str | None, **flags: Any) -> int:
    """Check the settings, and let the service that `pid_file` names put them in force."""
    resolution = _checked(config, flags)
    if resolution.settings.pid_file is None:
        raise UsageError("pid_file: not set, so nobody knows which service; start it with --pid-file, too")
    pid = hang_up(resolution.settings.pid_file)
    click.echo(f"pid {pid} reads its settings again; its log says what has changed", err=True)
    return Exit.DONE


@commands.command(params=settings_options())
def doctor(config: str | None, **flags: Any) -> int:
    """Look at what a service with these settings needs: keys, port, limits, Redis."""
    from bullmq_proxy.supervisor.doctor import report  # noqa: PLC0415 - it carries HTTP

    return Exit.DONE if report(_resolved(config, flags), click.echo) else Exit.FAILED


@commands.command()
@click.option("--json", "form", flag_value="json", help="As JSON instead of YAML.")
@click.option("--openapi", "form", flag_value="openapi", help="The OpenAPI document of the HTTP side instead.")
@click.option("--functions", "form", flag_value="functions", help="The page that describes every function instead.")
def schema(form: str | None) -> int:
    """Print the AsyncAPI document of the gateway's APIs."""
    from bullmq_proxy.gateway import schema as documents  # noqa: PLC0415 - it carries msgspec and redis, which the service must not

    if form == "functions":
        text = documents.functions_markdown()
    elif form == "openapi":
        text = documents.openapi_yaml()
    elif form == "json":
        text = json.dumps(documents.asyncapi_document(), ensure_ascii=False, indent=2) + "\n"
    else:
        text = documents.asyncapi_yaml()
    click.echo(text, nl=False)
    return Exit.DONE


@commands.command("check-client", context_settings={"allow_interspersed_args": False})
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(["worker", "producer", "watcher"]),
    help="Judge this role alone; can be repeated.",
)
@click.option("--rule", "rules", multiple=True, metavar="ID", help="Judge this rule alone; can be repeated.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=5.0, help="Seconds for each step, 5 by default.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def check_client(
    roles: tuple[str, ...], rules: tuple[str, ...], timeout: float, as_json: bool, command: tuple[str, ...]
) -> int:
    """Judge a client by the rules of docs/clients/rules.md.

    COMMAND starts the client; a gateway that misbehaves by a script tells it by environment variables where to connect:
    bullmq-proxy check-client -- ruby worker.rb
    """
    from bullmq_proxy.gateway.conformance import command as conformance  # noqa: PLC0415 - it carries asyncio and websockets

    try:
        text, is_good = conformance.run(command, roles, rules, as_json, timeout)
    except conformance.UnknownRule as error:
        raise UsageError(str(error)) from error
    except conformance.CannotStart as error:
        raise StartError(str(error)) from error
    click.echo(text)
    return Exit.DONE if is_good else Exit.FAILED


def described(resolution: Resolution) -> list[str]:
    """Return the settings as a configuration file, with the place of each value in a comment; secrets are masked."""
    rows = []
    for option in options():
        value = getattr(resolution.settings, option.name)
        shown = f"{option.name} = {option.show(value)}"
        # TOML has no word for "not set": such a line is a comment as a whole.
        rows.append((f"# {shown}" if value is None else shown, resolution.places[option.name].words))
    width = max(len(shown) for shown, _ in rows if len(shown) <= 60)
    return [f"{shown:<{width}}  # {words}" for shown, words in rows]


def _checked(path: str | None, flags: dict[str, Any]) -> Resolution:
    """Return the settings once all that they name could be read: keys, those of tokens, the certificate."""
    resolution = _resolved(path, flags)
    keys.open_keys_file(keys.with_auth_keys_file(resolution))
    keys.check_tokens(resolution.settings, whole=True)
    keys.open_certificate(resolution.settings)
    return resolution


def _resolved(path: str | None, flags: dict[str, Any]) -> Resolution:
    resolution = resolve(flags, os.environ, load(path) if path else None)
    if resolution.settings.tracing:
        try:
            require_library(os.environ)
        except TracingError as error:
            raise UsageError(f"tracing: {error}") from None
    return resolution


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        code: int = commands.main(arguments, prog_name=PROGRAM, standalone_mode=False) or Exit.DONE
    except click.exceptions.NoArgsIsHelpError as help_page:
        click.echo(help_page.format_message(), err=True)
        return Exit.USAGE
    except (UsageError, click.ClickException) as error:
        return _fail(error.format_message() if isinstance(error, click.ClickException) else str(error), Exit.USAGE)
    except StartError as error:
        return _fail(str(error), Exit.FAILED)
    except (
        OSError
    ) as error:  # a full disk, too few descriptors, a file that is somebody else's: nothing of ours is wrong
        place = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        return _fail(f"{error.strerror or error}{place}", Exit.FAILED)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", Exit.FAILED)
    return int(code)


def _fail(message: str, code: Exit) -> int:
    one_line = " ".join(message.split())
    print(f"{PROGRAM}: error: {one_line}", file=sys.stderr)
    return int(code)
