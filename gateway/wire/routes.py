"""From a request target to an endpoint, its queue and its options."""

from __future__ import annotations

import re
from collections.abc import Container
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from msgspec import Struct
from msgspec.structs import replace

from bullmq_proxy.gateway.access.grants import Effect
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, invalid_arguments
from bullmq_proxy.gateway.rules.ids import check_queue_name
from bullmq_proxy.gateway.rules.trace_context import Headers
from bullmq_proxy.gateway.values.slots import check_tag
from bullmq_proxy.gateway.wire.connection_options import ARGS, TOKEN, Limits, Options
from bullmq_proxy.gateway.wire.endpoint_rows import PathParameter, shown
from bullmq_proxy.gateway.wire.endpoints import ENDPOINTS, OPENED, CallEndpoint, Endpoint, PageEndpoint, SessionEndpoint
from bullmq_proxy.gateway.wire.guest_endpoints import AncestorEndpoint, WorkersEndpoint


class Target(Struct, frozen=True):
    """A request target taken apart but not yet checked: enough to know whether a key is needed, and which one came."""

    endpoint: Endpoint
    path_parameters: dict[str, str]  # percent-encoded
    query: dict[str, str]
    accepts_json: bool = False  # and nothing else, as the ancestor's clients never do
    prefers_html: bool = False  # as browsers do; looked at where it matters
    trace: Headers | None = None  # that the request belongs to

    @property
    def token(self) -> str | None:
        """The key in the query string, if any."""
        return TOKEN.read(self.query)

    @property
    def function(self) -> str | None:
        """The name of the function in the path, if any."""
        return self.path_parameters.get(PathParameter.FUNCTION)

    @property
    def file(self) -> str:
        """The name of the file in the path."""
        return self.path_parameters[PathParameter.FILE]

    @property
    def args(self) -> str | None:
        """The arguments in the query string, if any."""
        return ARGS.read(self.query)

    @property
    def in_json(self) -> bool:
        """Whether the answer is ours; else it is text in the ancestor's form."""
        endpoint = self.endpoint
        if isinstance(endpoint, WorkersEndpoint):
            is_post = endpoint is WorkersEndpoint.POST_WORKER
            return not endpoint.has_ancestor or (self.accepts_json and not is_post)
        return not isinstance(endpoint, AncestorEndpoint)

    def refused(self, error: GatewayError) -> GatewayError:
        """Return an error in the form of the endpoint."""
        return error if self.in_json else AncestorError(error)


class RouteParameters(Struct, frozen=True):
    """The checked parameters of a target.

    Attributes:
        queue: empty where the endpoint is not of one queue.
        options: of the query string.
        effects: of these on the jobs of others.
    """

    queue: str
    options: Options
    effects: tuple[Effect, ...]


_PARAMETERS: Final = {f"{{{parameter}}}": parameter for parameter in PathParameter}
GUESTS: Final = AncestorEndpoint | WorkersEndpoint
_OF_GUESTS: Final = ("/queues/", "/workers/")  # paths on which a client of the ancestor's is answered in its form
_TEMPLATES: Final[dict[str, list[tuple[list[str], Endpoint]]]] = {}  # by their first segment, which is no parameter
for _endpoint in ENDPOINTS:
    for _path in _endpoint.value.paths:
        _TEMPLATES.setdefault(_path.split("/")[1], []).append((_path.split("/"), _endpoint))


class MethodNotAllowedError(GatewayError):
    """A path that is served, and a method that is not answered there; `methods` are."""

    def __init__(self, methods: tuple[str, ...]) -> None:
        super().__init__(ErrorCode.INVALID_MESSAGE, f"Only {', '.join(methods)} can be asked for here")
        self.methods = methods


class AncestorError(GatewayError):
    """An error at an endpoint of the ancestor's, which is told as text; `status` is that of the answer."""

    def __init__(self, error: GatewayError, status: HTTPStatus | None = None) -> None:
        super().__init__(error.code, error.message)
        self.status = error.code.http_status if status is None else status


def parse_target(target: str) -> Target:
    """Take the target of a request for a WebSocket or a page apart.

    Raises:
        GatewayError: NOT_FOUND, no endpoint has this path.
    """
    return _found(target, OPENED)[0]


def parse_request(method: str, target: str) -> Target:
    """Take the target of a plain request apart.

    Raises:
        GatewayError: NOT_FOUND, no endpoint has this path.
        MethodNotAllowedError: none of those that have it answers this method.
    """
    found = _found(target)
    for each in found:
        if method in each.endpoint.value.methods:
            return each
    raise MethodNotAllowedError(methods_of(target))


def methods_of(target: str) -> tuple[str, ...]:
    """Return the methods that are answered at a target; raises NOT_FOUND, as for any wrong one of the ancestor's."""
    found = _found(target)
    if isinstance(found[0].endpoint, GUESTS):
        raise AncestorError(GatewayError(ErrorCode.NOT_FOUND, "Not found"))
    return tuple(dict.fromkeys(name for each in found for name in each.endpoint.value.methods))


def is_of_session(target: str) -> bool:
    """Return whether a WebSocket can be opened at a target."""
    try:
        return isinstance(parse_target(target).endpoint, SessionEndpoint)
    except GatewayError:
        return False


def _found(target: str, endpoints: Container[Endpoint] = ENDPOINTS) -> list[Target]:
    """Return those of the endpoints that have the path of a target: one for WebSockets, and one for plain requests."""
    path, _, query = target.partition("?")
    segments = path.split("/")
    without_last_slash = path.removesuffix("/").split("/")  # which does not count for connections
    found: list[Target] = []
    for template, endpoint in _TEMPLATES.get(segments[1] if len(segments) > 1 else "", ()):
        given = without_last_slash if isinstance(endpoint, SessionEndpoint) else segments
        if endpoint not in endpoints or (parameters := _match(template, given)) is None:
            continue
        if isinstance(endpoint, GUESTS) and "" in parameters.values():
            continue
        if found and PathParameter.FUNCTION in parameters:  # `events`, `process`: not the name of a function
            continue
        found.append(Target(endpoint, parameters, {}))
    if not found:
        nothing = GatewayError(ErrorCode.NOT_FOUND, _NOTHING_HERE)
        raise AncestorError(nothing) if path.startswith(_OF_GUESTS) else nothing
    pairs = parse_qsl(query.partition("#")[0], keep_blank_values=True)
    last, first = dict(pairs), dict(reversed(pairs))  # the ancestor looks at the first one of a name
    return [replace(each, query=first if isinstance(each.endpoint, GUESTS) else last) for each in found]


def _match(template: list[str], segments: list[str]) -> dict[str, str] | None:
    """Return the parameters of a path that has the template's form."""
    if len(template) != len(segments):
        return None
    parameters = {}
    for expected, segment in zip(template, segments, strict=True):
        if (parameter := _PARAMETERS.get(expected)) is not None:
            parameters[parameter.value] = segment
        elif expected != segment:
            return None
    return parameters


def validate(target: Target, limits: Limits) -> RouteParameters:
    """Check the parameters of a target.

    Raises:
        GatewayError: INVALID_ARGUMENTS with the place and what would be right.
    """
    row = target.endpoint.value
    if isinstance(target.endpoint, WorkersEndpoint):  # the body may name the queue
        return RouteParameters("", None, ())
    if isinstance(target.endpoint, AncestorEndpoint):  # its session checks the rest, once it knows who asks
        return RouteParameters(decode_segment(target.path_parameters[PathParameter.QUEUE]), None, ())
    queue = ""
    if row.is_of_one_queue:
        queue = decode_name(target.path_parameters[PathParameter.QUEUE], "queue name")
        check_queue_name(queue, limits.max_queue_name, "the path")
        if limits.cluster_prefix is not None:
            check_tag(limits.cluster_prefix, queue, " - at the path")
    if row.options is None:
        return RouteParameters(queue, None, ())
    options = row.options.read(target.path_parameters, target.query, limits)
    return RouteParameters(queue, options, row.options.effects(target.query))


def decode_name(segment: str, of: str = "name") -> str:
    """Return a name in a path; raises INVALID_ARGUMENTS."""
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise invalid_arguments(f"The {of} is not percent-encoded UTF-8 - at the path") from None


def decode_segment(segment: str) -> str:
    """Return a name in a path of the ancestor's, which leaves some characters escaped (ECMA-262, `decodeURI`).

    Raises:
        GatewayError: INVALID_ARGUMENTS.
    """
    return decode_name(_LEFT.sub(r"%25\1", segment))


_LEFT: Final = re.compile("%(23|24|26|2B|2C|2F|3A|3B|3D|3F|40)", re.IGNORECASE)  # those of `#$&+,/:;=?@`


def _shown_paths(*endpoints: Endpoint) -> str:
    return ", ".join(dict.fromkeys(shown(endpoint.value.path) for endpoint in endpoints))


_NOTHING_HERE: Final = (
    f"Nothing here. WebSocket: {_shown_paths(*SessionEndpoint)}; plain HTTP: "
    f"{_shown_paths(*PageEndpoint, *CallEndpoint, *AncestorEndpoint, *WorkersEndpoint)}"
)
