"""The OpenAPI document of the gateway's HTTP side, made from the same tables and types as the AsyncAPI document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final, assert_never

from bullmq_proxy.gateway import __version__
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.functions.table import Function
from bullmq_proxy.gateway.errors import ErrorCode
from bullmq_proxy.gateway.schema.ancestor import operations
from bullmq_proxy.gateway.schema.asyncapi import request_schema, whole_text
from bullmq_proxy.gateway.schema.connections import options_of, parameters
from bullmq_proxy.gateway.schema.docstrings import parse
from bullmq_proxy.gateway.schema.examples import Examples
from bullmq_proxy.gateway.schema.json_schema import Schema, Schemas
from bullmq_proxy.gateway.schema.messages import ErrorObject, error_codes
from bullmq_proxy.gateway.schema.tables import Api, groups
from bullmq_proxy.gateway.schema.workers import worker_operations
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.wire.connection_options import TOKEN
from bullmq_proxy.gateway.wire.endpoints import FUNCTIONS, CallEndpoint, Endpoint, PageEndpoint, SessionEndpoint

_ABOUT: Final = """\
BullMQ queues over plain HTTP: the functions of the WebSocket API, each as a request.

An error is a message and one of these codes, with the status of the code:

{codes}"""

_JSON: Final = "application/json"
_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "token": {
        "type": "apiKey",
        "name": TOKEN.name,
        "in": "query",
        "description": "Proxies in between may log it.",
    },
}

_NAMES: Final[dict[str, Schema]] = {"queue": {"maxLength": 100, "pattern": "^[^:]+$"}}
"""What names in paths may be."""

_FAMILIES: Final = {"4XX": "Refused", "5XX": "Failed"}
"""The responses with an error, by their statuses."""

Document = dict[str, Any]


def document(apis: Sequence[Api]) -> Document:
    """Return the document as JSON-like data."""
    schemas = Schemas()
    paths: defaultdict[str, Document] = defaultdict(dict)
    for path, method, operation in _operations({api.endpoint: api for api in apis}, schemas):
        paths[path][method] = operation
    fields = Settings.__dataclass_fields__
    error = {"type": "object", "properties": {"err": schemas.of(ErrorObject)}, "required": ["err"]}
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "bullmq-proxy",
            "version": __version__,
            "description": _ABOUT.format(codes=error_codes()),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [
            {
                "url": "http://{host}:{port}",
                "variables": {name: {"default": str(fields[name].default)} for name in ("host", "port")},
            }
        ],
        "security": [{name: []} for name in _SECURITY],
        "paths": dict(paths),
        "components": {
            "schemas": {**schemas.components, "Failure": error},
            "responses": {
                name: _answer(f"One of these: {_statuses(family)}.", {"$ref": "#/components/schemas/Failure"})
                for family, name in _FAMILIES.items()
            },
            "securitySchemes": _SECURITY,
        },
    }
    modern: Document = _modern(whole)
    return modern


def _operations(apis: dict[SessionEndpoint, Api], schemas: Schemas) -> Iterator[tuple[str, str, Document]]:
    for endpoint in CallEndpoint:
        match endpoint:
            case CallEndpoint.QUEUE | CallEndpoint.FLOWS:
                yield endpoint.value.path, "post", _batch(endpoint)
            case CallEndpoint.QUEUE_FUNCTION:
                yield from _functions(endpoint, apis[SessionEndpoint.QUEUE], schemas)
            case CallEndpoint.FLOWS_FUNCTION:
                yield from _functions(endpoint, apis[SessionEndpoint.FLOWS], schemas)
            case (
                CallEndpoint.QUEUES
                | CallEndpoint.CONNECTIONS
                | CallEndpoint.DRAIN_CONNECTION
                | CallEndpoint.CLOSE_CONNECTION
                | CallEndpoint.HISTORY
                | CallEndpoint.SCALE
                | CallEndpoint.WHOAMI
            ):
                yield endpoint.value.path, endpoint.value.methods[0].lower(), _named(endpoint, schemas)
            case _:
                assert_never(endpoint)
    for ancestor, method, operation in operations(schemas):
        parameters_of_all = [*_path_parameters(ancestor), *operation["parameters"]]
        yield ancestor.value.path, method, {**operation, "parameters": parameters_of_all}
    for worker, method, operation in worker_operations(schemas):
        parameters_of_all = [*_path_parameters(worker), *operation["parameters"]]
        yield worker.value.path, method, {**operation, "parameters": parameters_of_all}
    yield SessionEndpoint.EVENTS.value.path, "get", _events(schemas)
    for page in PageEndpoint:
        yield page.value.path, "get", _page(page)


def _functions(endpoint: CallEndpoint, api: Api, schemas: Schemas) -> Iterator[tuple[str, str, Document]]:
    examples = Examples(schemas)
    for group in groups(api.table):
        for function in group.functions:
            path = endpoint.value.path.replace("{function}", function.name)
            args = request_schema(function, schemas)["properties"]["args"]
            example = examples.arguments(function)
            body = {"required": bool(args.get("minItems")), "content": {_JSON: {"schema": args, "example": example}}}
            common = _described(endpoint, api, function, group.title, schemas)
            name = f"{api.name}{function.name[0].upper()}{function.name[1:]}"
            yield path, "post", {"operationId": name, **common, "requestBody": body}
            if not function.writes:
                query = {"name": "args", "in": "query", "content": {_JSON: {"schema": args, "example": example}}}
                asked = {**common, "parameters": [*common["parameters"], query]}
                yield path, "get", {"operationId": f"{name}ByGet", **asked}


def _described(endpoint: CallEndpoint, api: Api, function: Function, group: str, schemas: Schemas) -> Document:
    result: Schema = {"type": "object", "properties": {"ok": schemas.of(function.result)}, "required": ["ok"]}
    return {
        "summary": parse(function.doc).summary,
        "description": whole_text(function),
        "tags": [f"{api.title}: {group}"],
        "x-permission": function.needs,
        "parameters": _path_parameters(endpoint),
        "responses": {"200": _answer("What the function returns.", result), **_failures()},
    }


def _batch(endpoint: CallEndpoint) -> Document:
    call: Schema = {
        "type": "object",
        "properties": {"fn": {"type": "string"}, "args": {"type": "array"}},
        "required": ["fn"],
    }
    answers: Schema = {"type": "array", "items": {"type": "object"}}
    content = {_JSON: {"schema": {"anyOf": [call, {"type": "array", "items": call}]}, "example": [{"fn": "count"}]}}
    return {
        "operationId": f"{endpoint.name.lower()}Calls",
        "summary": endpoint.value.description,
        "tags": [endpoint.value.title],
        "parameters": _path_parameters(endpoint),
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _answer("Answers.", {"anyOf": [answers, {"type": "object"}]}), **_failures()},
    }


def _named(endpoint: CallEndpoint, schemas: Schemas) -> Document:
    """Describe an endpoint that is one function of flows."""
    function = FLOWS[FUNCTIONS[endpoint]]
    result: Schema = {"type": "object", "properties": {"ok": schemas.of(function.result)}, "required": ["ok"]}
    first, *rest = endpoint.name.lower().split("_")
    return {
        "operationId": "".join([first, *map(str.capitalize, rest)]),
        "summary": endpoint.value.description,
        "tags": ["Queues and connections"],
        "x-permission": function.needs,
        "parameters": [*_path_parameters(endpoint), *_query(endpoint, schemas)],
        "responses": {"200": _answer("What the function returns.", result), **_failures()},
    }


def _query(endpoint: Endpoint, schemas: Schemas) -> list[Document]:
    options = options_of(endpoint, schemas).items()
    return [{"name": name, "in": "query", "schema": schema} for name, schema in options if name != TOKEN.name]


def _events(schemas: Schemas) -> Document:
    endpoint = SessionEndpoint.EVENTS
    resumed = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}}
    return {
        "operationId": "eventStream",
        "summary": endpoint.value.description,
        "tags": [endpoint.value.title],
        "parameters": [*_path_parameters(endpoint), *_query(endpoint, schemas), resumed],
        "responses": {
            "200": {
                "description": "Server-sent events.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **_failures(),
        },
    }


def _page(page: PageEndpoint) -> Document:
    return {
        "operationId": f"page{page.name.capitalize()}",
        "summary": page.value.description,
        "tags": ["Pages"],
        "security": [],
        "parameters": _path_parameters(page),
        "responses": {"200": {"description": page.value.title}, **(_failures() if parameters(page) else {})},
    }


def _path_parameters(endpoint: Endpoint) -> list[Document]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, **_NAMES.get(name, {})},
            "description": known["description"],
            "example": known["examples"][0],
        }
        for name, known in parameters(endpoint).items()
        if name != "function"
    ]


def _answer(description: str, schema: Schema) -> Document:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _statuses(family: str) -> str:
    """Return the statuses of a family, such as `4XX`, each with its codes."""
    codes = sorted(ErrorCode, key=lambda code: code.http_status)
    return ", ".join(f"{code.http_status.value} `{code.value}`" for code in codes if _family(code) == family)


def _family(code: ErrorCode) -> str:
    return f"{code.http_status.value // 100}XX"


def _failures() -> Document:
    return {family: {"$ref": f"#/components/responses/{name}"} for family, name in _FAMILIES.items()}


def _modern(value: Any) -> Any:
    """Return schemas of draft 7 as those of 2020-12, which OpenAPI 3.1 builds on: tuples are written otherwise."""
    if isinstance(value, list):
        return [_modern(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        "prefixItems" if name == "items" and isinstance(each, list) else name: _modern(each)
        for name, each in value.items()
    }
