"""An option of `Settings` in, its click option out: flag, help, environment names and default.

Values stay text here: `sources.resolve` checks them, so that a bad flag and a bad variable get one answer.
"""

from __future__ import annotations

from functools import cache

import click

from bullmq_proxy.gateway.settings import Option, Settings, options
from bullmq_proxy.supervisor.sources import CONFIG_VARIABLE


@cache
def _all() -> tuple[click.Parameter, ...]:
    config = click.Option(
        ["--config"],
        metavar="FILE",
        envvar=CONFIG_VARIABLE,
        help=f"TOML file whose keys are the long names with underscores.  [env: {CONFIG_VARIABLE}]",
    )
    return config, *map(_click_option, options())


def settings_options() -> list[click.Parameter]:
    """Return the parameters of a command: --config, and one flag per setting."""
    return [*_all()]


def _click_option(option: Option) -> click.Option:
    names = [option.flag, option.name]
    if option.shape == "switch":
        return click.Option(names, is_flag=True, default=None, help=_help(option))
    return click.Option(names, multiple=option.shape == "repeat", metavar=option.value_type.metavar, help=_help(option))


def _help(option: Option) -> str:
    repeat = " May be repeated." if option.shape == "repeat" else ""
    names = ", ".join((*option.also, option.environment[0]))
    return f"{option.help}{repeat}  [env: {names}; default: {_default(option)}]"


def _default(option: Option) -> str:
    if option.by_default:
        return option.by_default
    value = Settings.__dataclass_fields__[option.name].default
    return "none" if value is None else option.show(value).strip('"')
