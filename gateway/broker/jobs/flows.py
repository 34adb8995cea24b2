"""Flows: a tree of jobs, across queues, is added in one transaction and read level by level."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, cast

from msgspec import Raw, Struct

from bullmq_proxy.gateway.access.grants import Grant
from bullmq_proxy.gateway.broker.jobs.add_if_absent import AddIfAbsent
from bullmq_proxy.gateway.broker.jobs.queue import Queue, Queues, adder
from bullmq_proxy.gateway.broker.jobs.replies import Reply, scan
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink
from bullmq_proxy.gateway.broker.redis.errors import is_forgotten, reply_error
from bullmq_proxy.gateway.broker.redis.socket import Sink, pack_command, packable
from bullmq_proxy.gateway.errors import GatewayError, finished_error, invalid_arguments
from bullmq_proxy.gateway.rules.flow import Added, FlowJob, added_flow, parse_child_key
from bullmq_proxy.gateway.rules.jobs import loaded_job, to_hash
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.rules.shapes import Flow, Job
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.values.slots import ONE_SLOT
from bullmq_proxy.gateway.values.text import text_of

MOST_JOBS: Final = 10_000
"""Jobs that one `getFlow` reads: with enough levels and children there is no end to them, least of all in a circle."""

_LESS: Final = "`args[0].depth`, `args[0].maxChildren`"
_ROUND: Final = 200  # jobs whose children are looked up in one round trip
_HOLD: Final = ""  # among the keys of a parent's pending children
_MULTI: Final = pack_command("MULTI")
_EXEC: Final = pack_command("EXEC")


class Flows:
    """The flows of one shard; queues of any prefix."""

    def __init__(self, queues: Queues, max_queue_name: int) -> None:
        """Make the flows over `queues`; `max_queue_name` is the most characters of a queue's name."""
        self.max_queue_name = max_queue_name
        self.prefix = queues.prefix
        self._queues = queues
        self.link = queues.link

    def add(self, jobs: list[FlowJob], sink: Sink) -> None:
        """Store one flow and give its JSON text, in parts, to `sink`; or the GatewayError that stopped its root.

        What stops another job shows beside it: neither BullMQ nor we take the others back.

        Args:
            jobs: as `gateway.rules.flow.plan` lays them out.
            sink: takes the text.
        """

        def shown(outcome: dict[FlowJob, Added]) -> Any:
            return outcome[jobs[0]].error or tuple(added_flow(jobs[0], outcome))

        self._transact(jobs, shown, sink)

    def add_bulk(self, jobs: list[FlowJob], sink: Sink) -> None:
        """Store several flows in one transaction and give the JSON text of the array to `sink`.

        A root that BullMQ refuses shows its error beside it, as the other jobs do.
        """

        if jobs:
            self._transact(jobs, lambda outcome: tuple(_array(jobs, outcome)), sink)
        else:
            sink(b"[]")

    def _transact(self, jobs: list[FlowJob], shown: Callable[[dict[FlowJob, Added]], Any], sink: Sink) -> None:
        queues = {(job.prefix, job.queue): self._queues.get(job.queue, job.prefix) for job in jobs}
        link = queues[jobs[0].prefix, jobs[0].queue].link
        if any(queue.link is not link for queue in queues.values()):
            raise invalid_arguments(f"{ONE_SLOT} - at `{jobs[0].place}`")
        for queue in queues.values():
            queue.introduce()
        if (replicas := self._queues.replicas) is not None:
            sink = partial(replicas.hold, link, jobs[0].prefix, sink)

        def take(outcome: dict[FlowJob, Added] | GatewayError) -> None:
            sink(outcome if isinstance(outcome, GatewayError) else shown(outcome))

        _Transaction(link, jobs, queues, take).send()

    async def first_changed(self, jobs: Sequence[FlowJob]) -> FlowJob | None:
        """Return the first of some jobs that is there already and would get another parent, or a further child."""
        parents: dict[str, str | None] = {}  # of those that are there
        family = list(dict.fromkeys([job.key for job in jobs] + [child.key for job in jobs for child in job.children]))
        for start in range(0, len(family), _ROUND):
            some = family[start : start + _ROUND]
            found = await asyncio.gather(*(self.link.of(key).call("HMGET", key, "name", "parentKey") for key in some))
            parents.update((key, parent) for key, (name, parent) in zip(some, found, strict=True) if name is not None)
        for job in jobs:
            if job.key in parents and (
                job.options.parent_key not in (None, parents[job.key])
                or any(parents.get(child.key) != job.key for child in job.children)
            ):
                return job
        return None

    # Reading

    async def read(self, root: JobRef, depth: int, most: int, grant: Grant) -> Flow | None:
        """Return the flow below a job; None where that job is missing.

        Args:
            root: the job.
            depth: levels to read, the root's included.
            most: children to ask for of each kind, where Redis does not give all of them anyway.
            grant: must allow each queue that a job is read from.

        Raises:
            GatewayError: FORBIDDEN, or INVALID_ARGUMENTS when there are more than `MOST_JOBS`.
        """
        top: list[Flow | None] = [None]
        level = [_Reading(root, top, 0)]
        count = 1
        async with Reply(self._queues.get(root.queue, root.prefix), f"ask for less - at {_LESS}") as reply:
            while level:
                grant.check_reach(self.prefix, {reading.spot.qualified for reading in level})
                depth -= 1
                parents: list[_Reading] = []
                keys = [reading.spot.key for reading in level]
                readings = iter(level)
                async for _, flat in reply.read("readJobs", "", keys):
                    reading = next(readings)
                    if flat:
                        reading.fill(flat)
                        parents.append(reading)
                level = []
                step = max(min(_ROUND, MOST_JOBS // most), 1)
                for start in range(0, len(parents) if depth else 0, step):
                    some = parents[start : start + step]
                    for reading, children in zip(some, await self._children(some, most), strict=True):
                        count += len(children)
                        if count > MOST_JOBS:
                            raise invalid_arguments(f"There are more than {MOST_JOBS} jobs: ask for less - at {_LESS}")
                        level += reading.place(children)
        return top[0]

    async def _children(self, parents: Sequence[_Reading], most: int) -> list[list[str]]:
        """Return the keys of the children of some jobs, read in one round trip."""
        queue = self._queues.get(parents[0].spot.queue, parents[0].spot.prefix)
        replies = await asyncio.gather(
            *(
                look
                for key in (reading.spot.key for reading in parents)
                for look in (
                    scan(queue, "HSCAN", f"{key}:processed", 0, most),
                    scan(queue, "SSCAN", f"{key}:dependencies", 0, most),
                    queue.link.call("ZRANGE", f"{key}:unsuccessful", 0, most - 1, decode=False),
                    scan(queue, "HSCAN", f"{key}:failed", 0, most),
                )
            )
        )
        return [
            [text_of(key) for key in (*processed[1], *pending[1], *failed, *ignored[1])]
            for processed, pending, failed, ignored in zip(*(replies[kind::4] for kind in range(4)), strict=True)
        ]


class JobRef(Struct, frozen=True):
    """Where a job lies; `id` as it was asked for."""

    prefix: str
    queue: str
    id: str | int

    @property
    def qualified(self) -> str:
        """The queue's name with its prefix."""
        return f"{self.prefix}:{self.queue}"

    @property
    def key(self) -> str:
        """Of the job's hash."""
        return f"{self.qualified}:{self.id}"


class _Reading(Struct, frozen=True):
    """A job that is to be read, and its place among its parent's children."""

    spot: JobRef
    into: list[Flow | None]
    index: int

    def fill(self, hash: list[bytes]) -> None:
        """Put the job where it belongs."""
        job = loaded_job(str(self.spot.id), to_hash(hash), self.spot.qualified)
        job["id"] = self.spot.id
        self.into[self.index] = {"job": cast("Job", Raw(encode(job)))}

    def place(self, keys: Sequence[str]) -> list[_Reading]:
        """Make places for the job's children, and return them, to be read."""
        flow = self.into[self.index]
        if not keys or flow is None:
            return []
        children: list[Flow | None] = [None] * len(keys)
        flow["children"] = children
        return [_Reading(JobRef(*parse_child_key(key)), children, index) for index, key in enumerate(keys)]


def _array(jobs: list[FlowJob], outcome: dict[FlowJob, Added]) -> Iterator[bytes | Raw]:
    separator = b"["
    for job in jobs:
        if job.parent is None:
            yield separator
            yield from added_flow(job, outcome)
            separator = b","
    yield b"]"


class _Transaction:
    """All jobs of some flows in one MULTI … EXEC, parents first.

    A child that is there already and completed makes BullMQ's script let its parent go once nothing else is pending:
    too early, while the parent's other children are still to come. An empty text among the pending ones holds it until
    all are there. Children with new ids are pending, so that only parents of others need this.
    """

    def __init__(
        self, link: CommandLink, jobs: list[FlowJob], queues: dict[tuple[str, str], Queue], sink: Sink
    ) -> None:
        self._link = link
        self._jobs = jobs
        self._queues = queues
        self._scripts = next(iter(queues.values())).scripts  # all queues have the same
        self._sink = sink
        self._held = _held_parents(jobs)
        self._known: set[FlowJob] = set()  # that were there before
        self._watched: list[AddIfAbsent] = []  # one for each job
        self._first = 0  # reply that is about a job
        self._full = False
        self._texts: set[str] = set()  # scripts whose text is in this transaction

    def send(self) -> None:
        """Send it; once more, with the scripts' texts, if Redis has forgotten one."""
        hold = [pack_command("SADD", f"{key}:dependencies", _HOLD) for key in self._held]
        self._watched.clear()
        add = [command for job in self._jobs for command in self._add(job)]
        release = [command for key, children in self._held.items() for command in self._release(key, children)]
        self._first = len(hold)
        commands = (_MULTI, *hold, *add, *release, _EXEC)
        self._link.send(b"".join(commands), self._replied, replies=len(commands))

    def _add(self, job: FlowJob) -> Iterator[bytes]:
        """Return the call of the script that stores the job, with what stands around it."""
        queue = self._queues[job.prefix, job.queue]
        script = "addParentJob" if job.children else adder(job.options)
        args = queue.add_args(job.id, job.node.name, job.node.data, job.options, job.timestamp)
        watched = AddIfAbsent(queue.base, job.id, job.options, job.timestamp, is_own=job.is_own_id)
        self._watched.append(watched)
        return watched.commands(self._run(script, queue.adder_keys[script], packable(args)), self._run)

    def _release(self, key: str, children: list[FlowJob]) -> Iterator[bytes]:
        parent = children[0].options.parent
        assert parent is not None
        yield pack_command("SREM", f"{key}:dependencies", _HOLD)
        keys = [key, *(child.key for child in children)]
        yield self._run("releaseFlowParent", keys, [parent["queueKey"], parent["id"], now_ms()])

    def _run(self, script: str, keys: list[Any], args: list[Any]) -> bytes:
        full = self._full and script not in self._texts  # the text makes Redis know the hash
        self._texts.add(script)
        return self._scripts[script].pack(keys, args, full=full)

    def _replied(self, replies: Any) -> None:
        if isinstance(replies, Exception):
            self._sink(reply_error(replies))
            return
        if not self._full and any(is_forgotten(reply) for reply in replies):
            # What was stored is found there again: all jobs have their ids.
            self._collect(replies)
            self._full = True
            self._texts.clear()
            self.send()
            return
        outcome = self._collect(replies)
        for job, added in outcome.items():
            if added.error is None and not added.duplicate:
                self._queues[job.prefix, job.queue].counts.add()
        self._sink(outcome)

    def _collect(self, replies: list[Any]) -> dict[FlowJob, Added]:
        outcome = {}
        rest = iter(replies[self._first :])
        for job, watched in zip(self._jobs, self._watched, strict=True):
            reply, is_duplicate = watched.take(rest)
            if not self._full and is_duplicate:
                self._known.add(job)
            outcome[job] = _added(job, reply, duplicate=job in self._known)
        return outcome


def _held_parents(jobs: list[FlowJob]) -> dict[str, list[FlowJob]]:
    """Return the parents with children that may be there already, by key, with all their children in these flows."""
    parents: dict[str, list[FlowJob]] = {}
    for job in jobs:
        if job.options.parent_key is not None:
            parents.setdefault(job.options.parent_key, []).append(job)
    return {key: children for key, children in parents.items() if any(child.is_own_id for child in children)}


def _added(job: FlowJob, reply: Any, *, duplicate: bool) -> Added:
    if isinstance(reply, bytes):
        return Added(text_of(reply), duplicate)
    if isinstance(reply, int):
        return Added(
            job.id, error=finished_error(reply, command="addJob", job_id=job.id, parent_key=job.options.parent_key)
        )
    return Added(job.id, error=reply_error(reply))
