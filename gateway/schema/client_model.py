"""What both clients are made from: the functions as methods, the types of their arguments and results, the errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bullmq_proxy.gateway.broker.functions.table import Function, Parameter
from bullmq_proxy.gateway.errors import ErrorCode
from bullmq_proxy.gateway.schema.connections import options_of
from bullmq_proxy.gateway.schema.docstrings import parse
from bullmq_proxy.gateway.schema.json_schema import Schema, Schemas
from bullmq_proxy.gateway.schema.tables import Api, groups
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint

JOBS: Final = {"Job": "JobJson", "AddedJob": "AddedJobJson", "LockedJob": "LockedJobJson"}
"""Types of jobs: a method gives an object of the class Job for them. The JSON within a flow has these names."""

OWN_ERRORS: Final = {
    "CLOSED": "this client was closed, or the gateway has closed its connection for good",
    "UNREACHABLE": "there was no connection for too long; nothing was sent",
}
"""The codes of errors that the clients make themselves."""

_NODE_METHOD: Final = re.compile(r"Node's `job\.(\w+)`")
_NESTED: Final = re.compile(r"(\w+)\.(\w+)")
_NOT_OPTIONS: Final = ("consumer", "token")  # the clients' own business


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a method.

    Attributes:
        name: in Node's spelling.
        schema: of its values.
        required: whether it must be given.
        variadic: it stands for any number of them.
    """

    name: str
    schema: Schema
    required: bool
    variadic: bool

    @property
    def is_any(self) -> bool:
        """Whether it is any JSON, null too."""
        return not self.schema


@dataclass(frozen=True, slots=True)
class Method:
    """A function as a method.

    Attributes:
        name: in Node's spelling.
        doc: as Markdown.
        arguments: in their order.
        result: the schema.
        writes: whether it changes anything.
        node: the name of the method of Node's Job that it is; empty where it is none.
    """

    name: str
    doc: str
    arguments: tuple[Argument, ...]
    result: Schema
    writes: bool
    node: str

    @property
    def gives_jobs(self) -> bool:
        """Whether the result is a job, or a list of jobs."""
        return any(reference.rpartition("/")[2] in JOBS for reference in _references(self.result))


class Model:
    """All that the clients are made from.

    Attributes:
        queue: the methods of queues.
        flows: those of flows.
        job: those of a job, a part of `queue`.
        schemas: with the types as components.
        worker_options: the schema of each option of a Worker connection; those with a dot stand in objects.
    """

    def __init__(self, apis: Sequence[Api]) -> None:
        self.schemas = Schemas("#/")
        self.queue, self.flows = ([self._method(each) for each in _in_order(api)] for api in apis)
        self.job = [method for method in self.queue if method.node]
        self.worker_options: dict[str, Any] = {}
        for name, schema in options_of(SessionEndpoint.WORKER, self.schemas).items():
            if nested := _NESTED.fullmatch(name):
                self.worker_options.setdefault(nested[1], {})[nested[2]] = schema
            elif name not in _NOT_OPTIONS:
                self.worker_options[name] = schema

    def _method(self, function: Function) -> Method:
        node = _NODE_METHOD.search(function.doc)
        is_of_job = bool(function.parameters) and function.parameters[0].name == "jobId"
        return Method(
            name=function.name,
            doc=parse(function.doc).text,
            arguments=tuple(self._argument(each, variadic=function.variadic) for each in function.parameters),
            result=self.schemas.of(function.result),
            writes=function.writes,
            node=node[1] if node and is_of_job else "",
        )

    def _argument(self, parameter: Parameter, *, variadic: bool) -> Argument:
        return Argument(parameter.name, self.schemas.of(parameter.type), parameter.required, variadic)


def errors() -> Iterator[tuple[str, str, str]]:
    """Yield the name of the class, the code and the meaning of each error."""
    for code, meaning in (*((each.value, each.meaning) for each in ErrorCode), *OWN_ERRORS.items()):
        words = "".join(word.capitalize() for word in code.split("_"))
        yield f"{'WaitTimeout' if code == 'TIMEOUT' else words}Error", code, meaning  # Python has a TimeoutError


def is_nested(schema: Mapping[str, Any]) -> bool:
    """Return whether these are options that stand in an object, by their names, and no schema of one."""
    return bool(schema) and all(isinstance(value, dict) for value in schema.values())


def _in_order(api: Api) -> Iterator[Function]:
    for group in groups(api.table):
        yield from group.functions


def _references(schema: Schema) -> Iterator[str]:
    """Yield the references of a result: itself, its choices, or the items of a list; not what is within objects."""
    if "$ref" in schema:
        yield schema["$ref"]
    for each in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _references(each)
    if isinstance(schema.get("items"), dict):
        yield from _references(schema["items"])
