"""The tables of functions that the documents describe, each with the endpoint that its functions are called on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.functions.table import Function, FunctionTable
from bullmq_proxy.gateway.schema.docstrings import parse
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint


@dataclass(frozen=True, slots=True)
class Api:
    """An API that consists of functions."""

    endpoint: SessionEndpoint
    table: FunctionTable

    @property
    def name(self) -> str:
        """The API's name in identifiers, such as `queue`."""
        return self.endpoint.name.lower()

    @property
    def title(self) -> str:
        """The API's name for people, such as `Queue API`."""
        return self.endpoint.value.title

    @property
    def path(self) -> str:
        """The path of its connections."""
        return self.endpoint.value.path


@dataclass(frozen=True, slots=True)
class Group:
    """The functions of one module.

    Attributes:
        title: the first clause of the module's docstring.
        about: the rest of its first paragraph, behind the colon.
        functions: in their order.
    """

    title: str
    about: str
    functions: tuple[Function, ...]


def apis() -> tuple[Api, ...]:
    """Return all APIs that consist of functions, in the order of the documents."""
    return (Api(SessionEndpoint.QUEUE, TABLE), Api(SessionEndpoint.FLOWS, FLOWS))


def groups(table: FunctionTable) -> Iterator[Group]:
    """Group the functions of a table by their module, in the order of the table."""
    modules = dict.fromkeys(function.run.__module__ for function in table)
    for module in modules:
        functions = tuple(function for function in table if function.run.__module__ == module)
        first = parse(import_module(module).__doc__).paragraphs[0]
        title, _, about = first.partition(":")
        yield Group(title.strip().removesuffix("."), _capital(about.strip()), functions)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
