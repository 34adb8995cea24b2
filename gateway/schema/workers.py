"""The part of the OpenAPI document that describes webhook workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, assert_never

from bullmq_proxy.gateway.schema.json_schema import Schema, Schemas
from bullmq_proxy.gateway.webhooks.functions import QUEUE, Worker
from bullmq_proxy.gateway.webhooks.registration import Registration
from bullmq_proxy.gateway.wire.guest_endpoints import WorkersEndpoint

_TEXT: Final = "text/plain"
_JSON: Final = "application/json"
_OK: Final[Schema] = {"const": "OK"}
_URLS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}
_ENDPOINT: Final = {"url": "https://example.com/jobs", "method": "POST"}

_OF_ONE: Final = (WorkersEndpoint.GET_WORKER, WorkersEndpoint.DELETE_WORKER)
_QUEUE: Final = {
    "name": QUEUE,
    "in": "query",
    "schema": {"type": "string"},
    "description": "The queue of the worker, where several that the key may see have its name.",
}

Operation = dict[str, Any]


def worker_operations(schemas: Schemas) -> Iterator[tuple[WorkersEndpoint, str, Operation]]:
    """Return each endpoint with its method and what is particular to it: parameters of the path are to be added."""
    for endpoint in WorkersEndpoint:
        row = endpoint.value
        body, content = _particulars(endpoint, schemas)
        first, *rest = endpoint.name.lower().split("_")
        yield (
            endpoint,
            row.methods[0].lower(),
            {
                "operationId": "".join([first, *map(str.capitalize, rest)]),
                "summary": row.description,
                "tags": ["Webhook workers"],
                "security": [{"bearer": []}],
                "parameters": [_QUEUE] if endpoint in _OF_ONE else [],
                **({"requestBody": {"required": True, "content": {_JSON: body}}} if body else {}),
                "responses": {
                    "200": {"description": row.title, "content": content},
                    **{family: _error(endpoint, family) for family in ("4XX", "5XX")},
                },
            },
        )


def _error(endpoint: WorkersEndpoint, family: str) -> Operation:
    form = _TEXT if endpoint.has_ancestor else _JSON
    return {"description": f"Why not, with the status of its code: {family}.", "content": {form: {"schema": {}}}}


def _particulars(endpoint: WorkersEndpoint, schemas: Schemas) -> tuple[Operation, Operation]:
    """Return the content of the body, and that of the answer."""
    match endpoint:
        case WorkersEndpoint.POST_WORKER:
            body: Schema = {
                "type": "object",
                "properties": {
                    "queue": {"type": "string", "minLength": 3},
                    "endpoint": {"type": "object"},
                    "opts": {"type": "object"},
                },
                "required": ["queue", "endpoint"],
                "additionalProperties": False,
            }
            example = {"queue": "mails", "endpoint": _ENDPOINT}
            return {"schema": body, "example": example}, {_TEXT: {"schema": _OK}}
        case WorkersEndpoint.GET_WORKERS:
            ours = _answer({"type": "array", "items": schemas.of(Worker)})
            return {}, {_TEXT: {"schema": _URLS}, _JSON: {"schema": ours}}
        case WorkersEndpoint.PUT_WORKER:
            ours_example = {"queue": "mails", "endpoint": _ENDPOINT, "concurrency": 10}
            of_body = {"schema": schemas.of(Registration), "example": ours_example}
            return of_body, {_JSON: {"schema": _answer(schemas.of(Worker))}}
        case WorkersEndpoint.GET_WORKER:
            return {}, {_JSON: {"schema": _answer(schemas.of(Worker))}}
        case WorkersEndpoint.DELETE_WORKER:
            return {}, {_TEXT: {"schema": _OK}, _JSON: {"schema": _answer({"type": "null"})}}
        case _:
            assert_never(endpoint)


def _answer(result: Schema) -> Schema:
    return {"type": "object", "properties": {"ok": result}, "required": ["ok"]}
