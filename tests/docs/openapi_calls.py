"""Calls that schemathesis makes of the OpenAPI document, for `test_openapi.py`: to import it takes a second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.schema import openapi_document
from tests.sessions.peer import SOON

SCHEMA: Final[Any] = schemathesis.openapi.from_dict(openapi_document())
CHECKS: Final = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS: Final = {"/queue/{queue}/events", *(f"/queue/{{queue}}/{row.name}" for row in TABLE if row.waits)}
"""What may take as long as the client likes."""

SENDING: Final = {"post", "put"}
"""Methods that register webhook workers: whatever their URLs are, they would be called."""

FUNCTIONS: Final = {f"/queue/{{queue}}/{row.name}" for row in TABLE} | {f"/flows/{row.name}" for row in FLOWS}
NAMES: Final = {
    "queue": "mails",
    "job": "waiting-1",
    "worker": "mails",
    "file": "main.js",
    "connection": "none",
}
KEY: Final = {"Authorization": "Bearer key-1"}
BOUNDED: Final = settings(
    max_examples=2, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
"""The simplest call, and one of all others."""


def validate() -> None:
    """Hold the document against OAS 3.1's own schema."""
    SCHEMA.validate()


def operations() -> Iterator[Any]:
    """Every operation; of a function that has two, POST and GET, in turn the one and the other."""
    found = [result.ok() for result in SCHEMA.get_all_operations()]
    two = [operation.path for operation in found if operation.method == "get" and operation.path in FUNCTIONS]
    for operation in found:
        is_its_turn = operation.path not in two or (operation.method == "get") == (two.index(operation.path) % 2 == 0)
        sends = operation.path.startswith("/workers") and operation.method in SENDING
        if is_its_turn and not sends and operation.path not in ENDLESS:
            yield operation


def call_all(url: str) -> set[int]:
    """Call every operation with arguments that its schema allows; the statuses of the answers."""
    statuses = set()
    with requests.Session() as session:
        for operation in operations():
            names = {name: value for name, value in NAMES.items() if f"{{{name}}}" in operation.path}

            def call(case: Any) -> None:
                answer = case.call(url, session=session, timeout=SOON)
                case.validate_response(answer, checks=CHECKS)
                statuses.add(answer.status_code)

            cases = operation.as_strategy(path_parameters=names, headers=KEY, cookies={})
            of_cases: Any = given(cases)
            BOUNDED(of_cases(call))()
    return statuses
