"""The tables in the pages: each is made from the code, and stands between two comments that name it.

A page has `<!-- generated: settings -->`, the table, and `<!-- end -->`; `make docs` writes what is between them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import Final

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.conformance.rules import Rule
from bullmq_proxy.gateway.errors import ErrorCode
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.metrics_table import METRICS
from bullmq_proxy.gateway.queue_metrics import QUEUE_METRICS
from bullmq_proxy.gateway.rules.effects import OF_JOBS, Acting
from bullmq_proxy.gateway.schema import events_messages
from bullmq_proxy.gateway.schema.connections import options_of
from bullmq_proxy.gateway.schema.json_schema import Schemas
from bullmq_proxy.gateway.schema.messages import Message
from bullmq_proxy.gateway.schema.tables import apis
from bullmq_proxy.gateway.schema.words import code, in_words
from bullmq_proxy.gateway.settings import Option, Settings, options
from bullmq_proxy.gateway.wire.closing import CloseCode, Refusal
from bullmq_proxy.gateway.wire.connection_options import WORKER_OPTIONS
from bullmq_proxy.gateway.wire.endpoint_rows import shown
from bullmq_proxy.gateway.wire.endpoints import CallEndpoint, PageEndpoint, SessionEndpoint
from bullmq_proxy.gateway.wire.events import EVENTS
from bullmq_proxy.gateway.wire.guest_endpoints import AncestorEndpoint, WorkersEndpoint

_BLOCK: Final = re.compile(r"(<!-- generated: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str) -> str:
    """Return a page with every generated table as the code has it now.

    Raises:
        ValueError: the page asks for a table that does not exist.
    """
    return _BLOCK.sub(lambda block: f"{block[1]}{_table(block[2])}{block[3]}", page)


def names(page: str) -> list[str]:
    """Return the names of the generated tables in a page."""
    return [block[2] for block in _BLOCK.finditer(page)]


def _table(name: str) -> str:
    if name not in TABLES:
        raise ValueError(f"There is no generated table `{name}`; known are {', '.join(TABLES)}")
    heads, rows = TABLES[name]
    lines = [heads, ["---"] * len(heads), *rows()]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _settings() -> Iterable[list[str]]:
    for option in options():
        names = ", ".join(map(code, option.environment))
        repeat = " The flag can be repeated." if option.shape == "repeat" else ""
        yield [code(option.name), code(option.flag), names, _default(option), option.help + repeat, _values(option)]


def _default(option: Option) -> str:
    if option.by_default:
        return option.by_default
    value = Settings.__dataclass_fields__[option.name].default
    return "none" if value in (None, ()) else code(option.show(value).strip('"'))


def _values(option: Option) -> str:
    """Return the values that an option takes, without the examples of how to write them."""
    return re.split(r",? such as| \(", option.value_type.wanted)[0]


def _errors() -> Iterable[list[str]]:
    return ([code(each.value), str(each.http_status.value), each.meaning] for each in ErrorCode)


def _close_codes() -> Iterable[list[str]]:
    return ([str(each.value), each.meaning] for each in CloseCode)


def _log_events() -> Iterable[list[str]]:
    for event in LogEvent:
        fields = ", ".join(map(code, event.fields)) or "none"
        sampled = "yes" if event.sampled else "no"
        yield [code(event.value), logging.getLevelName(event.level).lower(), fields, sampled, event.meaning]


def _refusals() -> Iterable[list[str]]:
    for each in Refusal:
        then = "stops" if each.stops else "connects later"
        yield [str(each.value), str(each.status.value), code(each.error.value), then, each.meaning]


def _metrics() -> Iterable[list[str]]:
    for metric in METRICS:
        label = code(metric.label) if metric.label else ", ".join(map(code, re.findall(r"(\w+)=", metric.values[0])))
        yield [code(f"bullmq_proxy_{metric.name}"), metric.kind, label, metric.help]


def _queue_metrics() -> Iterable[list[str]]:
    return ([code(name), meaning] for name, meaning in QUEUE_METRICS.items())


def _permissions() -> Iterable[list[str]]:
    for permission in Permission:
        functions = (each for api in apis() for each in api.table if each.permission is permission)
        names = ", ".join(dict.fromkeys(code(each.name) for each in functions))
        yield [code(permission.value), names or "none: see [options](#options-that-act-on-the-jobs-of-others)"]


def _acting_options() -> Iterable[list[str]]:
    for name, acting in OF_JOBS.items():
        yield _acting_option("[job](protocol.md#job-options)", name, acting)
    for option in WORKER_OPTIONS.known:
        if option.acting is not None:
            yield _acting_option("[Worker connection](protocol.md#worker-options)", option.name, option.acting)


def _acting_option(of: str, name: str, acting: Acting) -> list[str]:
    permissions = " or ".join(code(each.value) for each in Permission if each in acting.permissions)
    return [code(name), of, acting.values, acting.does, permissions]


def _events() -> Iterable[list[str]]:
    known = {message.name: message for message in events_messages.messages()}
    for message in map(known.__getitem__, sorted(EVENTS)):
        yield [code(message.name), _fields(message), message.about]


def _fields(message: Message) -> str:
    """Return the names of an event's fields, with `?` behind those that may be missing."""
    fields = message.data["properties"]["args"]["items"][0]
    required = fields.get("required", ())
    return ", ".join(code(name if name in required else f"{name}?") for name in fields.get("properties", ()))


def _connections() -> Iterable[list[str]]:
    for endpoint in SessionEndpoint:
        row = endpoint.value
        needed = (
            "any" if row.permissions == frozenset(Permission) else ", ".join(map(code, sorted(row.permissions or ())))
        )
        others = ", ".join(code(shown(path)) for path in row.paths[1:])
        yield [f"[{row.title}](#{row.title.lower().replace(' ', '-')})", code(shown(row.path)), others, needed]


def _pages() -> Iterable[list[str]]:
    return ([code(page.value.path), page.value.description] for page in PageEndpoint)


def _calls() -> Iterable[list[str]]:
    for endpoint in CallEndpoint:
        row = endpoint.value
        yield [code(shown(row.path)), ", ".join(row.methods), row.description]


def _ancestor() -> Iterable[list[str]]:
    for endpoint in AncestorEndpoint:
        row = endpoint.value
        key = "the token of the job's lock" if endpoint.is_for_holders else ", ".join(map(code, row.permissions or ()))
        yield [f"`{row.methods[0]} {shown(row.path)}`", key, row.description]


def _workers() -> Iterable[list[str]]:
    for endpoint in WorkersEndpoint:
        row = endpoint.value
        form = "the ancestor's, or ours" if endpoint.has_ancestor else "ours"
        yield [f"`{row.methods[0]} {shown(row.path)}`", form, row.description]


def _rules() -> Iterable[list[str]]:
    return ([code(rule.value), rule.right, f"[{rule.where}](../{rule.where})"] for rule in Rule)


def _query(endpoint: SessionEndpoint) -> Callable[[], Iterable[list[str]]]:
    def rows() -> Iterable[list[str]]:
        for name, schema in options_of(endpoint, Schemas()).items():
            default = code(schema["default"]) if "default" in schema else "none"
            yield [code(name), in_words(schema, lambda _: "object"), default, schema.get("description", "")]

    return rows


TABLES: Final[dict[str, tuple[list[str], Callable[[], Iterable[list[str]]]]]] = {
    "settings": (["name", "flag", "environment", "default", "meaning", "values"], _settings),
    "connections": (["API", "path", "the same for older clients", "permission"], _connections),
    "pages": (["path", "answer"], _pages),
    "calls": (["path", "methods", "what"], _calls),
    "ancestor": (["route", "key", "what"], _ancestor),
    "workers": (["request", "form of the answer", "what"], _workers),
    "error codes": (["code", "status", "meaning"], _errors),
    "close codes": (["code", "meaning"], _close_codes),
    "refusals": (["code", "stands for", "error", "the client", "why"], _refusals),
    "log events": (["event", "level", "fields", "sampled", "when"], _log_events),
    "metrics": (["metric", "type", "label", "meaning"], _metrics),
    "queue metrics": (["metric", "meaning"], _queue_metrics),
    "permissions": (["permission", "functions"], _permissions),
    "acting options": (["option", "of a", "values", "what it does", "permission"], _acting_options),
    "events": (["event", "fields", "meaning"], _events),
    "rules": (["rule", "what is right", "written in"], _rules),
    "worker options": (["option", "value", "default", "meaning"], _query(SessionEndpoint.WORKER)),
    "events options": (["option", "value", "default", "meaning"], _query(SessionEndpoint.EVENTS)),
}
"""The heads of each table, and the function that makes its rows."""
