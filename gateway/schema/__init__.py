"""Documents made from the tables of functions: AsyncAPI and OpenAPI documents, and a page for people."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from bullmq_proxy.gateway.schema import (
    asyncapi,
    client_javascript,
    client_python,
    console_functions,
    functions_page,
    openapi,
)
from bullmq_proxy.gateway.schema.client_model import Model
from bullmq_proxy.gateway.schema.tables import apis
from bullmq_proxy.gateway.schema.yaml import dump

__all__ = [
    "asyncapi_document",
    "asyncapi_yaml",
    "client_files",
    "functions_markdown",
    "openapi_document",
    "openapi_yaml",
]


def asyncapi_document() -> dict[str, Any]:
    """Return the AsyncAPI document, as JSON-like data."""
    return asyncapi.document(apis())


def asyncapi_yaml() -> str:
    """Return the AsyncAPI document as YAML, as it stands in docs/asyncapi.yaml."""
    head = "# Made from the code by `make docs`; `bullmq-proxy schema` prints it.\n"
    return head + dump(asyncapi_document())


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document, as JSON-like data."""
    return openapi.document(apis())


def openapi_yaml() -> str:
    """Return the OpenAPI document as YAML, as it stands in docs/openapi.yaml."""
    head = "# Made from the code by `make docs`; `bullmq-proxy schema --openapi` prints it.\n"
    return head + dump(openapi_document())


def functions_markdown() -> str:
    """Return the page that describes every function, as it stands in docs/functions.md."""
    return functions_page.page(apis())


def client_files(root: Path) -> dict[PurePath, str]:
    """Return the files of clients and console that are made from the code, by their paths in the project at `root`."""
    model = Model(apis())
    return {**client_python.files(model), **client_javascript.files(model, root), **console_functions.files(apis())}
