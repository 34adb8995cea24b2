"""The documents of connecting: server, keys, parameters of paths, and options of the query string."""

from __future__ import annotations

from typing import Any, Final, assert_never

from bullmq_proxy.gateway.broker.functions.reaching import EXAMPLE_CONSUMER
from bullmq_proxy.gateway.schema.json_schema import Schema, Schemas
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.wire.connection_options import QueryOption
from bullmq_proxy.gateway.wire.endpoint_rows import PathParameter, parameters_of
from bullmq_proxy.gateway.wire.endpoints import Endpoint

SECURITY: Final[dict[str, dict[str, Any]]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The header `Authorization: Bearer KEY`."},
    "subprotocol": {
        "type": "httpApiKey",
        "name": "Sec-WebSocket-Protocol",
        "in": "header",
        "description": (
            "For browsers, a pair of subprotocols: `bullmq-proxy.v1` and `bearer.KEY`. The gateway selects the first."
        ),
    },
    "token": {
        "type": "httpApiKey",
        "name": "token",
        "in": "query",
        "description": "`?token=KEY`, percent-encoded. Proxies in between may log it.",
    },
}


def server() -> dict[str, Any]:
    """Return the gateway as a server."""
    fields = Settings.__dataclass_fields__
    return {
        "host": "{host}:{port}",
        "protocol": "ws",
        "description": "A gateway. Behind a proxy that ends TLS the protocol is `wss`.",
        "variables": {
            "host": {"default": fields["host"].default, "description": "Where it listens."},
            "port": {"default": str(fields["port"].default), "description": "The port that all shards share."},
        },
        "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in SECURITY],
    }


def options_of(endpoint: Endpoint, schemas: Schemas) -> dict[str, Schema]:
    """Return the schemas of the options that an endpoint's query string may have."""
    options = endpoint.value.options
    return {} if options is None else {option.name: _schema(option, schemas) for option in options.known}


def _schema(option: QueryOption[Any], schemas: Schemas) -> Schema:
    default = option.default
    if isinstance(default, tuple):
        default = ",".join(default)
    elif isinstance(default, bool):
        default = int(default)
    shown = {} if default is None else {"default": default}
    return {**schemas.of(option.type), **shown, "description": option.description}


def query_binding(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    """Return the options of a connection as the binding of its channel; unknown ones are refused."""
    query = {"type": "object", "properties": options_of(endpoint, schemas), "additionalProperties": False}
    return {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}}


def parameters(endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    """Return the parameters of an endpoint's path."""
    return {parameter.value: _parameter(parameter) for parameter in parameters_of(endpoint.value.path)}


def _parameter(parameter: PathParameter) -> dict[str, Any]:
    match parameter:
        case PathParameter.QUEUE:
            about = "The queue's name, percent-encoded UTF-8; of any characters but `:`."
            return {"description": about, "examples": ["mails"]}
        case PathParameter.CONCURRENCY:
            about = "How many jobs this client may hold at a time."
            return {"description": about, "default": "1", "examples": ["10"]}
        case PathParameter.FUNCTION:
            return {"description": "The function's name.", "examples": ["getJobCounts"]}
        case PathParameter.JOB:
            return {"description": "The job's id, percent-encoded.", "examples": ["1"]}
        case PathParameter.WORKER:
            return {"description": "The worker's name, percent-encoded.", "examples": ["mails"]}
        case PathParameter.FILE:
            return {"description": "The file's name.", "examples": ["main.js"]}
        case PathParameter.CONNECTION:
            return {"description": "The connection's id, percent-encoded.", "examples": [EXAMPLE_CONSUMER]}
        case _:
            assert_never(parameter)
