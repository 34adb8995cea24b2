"""How a client connects: server, keys, paths, and the options in the query string."""

from __future__ import annotations

from typing import Any, Final

from bullmq_proxy.gateway.schema.json_schema import Schema
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.wire.routes import WORKER_BOUNDS, Endpoint, WorkerOptions, known_options

_TOKEN: Final[Schema] = {"type": "string", "description": "The key, for clients that have no other way to show it."}
_KEEP: Final[Schema] = {
    "description": "How many finished jobs stay, unless the job option of this name says it; an object as JSON.",
    "anyOf": [{"type": "boolean"}, {"type": "integer"}, {"$ref": "#/components/schemas/KeepJobs"}],
}

_DEFAULTS: Final = WorkerOptions()


def _number(name: str, about: str, default: int | None = None) -> Schema:
    least, most = WORKER_BOUNDS[name]
    more = {} if default is None else {"default": default}
    return {"type": "integer", "minimum": least, "maximum": most, **more, "description": about}


_WORKER: Final[dict[str, Schema]] = {
    "ackTimeout": _number(
        "ackTimeout",
        "Milliseconds until a pushed job of which nothing is heard goes back; 0: never.",
        _DEFAULTS.ack_timeout,
    ),
    "confirm": {"enum": [0, 1], "default": 0, "description": "1: each final answer is confirmed by `finished`."},
    "lockDuration": _number(
        "lockDuration", "Milliseconds that a job's lock lasts; it is renewed at half of them.", _DEFAULTS.lock_duration
    ),
    "stalledInterval": _number(
        "stalledInterval",
        "Milliseconds between BullMQ's checks for jobs without a lock. Connections that differ share the shortest.",
        _DEFAULTS.stalled_interval,
    ),
    "maxStalledCount": _number(
        "maxStalledCount", "A job that has lost its worker more often than this fails.", _DEFAULTS.max_stalled_count
    ),
    "limiter.max": _number(
        "limiter.max", "Most jobs per `limiter.duration`, over all workers of the queue; both or none."
    ),
    "limiter.duration": _number("limiter.duration", "Milliseconds that `limiter.max` is for."),
    "removeOnComplete": _KEEP,
    "removeOnFail": _KEEP,
    "name": {"type": "string", "description": "This worker's name, which BullMQ stores as the job's `processedBy`."},
    "metrics.maxDataPoints": _number(
        "metrics.maxDataPoints",
        "Minutes for which `getMetrics` keeps the numbers of this worker's finished jobs; 0: none are kept.",
        _DEFAULTS.max_data_points,
    ),
}
_EVENTS: Final[dict[str, Schema]] = {
    "events": {
        "type": "string",
        "default": "*",
        "description": "Names with commas between them, `*` for all, `custom:NAME` for an event of a producer's own.",
    },
    "lastEventId": {
        "type": "string",
        "pattern": "^[0-9]{1,20}(-[0-9]{1,20})?$",
        "description": "A stream id: first come the events after it, then the new ones.",
    },
}

_QUEUE: Final = {
    "description": "The queue's name, percent-encoded UTF-8; of any characters but `:`.",
    "examples": ["mails"],
}
PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "queue": _QUEUE,
    "concurrency": {
        "description": "How many jobs this client may hold at a time.",
        "default": "1",
        "examples": ["10"],
    },
}

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
    """The gateway as a server."""
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


def options_of(kind: Endpoint) -> dict[str, Schema]:
    """The schemas of the options that the query string of a connection may have."""
    about = {"token": _TOKEN, **{Endpoint.WORKER: _WORKER, Endpoint.EVENTS: _EVENTS}.get(kind, {})}
    return {name: about.get(name, {"type": "string"}) for name in known_options(kind)}


def query_binding(kind: Endpoint) -> dict[str, Any]:
    """The options of a connection as the binding of its channel; unknown ones are refused."""
    query = {"type": "object", "properties": options_of(kind), "additionalProperties": False}
    return {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}}


def parameters(path: str) -> dict[str, dict[str, Any]]:
    """The parameters in a path."""
    return {name: about for name, about in PARAMETERS.items() if f"{{{name}}}" in path}
