"""The APIs whose functions the documents describe: each a table of functions, and the connection they are called on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.functions.table import Function, FunctionTable
from bullmq_proxy.gateway.schema.docstrings import parse


@dataclass(frozen=True, slots=True)
class Api:
    """An API that consists of functions.

    Attributes:
        name: in identifiers, such as `queue`.
        title: for people.
        path: of its connections.
        table: its functions.
    """

    name: str
    title: str
    path: str
    table: FunctionTable


@dataclass(frozen=True, slots=True)
class Group:
    """The functions that one module has entered.

    Attributes:
        title: the first clause of the module's docstring.
        about: what its first paragraph says behind the colon.
        functions: in their order.
    """

    title: str
    about: str
    functions: tuple[Function, ...]


def apis() -> tuple[Api, ...]:
    """All APIs that consist of functions, in the order of the documents."""
    return (
        Api("queue", "Queue API", "/queue/{queue}", TABLE),
        Api("flows", "Flows API", "/flows", FLOWS),
    )


def groups(table: FunctionTable) -> Iterator[Group]:
    """A table's functions by the module that they come from, in the order of their first ones."""
    modules = dict.fromkeys(function.run.__module__ for function in table)
    for module in modules:
        functions = tuple(function for function in table if function.run.__module__ == module)
        first = parse(import_module(module).__doc__).paragraphs[0]
        title, _, about = first.partition(":")
        yield Group(title.strip().removesuffix("."), _capital(about.strip()), functions)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
