"""What is made from the code in the JavaScript client: tables in its modules, and its types."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, Final

from bullmq_proxy.gateway.schema.client_model import JOBS, Argument, Method, Model, errors, is_nested
from bullmq_proxy.gateway.schema.json_schema import Schema
from bullmq_proxy.gateway.wire.closing import Refusal

_WIDTH: Final = 120
_FOLDER: Final = PurePath("gateway/pages")
_PLACE: Final = re.compile(r"(// generated: (\w+)\n).*?(// end\n)", re.DOTALL)
_SIMPLE: Final = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
    "object": "Record<string, any>",
}
_OWN: Final = ("limits", "ProxyError", "UnrecoverableError")


def files(model: Model, root: Path) -> dict[PurePath, str]:
    """Return the texts of the files, by their paths; what is not generated is read from `root`."""
    modules = ("client.js", "client-link.js", "client-queue.js")
    made = {_FOLDER / name: _filled((root / _FOLDER / name).read_text(encoding="utf-8"), model) for name in modules}
    return {**made, _FOLDER / "client.d.ts": _Types(model).text((root / _FOLDER / "client.head.d.ts").read_text())}


def _filled(text: str, model: Model) -> str:
    """Return a module with what is generated in it."""
    made: dict[str, Callable[[], Iterator[str]]] = {
        "errors": _errors,
        "exports": _exports,
        "refusals": _refusals,
        "functions": lambda: _functions(model),
    }
    return _PLACE.sub(lambda found: found[1] + "\n".join(made[found[2]]()) + "\n" + found[3], text)


def _errors() -> Iterator[str]:
    for name, code, _ in errors():
        yield f'export class {name} extends ProxyError {{ static code = "{code}"; }}'
    yield from _wrapped("const CLASSES = Object.fromEntries([", [name for name, _, _ in errors()])
    yield "].map((each) => [each.code, each]));"


def _refusals() -> Iterator[str]:
    rows = [refusal for refusal in Refusal if refusal is not Refusal.KEY_GONE]  # which ends open connections, too
    yield from _wrapped("const REFUSALS = {", [f'{refusal.value}: "{refusal.error}"' for refusal in rows])
    yield "};"
    yield f"const LATER = new Set([{', '.join(str(refusal.value) for refusal in rows if not refusal.stops)}]);"


def _exports() -> Iterator[str]:
    yield from _wrapped("export {", sorted([*_OWN, *(name for name, _, _ in errors())]))
    yield '} from "./client-link.js";'


def _functions(model: Model) -> Iterator[str]:
    for name, methods in (("QUEUE", model.queue), ("FLOWS", model.flows)):
        yield f"const {name} = {{"
        for key, wanted in (
            ("reads", [each.name for each in methods if not each.writes]),
            ("writes", [each.name for each in methods if each.writes]),
            ("jobs", [each.name for each in methods if each.gives_jobs]),
        ):
            if wanted:
                yield from _wrapped(f"  {key}: [", [f'"{each}"' for each in wanted], "    ")
                yield "  ],"
            else:
                yield f"  {key}: [],"
        yield "};"
    yield "// The methods of a job: the function, and the place of the token among its arguments."
    yield "const JOB_METHODS = {"
    yield from (f'  {each.node}: ["{each.name}", {_place_of_token(each)}],' for each in model.job)
    yield "};"


def _place_of_token(method: Method) -> int:
    names = [each.name for each in method.arguments]
    return names.index("token") if "token" in names else 0


def _wrapped(head: str, words: Iterable[str], indent: str = "  ") -> Iterator[str]:
    yield head
    yield textwrap.fill(
        ", ".join(words) + ",", _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False
    )


class _Types:
    def __init__(self, model: Model) -> None:
        self._model = model

    def text(self, head: str) -> str:
        """Return the whole file; `head` is what is not generated."""
        return "\n".join([head.rstrip(), *self._lines()]) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "\n// From here on this file is made from the code by `make docs`.\n"
        for name, _, meaning in errors():
            yield from _comment(f"{meaning[0].upper()}{meaning[1:]}.", "")
            yield f"export class {name} extends ProxyError {{}}"
        yield "\nexport interface QueueFunctions {"
        yield from self._methods(self._model.queue)
        yield "}\n\nexport interface FlowFunctions {"
        yield from self._methods(self._model.flows)
        yield "}\n"
        yield from self._job()
        for name, schema in sorted(self._model.schemas.components.items()):
            yield from self._type(JOBS.get(name, name), schema)
        yield "/** The options of a Worker connection; times in milliseconds. */"
        yield "export interface WorkerOptions {"
        for name, schema in self._model.worker_options.items():
            if is_nested(schema):
                inner = "; ".join(f"{each}?: {self.type(shown)}" for each, shown in schema.items())
                yield f"  {name}?: {{ {inner} }};"
            else:
                yield from self._member(name, schema, required=False)
        yield "}"

    def _methods(self, methods: Iterable[Method]) -> Iterator[str]:
        for method in methods:
            yield from _comment(method.doc, "  ")
            yield f"  {method.name}({self._arguments(method.arguments)}): Promise<{self._result(method)}>;"

    def _arguments(self, arguments: Iterable[Argument]) -> str:
        shown = []
        for each in arguments:
            kind = self.type(each.schema)
            if each.variadic:
                shown.append(f"...{each.name}: {_list(kind)}")
            else:
                shown.append(f"{each.name}{'' if each.required else '?'}: {kind}")
        return ", ".join(shown)

    def _result(self, method: Method) -> str:
        return self.type(method.result, jobs=True)

    def _job(self) -> Iterator[str]:
        yield "/** The members of a job, and the functions for it. */"
        yield "export interface JobFunctions {"
        components = self._model.schemas.components
        members = {name: schema for each in JOBS for name, schema in components[each]["properties"].items()}
        for name, schema in members.items():
            required = name in ("id", "name", "data", "opts")
            yield from self._member(name, {"type": "string"} if name == "id" else schema, required=required)
        for method in self._model.job:
            yield from _comment(method.doc, "  ")
            own = [each for each in method.arguments[1:] if each.name != "token"]
            yield f"  {method.node}({self._arguments(own)}): Promise<{self._result(method)}>;"
        yield "}\n"

    def _type(self, name: str, schema: Schema) -> Iterator[str]:
        yield from _comment(schema.get("description", ""), "")
        if "properties" not in schema:
            yield f"export type {name} = {self.type(schema)};\n"
            return
        yield f"export interface {name} {{"
        for each, shown in schema["properties"].items():
            yield from self._member(each, shown, required=each in schema.get("required", ()))
        yield "}\n"

    def _member(self, name: str, schema: Schema, *, required: bool) -> Iterator[str]:
        yield from _comment(schema.get("description", ""), "  ")
        yield f"  {name if name.isidentifier() else json.dumps(name)}{'' if required else '?'}: {self.type(schema)};"

    def type(self, schema: Mapping[str, Any], *, jobs: bool = False) -> str:
        """Return the type of a value; with `jobs` that of a result, in which jobs are objects."""
        if "$ref" in schema:
            name = self._model.schemas.name(dict(schema))
            return ("Job" if jobs else JOBS[name]) if name in JOBS else name
        if "allOf" in schema:
            return self.type(schema["allOf"][0], jobs=jobs)
        if "anyOf" in schema:
            return " | ".join(dict.fromkeys(self.type(each, jobs=jobs) for each in schema["anyOf"]))
        if "const" in schema or "enum" in schema:
            return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
        kind = schema.get("type")
        if isinstance(kind, list):
            return " | ".join(self.type({**schema, "type": each}, jobs=jobs) for each in kind)
        if kind == "array":
            items = schema.get("items", {})
            return _list(self.type(items, jobs=jobs)) if isinstance(items, dict) else "any[]"
        if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
            return f"Record<string, {self.type(schema['additionalProperties'])}>"
        return "any" if kind is None else _SIMPLE[kind]


def _list(kind: str) -> str:
    return f"({kind})[]" if "|" in kind else f"{kind}[]"


def _comment(text: str, indent: str) -> Iterator[str]:
    if not text:
        return
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, _WIDTH - len(indent) - 8) or [""]]
    if len(lines) == 1:
        yield f"{indent}/** {lines[0]} */"
        return
    yield f"{indent}/**"
    yield from (f"{indent} * {line}".rstrip() for line in lines)
    yield f"{indent} */"
