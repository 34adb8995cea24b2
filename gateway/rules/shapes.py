"""What results look like: the types that the functions' documentation and schemas are made of.

Members that Node leaves out when they are undefined are `NotRequired`.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from msgspec import Raw

from bullmq_proxy.gateway.access.grants import Permission


class JobParent(TypedDict):
    """The job that waits for this one, with the flags of what its failure means to the parent."""

    id: str
    queueKey: str
    fpof: NotRequired[bool]
    rdof: NotRequired[bool]
    idof: NotRequired[bool]
    cpof: NotRequired[bool]


class Job(TypedDict):
    """A job as Node's `Job.toJSON` shows it. Times in milliseconds since 1970; null where Node has NaN.

    Attributes:
        data: as the producer wrote it.
        opts: under the names of the job options; `attempts` is always there.
        progress: as a worker wrote it; 0 before.
        returnvalue: of a completed job, as its worker wrote it.
        stacktrace: of its failures.
        delay: in milliseconds.
        attempts_started: how often a worker has started it.
        attempts_made: how often it was finished, or has failed.
        stalled_counter: how often it has lost its worker.
        repeat_job_key: of the job scheduler that it comes from.
        timestamp: when it was created.
        parent_key: of the job that waits for this one, `<prefix>:<queue>:<id>`.
        queue_qualified_name: `<prefix>:<queue>`.
        finished_on: when it was completed, or has failed.
        processed_on: when a worker took it last.
        failed_reason: of its last failure.
        deferred_failure: why it will fail as soon as a worker takes it.
        processed_by: the name of the worker that took it.
    """

    name: NotRequired[str]
    data: Raw
    opts: Raw
    id: str | int
    progress: NotRequired[Raw]
    returnvalue: NotRequired[Raw]
    stacktrace: NotRequired[list[Any] | None]
    delay: NotRequired[int | None]
    priority: int | None
    attemptsStarted: int | None
    attemptsMade: int | None
    stalledCounter: int | None
    repeatJobKey: NotRequired[str]
    timestamp: int | None
    parentKey: NotRequired[str]
    parent: NotRequired[JobParent]
    deduplicationId: NotRequired[str]
    queueQualifiedName: str
    finishedOn: NotRequired[int]
    processedOn: NotRequired[int]
    failedReason: NotRequired[str]
    deferredFailure: NotRequired[str]
    processedBy: NotRequired[str]


class AddedJob(Job):
    """A job that was added; with `duplicate` nothing was, it or its deduplication id was there already."""

    duplicate: NotRequired[bool]


class JobError(TypedDict):
    """Why a job was not added; `code` is an error code."""

    message: str
    code: str


class AddedFlow(TypedDict):
    """An added job with its children; with `err` it was not added, or did not get its parent."""

    job: AddedJob
    err: NotRequired[JobError]
    children: NotRequired[list[AddedFlow]]


class Flow(TypedDict):
    """A job with its children; null stands for one that was removed."""

    job: Job
    children: NotRequired[list[Flow | None]]


class LockedJob(Job):
    """A job that is locked under `token`; one with a `deferredFailure` has failed already and is only to be moved."""

    token: str


class RefusedJob(TypedDict):
    """Stands in the place of a job that BullMQ did not take."""

    err: JobError


class JobLogs(TypedDict):
    """The rows that were logged for a job, and how many there are."""

    logs: list[str]
    count: int


class JobDependencies(TypedDict):
    """A job's children by their keys, `<prefix>:<queue>:<id>`.

    `processed`: return values; `ignored`: why they failed; a cursor of 0 says that there is no further page.
    """

    processed: NotRequired[dict[str, Raw]]
    nextProcessedCursor: NotRequired[int]
    unprocessed: NotRequired[list[str]]
    nextUnprocessedCursor: NotRequired[int]
    ignored: NotRequired[dict[str, str]]
    nextIgnoredCursor: NotRequired[int]
    failed: NotRequired[list[str]]
    nextFailedCursor: NotRequired[int]


class JobDependenciesCount(TypedDict):
    """How many children a job has of each kind."""

    processed: NotRequired[int]
    unprocessed: NotRequired[int]
    ignored: NotRequired[int]
    failed: NotRequired[int]


class QueueMeta(TypedDict):
    """A queue's global configuration; fields that others have put there come beside it, as strings."""

    version: NotRequired[str]
    concurrency: NotRequired[int | float | None]
    maxLenEvents: NotRequired[int | float | None]
    max: NotRequired[int | float | None]
    duration: NotRequired[int | float | None]
    paused: bool


class RateLimit(TypedDict):
    """At most `max` jobs start in `duration` ms."""

    max: int | float | None
    duration: int | float | None


class MetricsMeta(TypedDict):
    """How far the counting is: jobs so far, and time (ms since 1970) and count at the end of the last full minute."""

    count: int | None
    prevTS: int | None
    prevCount: int | None


class Metrics(TypedDict):
    """Finished jobs by the minute, the newest minute first; `count` is how many minutes are kept."""

    meta: MetricsMeta
    data: list[int | float]
    count: int


class Dependency(TypedDict):
    """A child by its key, with the JSON of its result once it is processed; `err` when that is no JSON."""

    id: str
    v: NotRequired[Raw]
    err: NotRequired[str]


class RawJob(TypedDict):
    """A job with `data`, `stacktrace` and `returnvalue` as the JSON text that is stored, and without its id."""

    id: NotRequired[str]
    name: NotRequired[str]
    data: str
    opts: Raw
    progress: Raw
    delay: int | None
    priority: int | None
    timestamp: int | None
    attemptsStarted: int | None
    attemptsMade: int | None
    stalledCounter: int | None
    finishedOn: NotRequired[int | None]
    processedOn: NotRequired[int | None]
    repeatJobKey: NotRequired[str]
    debounceId: NotRequired[str]
    deduplicationId: NotRequired[str]
    failedReason: NotRequired[str]
    deferredFailure: NotRequired[str]
    stacktrace: NotRequired[str]
    returnvalue: NotRequired[str]
    parentKey: NotRequired[str]
    parent: NotRequired[JobParent]
    processedBy: NotRequired[str]


class Dependencies(TypedDict):
    """Children of a job, `total` of them in all."""

    items: list[Dependency]
    jobs: list[RawJob]
    total: int


class CancelledJob(TypedDict):
    """What has become of a job that was taken from its holder.

    Attributes:
        delivered: whether the client that held it was sent `cancel`.
    """

    delivered: bool
    state: Literal["failed", "waiting"]


class ShownConsumer(TypedDict):
    """A Worker connection, or a webhook worker. Times in milliseconds since 1970.

    Attributes:
        key: the name of its key; empty for one of `auth_keys`, and for a webhook worker.
        name: the connection's option, at most 100 characters of it, or null; that of the webhook worker.
        concurrency: how many jobs it may hold.
        inHand: how many it holds.
        takesJobs: whether it gets new ones: it has not paused, is not silent, and nobody has drained it.
        connected: false while its jobs are kept for it after its connection broke.
        lastHeard: when anything came from it last, a pong for example, to half of `ping_interval`; for a webhook worker
            when its endpoint has answered last.
        webhook: whether it is a webhook worker: `drainConsumer` and `disconnectConsumer` do not know it.
    """

    id: str
    key: str
    name: str | None
    connectedSince: int
    concurrency: int
    inHand: int
    takesJobs: bool
    connected: bool
    lastHeard: int
    webhook: bool


class Consumers(TypedDict):
    """The Worker connections of a queue, and its webhook workers.

    Attributes:
        omitted: how many more there are, on shards that have more than 1000 of them.
        silent: how many shards have not answered in time; their consumers are missing here.
    """

    consumers: list[ShownConsumer]
    omitted: int
    silent: int


ConnectionKind = Literal["queue", "worker", "events", "flows", "http"]
"""What a client has connected to; `http` is one that makes requests, and `events` a stream of them, too."""


class ShownConnection(TypedDict):
    """A connection of a client. Times in milliseconds since 1970.

    Attributes:
        queue: null for one that is of no queue, such as one of flows.
        key: the name of its key; empty for one of `auth_keys`.
        host: the name of the machine that its gateway runs on.
        gateway: the gateway, as at the beginning of `id`.
        shard: the slot of its shard.
        address: of the client, or of the proxy before it; empty on a Unix socket.
        since: when it was made.
        inHand: jobs that a worker holds.
        concurrency: how many it may hold; null for one that is no worker.
        calls: without a reply.
        lag: bytes that were sent and that the client has not read.
    """

    id: str
    kind: ConnectionKind
    queue: str | None
    key: str
    host: str
    gateway: str
    shard: int
    address: str
    since: int
    inHand: int
    concurrency: int | None
    calls: int
    lag: int


class Connections(TypedDict):
    """Connections, the oldest one first.

    Attributes:
        omitted: how many more there are, beyond `limit`.
        silent: how many shards have not answered in time; their connections are missing here.
    """

    connections: list[ShownConnection]
    omitted: int
    silent: int


class History(TypedDict):
    """What has become of jobs in the last hour, in 360 steps of 10 seconds, the oldest one first.

    Attributes:
        step: milliseconds of a step.
        end: of the last step, which still goes on, in ms since 1970.
        added: new jobs.
        completed: jobs, for good, as the failed ones.
        failed: those that are not tried again.
        waited: mean milliseconds that jobs had waited which went to a worker for the first time; null for none.
        longest: that one of them had waited.
        kept: whether the queue is among the busiest ones, of which figures are kept; else all are zero.
    """

    step: int
    end: int
    added: list[int]
    completed: list[int]
    failed: list[int]
    waited: list[int | None]
    longest: list[int | None]
    kept: bool


class Scale(TypedDict):
    """The work of a queue.

    Attributes:
        value: jobs that need a worker now, or have one.
        oldest: milliseconds that the job next in line has waited; null where none waits.
        paused: whether it is paused.
        workers: Worker connections and webhook workers, on all gateways.
    """

    queue: str
    value: int
    oldest: int | None
    paused: bool
    workers: int


class Caller(TypedDict):
    """Whoever calls.

    Attributes:
        key: the name of the key; empty for one of `auth_keys`.
        permissions: that it has.
        queues: patterns of the queues that it is for; a `*` stands for any text.
    """

    key: str
    permissions: list[Permission]
    queues: list[str]


class FoundQueue(TypedDict):
    """A queue that is there, with what was asked for and can be told.

    Attributes:
        counts: the number of its jobs by state.
        oldest: milliseconds that the job next in line has waited; null where none waits.
        paused: whether it is paused.
        workers: Worker connections, and webhook workers.
        watchers: connections that watch it, and streams.
    """

    name: str
    counts: NotRequired[dict[str, int]]
    oldest: NotRequired[int | None]
    paused: NotRequired[bool]
    workers: NotRequired[int]
    watchers: NotRequired[int]


class FoundQueues(TypedDict):
    """A page of queues.

    Attributes:
        cursor: for the next page; null when there is none.
        silent: how many shards have not answered in time, where it was asked who is connected: who is there is missing.
    """

    queues: list[FoundQueue]
    cursor: str | None
    silent: NotRequired[int]


class SchedulerTemplate(TypedDict):
    """What a job scheduler makes its jobs of; members that are empty are left out."""

    data: NotRequired[Raw]
    opts: NotRequired[dict[str, Any]]


class JobScheduler(TypedDict):
    """A job scheduler. Times in milliseconds since 1970."""

    key: str
    name: NotRequired[str]
    next: int | None
    iterationCount: NotRequired[int | None]
    limit: NotRequired[int | None]
    startDate: NotRequired[int | None]
    endDate: NotRequired[int | None]
    tz: NotRequired[str]
    pattern: NotRequired[str]
    every: NotRequired[int | None]
    offset: NotRequired[int | None]
    template: NotRequired[SchedulerTemplate]


NextJob = list[RawJob | str | int | None]
"""Empty, or: the next job or null, its id, ms until a rate limit ends, when the next delayed job is due (0: none)."""
