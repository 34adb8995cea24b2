"""The part of the OpenAPI document that describes the ancestor's routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, assert_never

from bullmq_proxy.gateway.rules.shapes import AddedJob, Job, JobLogs
from bullmq_proxy.gateway.schema.json_schema import Schema, Schemas
from bullmq_proxy.gateway.wire.guest_endpoints import AncestorEndpoint

_TEXT: Final = "text/plain"
_TAG: Final = "As taskforcesh/bullmq-proxy has it"
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_OK: Final[Schema] = {"const": "OK"}
_LONGEST_PAGE: Final = 100

Operation = dict[str, Any]


def operations(schemas: Schemas) -> Iterator[tuple[AncestorEndpoint, str, Operation]]:
    """Return each endpoint with its method and what is particular to it: parameters of the path are to be added."""
    for endpoint in AncestorEndpoint:
        row = endpoint.value
        parameters, body, result = _particulars(endpoint, schemas)
        first, *rest = endpoint.name.lower().split("_")
        operation = {
            "operationId": "".join(["ancestor", first.capitalize(), *map(str.capitalize, rest)]),
            "summary": row.description,
            "tags": [_TAG],
            "security": [{"bearer": []}],
            "parameters": parameters,
            **({"requestBody": {"required": True, "content": body}} if body else {}),
            "responses": {
                "200": {"description": row.title, "content": {_TEXT: {"schema": result}}},
                **{family: _error(family) for family in ("4XX", "5XX")},
            },
        }
        yield endpoint, row.methods[0].lower(), operation


def _error(family: str) -> Operation:
    return {
        "description": f"The message, with the status of its code: {family}.",
        "content": {_TEXT: {"schema": {"type": "string"}}},
    }


def _particulars(endpoint: AncestorEndpoint, schemas: Schemas) -> tuple[list[Operation], Operation, Schema]:
    """Return the parameters of the query string, the content of the body, and the result."""
    match endpoint:
        case AncestorEndpoint.ADD_JOBS:
            job: Schema = {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "data": {},
                    "opts": {"type": ["object", "null"]},
                },
                "required": ["name", "data"],
                "additionalProperties": False,
            }
            example = [{"name": "welcome", "data": {"to": "ada@example.org"}}]
            body = {"application/json": {"schema": {"type": "array", "items": job}, "example": example}}
            return [], body, {"type": "array", "items": schemas.of(AddedJob)}
        case AncestorEndpoint.GET_JOBS:
            page: Schema = {
                "type": "object",
                "properties": {
                    "counts": {"type": "object", "additionalProperties": _COUNT},
                    "jobs": {"type": "array", "items": schemas.of(Job)},
                    "start": _COUNT,
                    "length": _COUNT,
                },
                "required": ["counts", "jobs", "start", "length"],
            }
            statuses = {"type": "string", "default": "waiting,active,completed,failed"}
            return [{"name": "statuses", "in": "query", "schema": statuses}, *_page()], {}, page
        case AncestorEndpoint.GET_JOB:
            return [], {}, schemas.of(Job)
        case AncestorEndpoint.GET_LOGS:
            return _page(), {}, schemas.of(JobLogs)
        case AncestorEndpoint.UPDATE_PROGRESS:
            return [], {"application/json": {"schema": {}, "example": 50}}, _OK
        case AncestorEndpoint.ADD_LOG:
            return [], {"application/json": {"schema": {"type": "string"}, "example": "sent to the relay"}}, _OK
        case _:
            assert_never(endpoint)


def _page() -> list[Operation]:
    return [
        {"name": "start", "in": "query", "schema": {**_COUNT, "default": 0}},
        {"name": "length", "in": "query", "schema": {**_COUNT, "maximum": _LONGEST_PAGE, "default": 10}},
    ]
