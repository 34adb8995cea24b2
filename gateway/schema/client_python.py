"""The files of the Python client that are made from the code: functions, types and errors."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

from bullmq_proxy.gateway.schema.client_model import JOBS, Argument, Method, Model, errors, is_nested
from bullmq_proxy.gateway.schema.json_schema import Schema

_WIDTH: Final = 120
_MADE: Final = "Made from the code by `make docs`."
_SIMPLE: Final = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "object": "dict[str, Any]",
}


def files(model: Model) -> dict[PurePath, str]:
    """Return the texts of the files, by their paths."""
    folder = PurePath("gateway/client")
    python = _Python(model)
    return {
        folder / "errors.py": "\n".join(_errors()),
        folder / "types.py": "\n".join(python.types()).rstrip() + "\n",
        folder / "functions.py": "\n".join(python.functions("async ")),
        folder / "sync_functions.py": "\n".join(python.functions("")),
    }


def _head(about: str, *imports: str) -> Iterator[str]:
    yield f'"""{about}\n\n{_MADE}\n"""\n'
    yield "# fmt: off"
    if "TYPE_CHECKING" in imports[0]:
        yield '# ruff: noqa: E501\n# mypy: disable-error-code="no-any-return"'
    yield "from __future__ import annotations\n"
    yield from imports


def _errors() -> Iterator[str]:
    yield from _head("The errors of the client: a class for each code.", "from typing import Final\n\n")
    yield "class ProxyError(Exception):"
    yield '    """What the gateway, or this client, refuses: `code` says why for programs, `message` for people."""\n'
    yield '    code = "UNKNOWN"\n'
    yield "    def __init__(self, message: str, code: str | None = None) -> None:"
    yield "        super().__init__(message)"
    yield "        self.message = message"
    yield "        if code is not None:"
    yield "            self.code = code\n\n"
    for name, code, meaning in errors():
        yield f"class {name}(ProxyError):"
        yield from _docstring(f"{meaning[0].upper()}{meaning[1:]}.", "    ")
        yield f'\n    code = "{code}"\n\n'
    yield "CLASSES: Final[dict[str, type[ProxyError]]] = {"
    yield from (f'    "{code}": {name},' for name, code, _ in errors())
    yield "}"
    yield '"""The class of each code."""\n'


class _Python:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._quoted: dict[str, str] = {}

    # Types

    def types(self) -> Iterator[str]:
        """Yield the lines of the file of types."""
        yield from _head(
            "The types of arguments and results, as JSON has them.",
            "from typing import Any, Literal, NotRequired, TypedDict\n\n",
        )
        for name, schema in sorted(self._model.schemas.components.items()):
            yield from self._type(JOBS.get(name, name), schema)
        options = self._model.worker_options
        for name, members in options.items():
            if is_nested(members):
                yield from self._class(f"Worker{name.capitalize()}", "An option of a worker.", members, members)
        flat = {
            name: {"$ref": f"#/Worker{name.capitalize()}"} if is_nested(schema) else schema
            for name, schema in options.items()
        }
        yield from self._class("WorkerOptions", "The options of a Worker connection; times in milliseconds.", flat, ())

    def _type(self, name: str, schema: Schema) -> Iterator[str]:
        if "properties" not in schema:
            yield f"{name} = {self.annotation(schema)}\n\n"
            return
        about = schema.get("description", f"The JSON of {name}.")
        yield from self._class(name, about, schema["properties"], schema.get("required", ()))

    def _class(self, name: str, about: str, members: Mapping[str, Any], required: Iterable[str]) -> Iterator[str]:
        if all(each.isidentifier() and not keyword.iskeyword(each) for each in members):
            yield f"class {name}(TypedDict):"
            yield from _docstring(about, "    ")
            yield ""
            for each, schema in members.items():
                shown = self.annotation(schema)
                yield f"    {each}: {shown if each in required else f'NotRequired[{shown}]'}"
                if text := schema.get("description"):
                    yield from _docstring(text, "    ")
            yield "\n"
        else:
            pairs = ", ".join(f'"{each}": NotRequired[{self.annotation(schema)}]' for each, schema in members.items())
            yield f'{name} = TypedDict("{name}", {{{pairs}}})\n\n'

    def annotation(self, schema: Schema, *, jobs: bool = False) -> str:
        """Return the type of a value; with `jobs` that of a result, in which jobs are objects."""
        if "$ref" in schema:
            name = self._model.schemas.name(schema)
            return ("Job" if jobs else JOBS[name]) if name in JOBS else name
        if "allOf" in schema:
            return self.annotation(schema["allOf"][0], jobs=jobs)
        if "anyOf" in schema:
            return " | ".join(dict.fromkeys(self.annotation(each, jobs=jobs) for each in schema["anyOf"]))
        if "const" in schema or "enum" in schema:
            values = schema.get("enum", [schema.get("const")])
            return f"Literal[{', '.join(_literal(value) for value in values)}]"
        kind = schema.get("type")
        if isinstance(kind, list):
            return " | ".join(self.annotation({**schema, "type": each}, jobs=jobs) for each in kind)
        if kind == "array":
            items = schema.get("items", {})
            return f"list[{self.annotation(items, jobs=jobs) if isinstance(items, dict) else 'Any'}]"
        if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
            return f"dict[str, {self.annotation(schema['additionalProperties'])}]"
        return "Any" if kind is None else _SIMPLE[kind]

    # Functions

    def functions(self, word: str) -> Iterator[str]:
        """Yield the lines of the file of functions; `word` is `async ` or nothing."""
        about = "The functions of queues, flows and jobs as methods" + (
            "." if word else ", for scripts: each one waits until the reply is there."
        )
        base = "bullmq_proxy.gateway.client.calls" if word else "bullmq_proxy.gateway.client.sync_calls"
        job = "bullmq_proxy.gateway.client.job" if word else "bullmq_proxy.gateway.client.sync"
        body = [
            *self._functions("QueueFunctions", "The functions of a queue.", self._model.queue, word),
            *self._functions("FlowFunctions", "The functions of flows.", self._model.flows, word),
            *self._of_job(word),
        ]
        text = "\n".join(body)
        names = {*self._model.schemas.components, *JOBS.values()} - JOBS.keys()
        words = _words(text)
        used = sorted((name for name in names if name in words), key=str.lower)
        yield from _head(
            about,
            "from typing import TYPE_CHECKING, Any, Literal\n",
            f"from {base} import EMPTY, Functions\n",
            "if TYPE_CHECKING:",
            f"    from {job} import Job",
            "    from bullmq_proxy.gateway.client.types import (",
            *(f"        {name}," for name in used),
            "    )\n",
        )
        yield ""
        yield from body

    def _functions(self, name: str, about: str, methods: Iterable[Method], word: str) -> Iterator[str]:
        yield f"class {name}(Functions):"
        yield f'    """{about}"""'
        for method in methods:
            yield ""
            yield from self._method(method, word)
        yield "\n"

    def _method(self, method: Method, word: str) -> Iterator[str]:
        result = self.annotation(method.result, jobs=True)
        yield from self._signature(method.name, method.arguments, result, word)
        yield from _docstring(method.doc, "        ")
        call = f"{'await ' if word else ''}self._{'write' if method.writes else 'read'}({_passed(method)})"
        yield f"        return {f'self._jobs({call})' if method.gives_jobs else call}"

    def _signature(self, name: str, arguments: Iterable[Argument], result: str, word: str) -> Iterator[str]:
        shown = ["self", *map(self._parameter, arguments)]
        line = f"    {word}def {name}({', '.join(shown)}) -> {result}:"
        if len(line) <= _WIDTH:
            yield line
            return
        yield f"    {word}def {name}("
        yield from (f"        {each}," for each in shown)
        yield f"    ) -> {result}:"

    def _parameter(self, argument: Argument) -> str:
        shown = self.annotation(argument.schema)
        if argument.variadic:
            return f"*{_safe(argument.name)}: {shown}"
        if argument.required:
            return f"{_safe(argument.name)}: {shown}"
        if argument.is_any:
            return f"{_safe(argument.name)}: {shown} = EMPTY"
        shown = shown if "None" in shown.split(" | ") else f"{shown} | None"
        return f"{_safe(argument.name)}: {shown} = None"

    def _of_job(self, word: str) -> Iterator[str]:
        yield "class JobFunctions:"
        yield '    """The members of a job, and the functions for it. Members that a job does not have are None."""\n'
        yield "    id: str"
        for name, schema in self._job_members():
            if name != "id":
                shown = self.annotation(schema)
                shown = shown if shown == "Any" or "None" in shown.split(" | ") else f"{shown} | None"
                yield f"    {name}: {shown} = None"
                if text := schema.get("description"):
                    yield from _docstring(text, "    ")
        yield "\n    @property"
        yield "    def queue(self) -> QueueFunctions:"
        yield '        """The functions of its queue."""'
        yield "        raise NotImplementedError"
        for method in self._model.job:
            yield ""
            own = [each for each in method.arguments[1:] if each.name != "token"]
            result = self.annotation(method.result, jobs=True)
            yield from self._signature(method.node, own, result, word)
            yield from _docstring(method.doc, "        ")
            passed = ", ".join(["self.id", *(_of_job_passed(each) for each in method.arguments[1:])])
            yield f"        return {'await ' if word else ''}self.queue.{method.name}({passed})"
        yield ""

    def _job_members(self) -> Iterator[tuple[str, Schema]]:
        components = self._model.schemas.components
        members = {name: schema for each in JOBS for name, schema in components[each]["properties"].items()}
        yield from members.items()


def _passed(method: Method) -> str:
    """Return the arguments of a call: the name, a list of those that are always sent, and those that may be None."""
    if any(each.variadic for each in method.arguments):
        [only] = method.arguments
        return f'"{method.name}", list({_safe(only.name)})'
    always = [_safe(each.name) for each in method.arguments if each.required or each.is_any]
    others = [_safe(each.name) for each in method.arguments if not (each.required or each.is_any)]
    return ", ".join([f'"{method.name}"', f"[{', '.join(always)}]", *others])


def _of_job_passed(argument: Argument) -> str:
    if argument.name != "token":
        return _safe(argument.name)
    return 'self.token or ""' if argument.required else "self.token"


def _words(text: str) -> set[str]:
    return set("".join(char if char.isidentifier() or char.isdigit() else " " for char in text).split())


def _safe(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _docstring(text: str, indent: str) -> Iterator[str]:
    """Yield a docstring, wrapped; one of a member of a type is a sentence without its capital."""
    text = text.replace("\\", "\\\\").strip()
    paragraphs = [
        textwrap.fill(line, _WIDTH - len(indent) - 6, break_long_words=False, break_on_hyphens=False)
        for part in text.split("\n\n")
        for line in part.split("\n")
    ]
    lines = "\n\n".join(paragraphs).split("\n")
    if len(lines) == 1:
        yield f'{indent}"""{lines[0]}"""'
        return
    yield f'{indent}"""{lines[0]}'
    yield from (f"{indent}{line}".rstrip() for line in lines[1:])
    yield f'{indent}"""'
