"""The page that describes every function: an index first, then each one with its arguments and result."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from bullmq_proxy.gateway.broker.functions.table import Function, Parameter
from bullmq_proxy.gateway.schema.docstrings import Doc, parse
from bullmq_proxy.gateway.schema.json_schema import Schema, Schemas, plain
from bullmq_proxy.gateway.schema.tables import Api, Group, groups
from bullmq_proxy.gateway.schema.words import compact, in_words

_ROOT: Final = "#/"
_LEAST_BASE: Final = 5  # members of a type that others are described by
_HEAD: Final = """\
# Functions

Every function that can be called, with its arguments and its result. How a call and its reply travel is in
[the protocol](protocol.md#queue-api); the same in a form for programs is in [asyncapi.yaml](asyncapi.yaml).

This page is made from the code by `make docs`; `bullmq-proxy schema --functions` prints it.

* Arguments are given in this order, as the list `args`. Those with `?` may be left out; `...` stands for any number.
* **Needs** is the permission that the key must have; some options need
  [one more](keys.md#options-that-act-on-the-jobs-of-others). Whoever holds a job that was taken by hand shows it by its
  `token`; with `manage` the token does not matter.
* **Writes** says whether the function changes anything: when the link to Redis breaks before the reply, a function
  that writes fails with `OUTCOME_UNKNOWN`, any other one with `REDIS_UNAVAILABLE`.
* Times are in milliseconds where nothing else is said. Where positions count, `0` is the first and `-1` the last.
* The examples are calls as they stand, for a queue that has such jobs.
* `null` as a result means that there is nothing to say. What each error code means is in
  [the protocol](protocol.md#error-codes), and more about job options [there, too](protocol.md#job-options).
"""


def page(apis: Sequence[Api]) -> str:
    """Return the page as Markdown.

    Args:
        apis: whose functions it describes.
    """
    return _Page(apis).text()


class _Page:
    def __init__(self, apis: Sequence[Api]) -> None:
        self._apis = apis
        self._schemas = Schemas(_ROOT)
        self._arguments: dict[tuple[str, str], list[Schema]] = {}
        self._results: dict[tuple[str, str], Schema] = {}
        for api in apis:
            for function in api.table:
                key = (api.name, function.name)
                self._arguments[key] = [self._schemas.of(parameter.type) for parameter in function.parameters]
                self._results[key] = self._schemas.of(function.result)
        self._sections = self._worth_a_section()
        self._heads = _headings(apis)

    def text(self) -> str:
        """Return the whole page."""
        return "\n".join([_HEAD, *self._index(), *self._details(), *self._types()]).rstrip() + "\n"

    # The index

    def _index(self) -> Iterator[str]:
        for api in self._apis:
            if len(self._apis) > 1:
                yield f"On {_article(api.title)} connection, `{api.path.replace('{queue}', 'NAME')}`:\n"
            for group in groups(api.table):
                yield f"**[{group.title}](#{_anchor(group.title)})**\n"
                yield "| function | | needs | writes |"
                yield "|---|---|---|---|"
                for function in group.functions:
                    summary = _cell(_escaped(parse(function.doc).summary))
                    yield (
                        f"| [`{function.signature}`](#{_anchor(self._heads[api.name, function.name])}) | {summary}"
                        f" | {function.needs} | {'yes' if function.writes else 'no'} |"
                    )
                yield ""

    # The details

    def _details(self) -> Iterator[str]:
        for api in self._apis:
            for group in groups(api.table):
                yield from self._group(api, group)

    def _group(self, api: Api, group: Group) -> Iterator[str]:
        yield f"## {group.title}\n"
        if group.about:
            yield f"{_escaped(group.about)}\n"
        for function in group.functions:
            yield f"### {self._heads[api.name, function.name]}\n"
            yield from self._function(api, function)

    def _function(self, api: Api, function: Function) -> Iterator[str]:
        doc = parse(function.doc)
        notes = [f"needs {function.needs}", "writes" if function.writes else "reads only"]
        if function.waits:
            notes.append("may wait long, and ends with the connection")
        yield f"`{function.signature}` · {' · '.join(notes)}\n"
        if doc.paragraphs:
            yield f"{_escaped(doc.text)}\n"
        schemas = self._arguments[api.name, function.name]
        lines = [
            line
            for parameter, schema in zip(function.parameters, schemas, strict=True)
            for line in self._argument(parameter, schema, doc, variadic=function.variadic)
        ]
        if lines:
            yield "Arguments:\n"
            yield from lines
            yield ""
        yield from self._result(self._results[api.name, function.name], doc)
        call = {"id": 1, "data": {"fn": function.name, "args": function.example}}
        yield f"Example:\n\n```json\n{json.dumps(call, ensure_ascii=False)}\n```\n"
        if doc.raises:
            yield "Errors:\n"
            yield from (f"* `{name}`: {_escaped(text)}" for name, text in doc.raises.items())
            yield ""

    def _argument(self, parameter: Parameter, schema: Schema, doc: Doc, *, variadic: bool) -> Iterator[str]:
        default = None if parameter.required or variadic else plain(parameter.default)
        words = self._in_words(schema)
        if variadic:
            words = f"any number of arguments, each {words}"
        name = parameter.name if parameter.required or variadic else f"{parameter.name}?"
        yield self._bullet(name, words, default=default, about=doc.named.get(parameter.name, ""))
        yield from self._options(schema, "  ")

    def _result(self, schema: Schema, doc: Doc) -> Iterator[str]:
        about = f"; {_escaped(doc.returns)}" if doc.returns else ""
        yield f"Result: {self._in_words(schema)}{about}\n"
        if members := list(self._options(schema, "")):
            yield from members
            yield ""

    def _options(self, schema: Schema, indent: str) -> Iterator[str]:
        """Return the members of the object types within, as a list, for those that have no section of their own."""
        for name in dict.fromkeys(self._references(schema)):
            if name not in self._sections:
                yield from self._members(self._schemas.components[name], indent)

    def _members(self, schema: Schema, indent: str) -> Iterator[str]:
        required = schema.get("required", ())
        for name, member in schema.get("properties", {}).items():
            yield indent + self._bullet(
                name if name in required else f"{name}?",
                self._in_words(member),
                default=member.get("default"),
                about=member.get("description", ""),
            )
            yield from self._options(member, indent + "  ")

    def _bullet(self, name: str, words: str, *, default: Any = None, about: str = "") -> str:
        text = f"* `{name}`: {words}"
        if default is not None:
            text += f", `{compact(default)}` by default"
        return text + (f"; {_escaped(about)}" if about else "")

    # Types

    def _types(self) -> Iterator[str]:
        if not self._sections:
            return
        yield "## Types\n"
        yield "Members with `?` may be missing.\n"
        for name in self._sections:
            schema = self._schemas.components[name]
            yield f"### {name}\n"
            if "description" in schema:
                yield f"{_escaped(schema['description'])}\n"
            if (base := self._base(name)) is not None:
                yield f"All that {self._link({'$ref': _ROOT + base})} has, and:\n"
                known = self._schemas.components[base]["properties"]
                own = {each: member for each, member in schema["properties"].items() if each not in known}
                yield from self._members({**schema, "properties": own}, "")
            else:
                yield from self._members(schema, "")
            yield ""

    def _base(self, name: str) -> str | None:
        """Return the largest other type, if any, whose members this type has as well, and more."""
        components = self._schemas.components
        return max(
            (each for each in self._sections if _extends(components[name], components[each])),
            key=lambda each: len(components[each]["properties"]),
            default=None,
        )

    def _worth_a_section(self) -> list[str]:
        """Object types that are used in more than one place, that contain themselves, or that are long."""
        uses: Counter[str] = Counter()
        for schemas in (*self._arguments.values(), *([result] for result in self._results.values())):
            uses.update({name for schema in schemas for name in self._references(schema)})
        components = self._schemas.components
        within = {name: list(self._references(schema)) for name, schema in components.items()}
        for name, inner in within.items():
            uses.update(each for each in inner if each != name)
        return [
            name
            for name, schema in sorted(components.items())
            if uses[name] > 1 or _reaches(within, name, name) or len(schema.get("properties", ())) > 8
        ]

    def _references(self, schema: Any) -> Iterator[str]:
        """Return the names of the components that a schema refers to."""
        if isinstance(schema, dict):
            if "$ref" in schema:
                yield self._schemas.name(schema)
            for key, value in schema.items():
                if key not in ("default", "examples", "const", "enum"):
                    yield from self._references(value)
        elif isinstance(schema, list):
            for item in schema:
                yield from self._references(item)

    def _in_words(self, schema: Schema) -> str:
        return in_words(schema, self._link)

    def _link(self, schema: Schema) -> str:
        name = self._schemas.name(schema)
        return f"[{name}](#{_anchor(name)})" if name in self._sections else _kind(self._schemas.components[name])


def _kind(schema: Schema) -> str:
    return "object" if schema.get("type") == "object" else "list"


def _extends(schema: Schema, base: Schema) -> bool:
    """Return whether an object type is another one of some size with more members."""
    ours, theirs = schema.get("properties", {}), base.get("properties", {})
    return (
        _LEAST_BASE <= len(theirs) < len(ours)
        and all(name in ours and _bare(ours[name]) == _bare(member) for name, member in theirs.items())
        and set(base.get("required", ())) == {name for name in schema.get("required", ()) if name in theirs}
    )


def _bare(schema: Schema) -> Schema:
    return {name: value for name, value in schema.items() if name != "description"}


def _headings(apis: Sequence[Api]) -> dict[tuple[str, str], str]:
    """Return the heading of each function: its name, with the API where two of them have one of that name."""
    uses = Counter(function.name for api in apis for function in api.table)
    return {
        (api.name, function.name): function.name
        if uses[function.name] == 1 or api is apis[0]
        else f"{function.name} ({api.title})"
        for api in apis
        for function in api.table
    }


def _reaches(within: dict[str, list[str]], start: str, goal: str) -> bool:
    seen: set[str] = set()
    ahead = list(within[start])
    while ahead:
        name = ahead.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            ahead.extend(within[name])
    return False


def _anchor(title: str) -> str:
    """Return the name by which links find a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _article(title: str) -> str:
    return f"{'an' if title[0] in 'AEIOU' else 'a'} {title}"


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def _escaped(text: str) -> str:
    """Prose of a docstring as Markdown: what looks like a tag would vanish."""
    parts = re.split(r"(`+[^`]*`+)", text)
    return "".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(parts))
