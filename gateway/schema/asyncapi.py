"""The AsyncAPI document of the gateway, made from the tables of functions and from the types of all messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, assert_never

from bullmq_proxy.gateway import __version__
from bullmq_proxy.gateway.broker.functions.table import Function
from bullmq_proxy.gateway.schema import events_messages as events
from bullmq_proxy.gateway.schema import worker_messages as worker
from bullmq_proxy.gateway.schema.connections import SECURITY, parameters, query_binding, server
from bullmq_proxy.gateway.schema.docstrings import parse
from bullmq_proxy.gateway.schema.examples import Examples
from bullmq_proxy.gateway.schema.json_schema import Schema, Schemas, plain
from bullmq_proxy.gateway.schema.messages import (
    COMMON_SCHEMAS,
    ID,
    NUMBER,
    Message,
    described,
    envelope,
    error_codes,
    error_message,
    expires_message,
)
from bullmq_proxy.gateway.schema.tables import Api, groups
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint

_ABOUT: Final = """\
BullMQ queues over WebSockets. This document is written from the gateway's side: it *receives* requests and answers,
and *sends* replies, jobs and events.

Each message is one text frame with one JSON object of two members, `id` and `data`. A reply carries the `id` of its
request, and replies may come in another order than their requests. Members of `data` that are not listed here are
ignored.

An error is a message and one of these codes:

{codes}

A wrong key, path or option is refused before the connection opens, with an HTTP status and the same kind of error as
JSON. The codes with which connections are closed are under `x-close-codes`."""

Document = dict[str, Any]


def document(apis: Sequence[Api]) -> Document:
    """Return the document as JSON-like data.

    Args:
        apis: that consist of functions.
    """
    return _Document(apis).build()


def request_schema(function: Function, schemas: Schemas) -> Schema:
    """Return the schema of the `data` of a request."""
    doc = parse(function.doc)
    items = [_argument(parameter.name, schemas.of(parameter.type), doc.named) for parameter in function.parameters]
    args: Schema = {"type": "array"}
    if function.variadic:
        args["items"] = items[0]
    else:
        for parameter, item in zip(function.parameters, items, strict=True):
            if not parameter.required and (default := plain(parameter.default)) is not None:
                item["default"] = default
        if items:
            args["items"] = items
        args["maxItems"] = len(items)
    least = sum(parameter.required for parameter in function.parameters)
    if least:
        args["minItems"] = least
    return {
        "type": "object",
        "properties": {"fn": {"const": function.name}, "args": args},
        "required": ["fn", "args"] if least else ["fn"],
    }


def reply_schema(function: Function, schemas: Schemas) -> Schema:
    """Return the schema of the `data` of a reply that carries a result."""
    return {"type": "object", "properties": {"ok": schemas.of(function.result)}, "required": ["ok"]}


def _argument(name: str, schema: Schema, named: dict[str, str]) -> Schema:
    about = {"title": name, **({"description": named[name]} if name in named else {})}
    return {**about, "allOf": [schema]} if "$ref" in schema else {**about, **schema}


class _Document:
    def __init__(self, apis: Sequence[Api]) -> None:
        self._apis = apis
        self._schemas = Schemas()
        self._examples = Examples(self._schemas)
        self._channels: dict[str, Document] = {}
        self._operations: dict[str, Document] = {}

    def build(self) -> Document:
        """Return the whole document."""
        apis = {api.endpoint: api for api in self._apis}
        for endpoint in SessionEndpoint:
            self._add_channel(endpoint)
            match endpoint:
                case SessionEndpoint.QUEUE | SessionEndpoint.FLOWS:
                    self._add_functions(apis[endpoint])
                case SessionEndpoint.WORKER:
                    self._add_worker()
                case SessionEndpoint.EVENTS:
                    self._add_events()
                case _:
                    assert_never(endpoint)
        shared = {"error": error_message(self._schemas), "expires": expires_message(self._schemas)}
        return {
            "asyncapi": "3.0.0",
            "info": {
                "title": "bullmq-proxy",
                "version": __version__,
                "description": _ABOUT.format(codes=error_codes()),
                "license": {"name": "MIT"},
            },
            "defaultContentType": "application/json",
            "servers": {"gateway": server()},
            "channels": self._channels,
            "operations": self._operations,
            "components": {
                "schemas": {**COMMON_SCHEMAS, **self._schemas.components},
                "messages": shared,
                "correlationIds": {
                    "id": {"location": "$message.payload#/id", "description": "The same in a request and its reply."}
                },
                "securitySchemes": SECURITY,
            },
            "x-close-codes": {str(code.value): code.meaning for code in CloseCode},
        }

    # APIs that consist of functions

    def _add_functions(self, api: Api) -> None:
        for group in groups(api.table):
            for function in group.functions:
                self._add_function(api, function, group.title)

    def _add_function(self, api: Api, function: Function, group: str) -> None:
        doc = parse(function.doc)
        request, reply = f"{function.name}Request", f"{function.name}Reply"
        args = self._examples.arguments(function)
        result = self._schemas.of(function.result)
        asked = {"fn": function.name, **({"args": args} if args else {})}
        self._add_message(api.name, request, request_schema(function, self._schemas), asked)
        self._add_message(api.name, reply, reply_schema(function, self._schemas), {"ok": self._examples.of(result)})
        self._add_operation(
            f"{api.name}{function.name[0].upper()}{function.name[1:]}",
            api.name,
            "receive",
            [request],
            replies=[reply, "error"],
            title=function.signature,
            summary=doc.summary,
            description=whole_text(function),
            tags=[{"name": group}],
            **{"x-permission": function.needs, "x-writes": function.writes, "x-waits": function.waits},
        )

    def _add_message(self, channel: str, name: str, data: Schema, example: Any) -> None:
        self._channels[channel]["messages"][name] = {
            "name": name,
            "correlationId": {"$ref": "#/components/correlationIds/id"},
            "payload": envelope(ID, data),
            "examples": [{"payload": {"id": 1, "data": example}}],
        }

    # The other APIs

    def _add_worker(self) -> None:
        for message in (*worker.PUSHED, *worker.TOLD):
            self._add(message, "worker", id=NUMBER)
        for message in (*worker.REPORTS, *worker.ANSWERS, *worker.SETTLED, *worker.CONTROLS, *worker.DONE):
            self._add(message, "worker")
        names = [function.name for function in self._apis[0].table]
        call: Schema = {
            "type": "object",
            "properties": {"fn": {"enum": names}, "args": {"type": "array"}},
            "required": ["fn"],
        }
        self._add(Message("call", call, [{"fn": "count"}], id=1, about="A request of the Queue API."), "worker")
        result: Schema = {"type": "object", "properties": {"ok": {}}, "required": ["ok"]}
        self._add(Message("result", result, [{"ok": 7}], id=1, about="What the function returns."), "worker")

        self._add_operation(
            "workerPush",
            "worker",
            "send",
            _names(worker.PUSHED),
            replies=_names((*worker.REPORTS, *worker.ANSWERS)),
            summary="Give a job to the client, which answers with the id of this message",
        )
        self._add_operation(
            "workerReport",
            "worker",
            "receive",
            _names(worker.REPORTS),
            replies=["error"],
            summary="Hear of a job in hand; there is no reply when all is well",
        )
        self._add_operation(
            "workerAnswer",
            "worker",
            "receive",
            _names(worker.ANSWERS),
            replies=[*_names(worker.SETTLED), "error"],
            summary="Take a final answer; it is confirmed only on request",
        )
        self._add_operation(
            "workerTell", "worker", "send", _names(worker.TOLD), summary="Tell the client what it did not ask for"
        )
        self._add_operation(
            "workerControl",
            "worker",
            "receive",
            _names(worker.CONTROLS),
            replies=["done", "error"],
            summary="Stop or start taking jobs on this connection",
        )
        self._add_operation(
            "workerCall",
            "worker",
            "receive",
            ["call"],
            replies=["result", "error"],
            summary="Call a function of the Queue API",
        )

    def _add_events(self) -> None:
        shown = events.messages()
        for message in shown:
            self._add(message, "events", id=NUMBER)
        for message in (*events.CHANGES, *events.SUBSCRIBED, *events.RENEWAL, *events.RENEWED):
            self._add(message, "events")
        self._add_operation("eventsTell", "events", "send", _names(shown), summary="Tell what has happened")
        self._add_operation(
            "eventsSubscribe",
            "events",
            "receive",
            _names(events.CHANGES),
            replies=[*_names(events.SUBSCRIBED), "error"],
            summary="Change what is subscribed to",
        )
        self._add_operation(
            "eventsRenew",
            "events",
            "receive",
            _names(events.RENEWAL),
            replies=[*_names(events.RENEWED), "error"],
            summary="Take a fresh token",
        )

    # Parts

    def _add_channel(self, endpoint: SessionEndpoint) -> None:
        row, known = endpoint.value, parameters(endpoint)
        self._channels[endpoint.name.lower()] = {
            "address": row.path,
            "title": row.title,
            "summary": row.description,
            **({"parameters": known} if known else {}),
            "servers": [{"$ref": "#/servers/gateway"}],
            "bindings": query_binding(endpoint, self._schemas),
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in ("error", "expires")},
        }

    def _add(self, message: Message, channel: str, id: Schema = ID) -> None:
        self._channels[channel]["messages"][message.name] = described(message, self._schemas, id)

    def _add_operation(
        self, name: str, channel: str, action: str, messages: list[str], *, replies: Sequence[str] = (), **more: Any
    ) -> None:
        assert name not in self._operations, name
        place = f"#/channels/{channel}"
        operation = {
            "action": action,
            "channel": {"$ref": place},
            **more,
            "messages": [{"$ref": f"{place}/messages/{each}"} for each in messages],
        }
        if replies:
            operation["reply"] = {
                "channel": {"$ref": place},
                "messages": [{"$ref": f"{place}/messages/{each}"} for each in replies],
            }
        self._operations[name] = operation


def _names(messages: Iterable[Message]) -> list[str]:
    return [message.name for message in messages]


def whole_text(function: Function) -> str:
    """Return a function's docstring without its arguments, which stand in the schema."""
    doc = parse(function.doc)
    errors = "\n".join(f"* `{name}`: {about}" for name, about in doc.raises.items())
    parts = [*doc.paragraphs, f"Result: {doc.returns}" if doc.returns else "", f"Errors:\n\n{errors}" if errors else ""]
    return "\n\n".join(part for part in parts if part)
