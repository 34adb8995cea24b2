"""Flows: trees of jobs in which each job waits for its children. What a client sends, checked and laid out in order."""

from __future__ import annotations

import itertools
import uuid
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct, field

from bullmq_proxy.gateway.errors import GatewayError, invalid_arguments
from bullmq_proxy.gateway.rules.ids import check_queue_name
from bullmq_proxy.gateway.rules.jobs import EMPTY_OBJECT, created_job
from bullmq_proxy.gateway.rules.options import NO_OPTIONS, JobOptions, OptionsCache, OptionsText, Prepared, now_ms
from bullmq_proxy.gateway.values.json_text import UNREADABLE, encode, encode_as_node, error_json
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.text import as_argument_of_node, as_packed_by_node, bytes_of
from bullmq_proxy.gateway.values.validation import read

MAX_DEPTH: Final = 200
"""Levels of a flow. A level is two of JSON; some 490 of these is what Python's JSON parsers can take."""

MOST_ADDED: Final = 500
"""Jobs of one call, in all its flows: they are checked and stored in one go."""

Prefix = Annotated[str, Meta(min_length=1)]


class FlowNode(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """One job of a flow, with the jobs that it waits for."""

    name: str
    queue_name: str
    data: Raw = EMPTY_OBJECT
    prefix: Prefix | None = None
    opts: OptionsText = NO_OPTIONS
    children: list[FlowNode] | None = None


Defaults = Mapping[str, JobOptions]
"""Job options by queue name, for what a node's own options leave out."""


_NONE_YET: Final = Prepared(packed=b"", shown=b"")


class FlowJob(Struct, eq=False, weakref=True):
    """A checked node: one job to add.

    Attributes:
        node: as the client sent it.
        prefix: of its queue.
        place: in the arguments.
        above: the node above, which is not held by those below; None for a root.
        id: chosen by the client, or made here.
        is_own_id: the client chose it, so that the job may be there already.
        key: of the job's hash.
        options: its own with the defaults, checked.
        timestamp: of the job, in milliseconds.
        children: the nodes below.
        own_options: as the client sent them, by name.
    """

    node: FlowNode
    prefix: str
    place: str
    above: weakref.ref[FlowJob] | None
    id: str = ""
    is_own_id: bool = False
    key: str = ""
    options: Prepared = _NONE_YET
    timestamp: int = 0
    children: list[FlowJob] = field(default_factory=list)
    own_options: dict[str, Raw] = field(default_factory=dict)

    @property
    def parent(self) -> FlowJob | None:
        """The node above; None for a root."""
        return self.above() if self.above is not None else None

    @property
    def queue(self) -> str:
        """The queue's name."""
        return as_argument_of_node(self.node.queue_name)

    @property
    def qualified(self) -> str:
        """The queue's name with its prefix."""
        return f"{self.prefix}:{self.queue}"


def plan(
    roots: Sequence[tuple[FlowNode, str]], *, prefix: str, max_queue_name: int, defaults: Defaults | None = None
) -> list[FlowJob]:
    """Check whole flows and lay out their jobs in the order of Node's BullMQ: level by level, parents first.

    Args:
        roots: of the flows, each with its place in the arguments.
        prefix: of the queues whose nodes name none.
        max_queue_name: most characters of a queue's name.
        defaults: options by queue name.

    Raises:
        GatewayError: INVALID_ARGUMENTS that names the place, or in Node's words where Node checks too.
    """
    jobs = list(itertools.islice(_lay_out(roots, prefix, max_queue_name), MOST_ADDED + 1))
    if len(jobs) > MOST_ADDED:
        raise invalid_arguments(
            f"There are more than {MOST_ADDED} jobs: add fewer flows in a call, or smaller ones - at `args[0]`"
        )
    for job in jobs:
        if job.children and not _is_falsy(job.own_options.get("deduplication")):
            raise _no_deduplication()
    cache = OptionsCache()  # brothers and sisters often have the same options
    stored = {name: _raw_members(options) for name, options in (defaults or {}).items()}
    for job in jobs:
        _prepare(job, stored.get(job.queue, {}), cache)
    return jobs


def _lay_out(roots: Sequence[tuple[FlowNode, str]], prefix: str, max_queue_name: int) -> Iterator[FlowJob]:
    """Return all nodes, level by level, with what can be said of each alone."""
    level = deque(FlowJob(node, node.prefix or prefix, place, None) for node, place in roots)
    depth = 1
    while level:
        if depth > MAX_DEPTH:
            raise invalid_arguments(f"A flow can have {MAX_DEPTH} levels - at `{level[0].place}`")
        for _ in range(len(level)):
            job = level.popleft()
            check_queue_name(job.queue, max_queue_name, f"`{job.place}.queueName`")
            job.own_options = _read_options(job)
            job.children = [
                FlowJob(child, child.prefix or prefix, f"{job.place}.children[{index}]", weakref.ref(job))
                for index, child in enumerate(job.node.children or ())
            ]
            level.extend(job.children)
            yield job
        depth += 1


_options: Final[Reader[dict[str, Raw] | None]] = Reader(dict[str, Raw] | None)


def _read_options(job: FlowJob) -> dict[str, Raw]:
    options = read(_options, job.node.opts, f"{job.place}.opts") or {}
    return {name: text for name, text in options.items() if bytes(memoryview(text)[:5]) != b"null"}


def _raw_members(options: JobOptions) -> dict[str, Raw]:
    return {name: Raw(encode_as_node(value)) for name, value in msgspec.to_builtins(options).items()}


def _prepare(job: FlowJob, defaults: dict[str, Raw], cache: OptionsCache) -> None:
    """Give a job its id and its options; its parent has them already."""
    own, parent, node = job.own_options, job.parent, job.node
    options = {**defaults, **own}
    for name in ("parent", "telemetry"):  # Node takes these from no defaults
        if name not in own:
            options.pop(name, None)
    if parent is not None:
        options["parent"] = Raw(encode_as_node({"id": parent.id, "queue": parent.qualified}))
    if "parent" in options and _keeps_last(options.get("deduplication")):
        raise invalid_arguments("keepLastIfActive deduplication cannot be used on flow nodes with a parent")
    prepared = cache.prepare(Raw(encode(options)), f"{job.place}.opts", name=node.name, data=node.data, bulk=True)
    if job.children and prepared.deduplication_id is not None:  # by the defaults: its children would find no parent
        raise _no_deduplication()
    own_id = as_packed_by_node(_text(own.get("jobId")))
    job.id = own_id or str(uuid.uuid4())
    job.is_own_id = bool(own_id)
    job.key = f"{job.qualified}:{job.id}"
    job.options = prepared
    job.timestamp = prepared.timestamp or now_ms()
    if job.is_own_id and _waits_for_itself(job):
        raise invalid_arguments(f"A job cannot wait for itself - at `{job.place}.opts.jobId`")


def _waits_for_itself(job: FlowJob) -> bool:
    """Such a job never runs, and BullMQ's scripts do not survive it when it is removed."""
    above = job
    while above.parent is not None:
        above = above.parent
        if above.key == job.key:
            return True
    return above.options.parent_key == job.key


def _no_deduplication() -> GatewayError:
    return invalid_arguments("Deduplication options cannot be used on flow nodes with children")


def _is_falsy(text: Raw | None) -> bool:
    return text is None or bytes(text) in (b"null", b"false", b"0", b'""')


class _Deduplication(Struct, rename="camel"):
    keep_last_if_active: Any = None


_deduplication: Final[Reader[_Deduplication]] = Reader(_Deduplication)


def _keeps_last(deduplication: Raw | None) -> bool:
    if deduplication is None:
        return False
    try:
        return bool(_deduplication.read(deduplication).keep_last_if_active)
    except UNREADABLE:  # the check of all options says what is wrong
        return False


def _text(text: Raw | None) -> str:
    """Return a JSON string that has been checked."""
    return "" if text is None or bytes(text) == b"null" else _string.read(text)


_string: Final[Reader[str]] = Reader(str, packed=True)


# What comes back


class Added(Struct, frozen=True):
    """What became of one job of a flow.

    Attributes:
        id: the job's; the other one's where it was deduplicated.
        duplicate: it was there already, or was deduplicated.
        error: why BullMQ did not add it.
    """

    id: str
    duplicate: bool = False
    error: GatewayError | None = None


def added_flow(root: FlowJob, outcome: Mapping[FlowJob, Added]) -> Iterator[bytes | Raw]:
    """Return the JSON text of an added flow, in parts: `{"job": …, "children": […]}`, as Node returns it.

    Beside the job of a node stands `err` where BullMQ did not add it.
    """
    todo: list[FlowJob | bytes] = [root]  # no recursion: flows are deep
    while todo:
        job = todo.pop()
        if isinstance(job, bytes):
            yield job
            continue
        added = outcome[job]
        yield b'{"job":'
        yield from created_job(
            bytes_of(added.id),
            job.node.name,
            job.node.data,
            job.options,
            job.timestamp,
            job.qualified,
            duplicate=added.duplicate,
        )
        if added.error is not None:
            yield b',"err":%b' % error_json(added.error)
        if not job.children:
            yield b"}"
            continue
        yield b',"children":['
        todo.append(b"]}")
        for index, child in reversed(list(enumerate(job.children))):
            todo.append(child)
            if index:
                todo.append(b",")


def parse_child_key(key: str) -> tuple[str, str, str]:
    """Prefix, queue and id of a job's key: split at the last two colons, as Node does."""
    parts = key.rsplit(":", 2)
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    prefix, _, queue = key.partition(":")
    return prefix, queue, ""
