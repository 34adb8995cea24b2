"""The types of arguments and results, as JSON has them.

Made from the code by `make docs`.
"""

# fmt: off
from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class AddedFlow(TypedDict):
    """An added job with its children; with `err` it was not added, or did not get its parent."""

    job: AddedJobJson
    err: NotRequired[JobError]
    children: NotRequired[list[AddedFlow]]


class AddedJobJson(TypedDict):
    """A job that was added; with `duplicate` nothing was, it or its deduplication id was there already."""

    name: NotRequired[str]
    data: Any
    opts: Any
    id: str | int
    progress: NotRequired[Any]
    returnvalue: NotRequired[Any]
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
    duplicate: NotRequired[bool]


class Backoff(TypedDict):
    """The wait before a retry: `fixed`, `exponential`, or a name that a custom worker knows. `delay` in ms."""

    type: str
    delay: NotRequired[int]
    jitter: NotRequired[float]


class BulkJob(TypedDict):
    """One entry of `addBulk`."""

    name: str
    data: NotRequired[Any]
    opts: NotRequired[JobOptions | None]


class Caller(TypedDict):
    """Whoever calls."""

    key: str
    """the name of the key; empty for one of `auth_keys`."""
    permissions: list[Literal["produce", "consume", "observe", "tune", "manage"]]
    """that it has."""
    queues: list[str]
    """patterns of the queues that it is for; a `*` stands for any text."""


class CancelOptions(TypedDict):
    """Options of `cancelJob`."""

    fail: NotRequired[bool]


class CancelledJob(TypedDict):
    """What has become of a job that was taken from its holder."""

    delivered: bool
    """whether the client that held it was sent `cancel`."""
    state: Literal["failed", "waiting"]


class ChildKey(TypedDict):
    """A child of a job. `queue` is the qualified name, `<prefix>:<queue>`."""

    id: str
    queue: str


class Connections(TypedDict):
    """Connections, the oldest one first."""

    connections: list[ShownConnection]
    omitted: int
    """how many more there are, beyond `limit`."""
    silent: int
    """how many shards have not answered in time; their connections are missing here."""


class ConnectionsQuery(TypedDict):
    """Which connections: at most `limit` of them, those of one queue, or of one kind."""

    queue: NotRequired[str | None]
    kind: NotRequired[Literal["events", "flows", "http", "queue", "worker"] | None]
    limit: NotRequired[int]


class Consumers(TypedDict):
    """The Worker connections of a queue, and its webhook workers."""

    consumers: list[ShownConsumer]
    omitted: int
    """how many more there are, on shards that have more than 1000 of them."""
    silent: int
    """how many shards have not answered in time; their consumers are missing here."""


class Deduplication(TypedDict):
    """One job per id at a time. `ttl` in milliseconds."""

    id: NotRequired[str]
    ttl: NotRequired[int]
    extend: NotRequired[bool]
    replace: NotRequired[bool]
    reschedule: NotRequired[bool]
    keepLastIfActive: NotRequired[bool]


class Dependencies(TypedDict):
    """Children of a job, `total` of them in all."""

    items: list[Dependency]
    jobs: list[RawJob]
    total: int


class DependenciesCountOptions(TypedDict):
    """Options of `getJobDependenciesCount`: the kinds of children to count."""

    processed: NotRequired[bool]
    unprocessed: NotRequired[bool]
    ignored: NotRequired[bool]
    failed: NotRequired[bool]


class DependenciesOptions(TypedDict):
    """Options of `getJobDependencies`: the kinds of children to read, page by page."""

    processed: NotRequired[Page | None]
    unprocessed: NotRequired[Page | None]
    ignored: NotRequired[Page | None]
    failed: NotRequired[Page | None]


class Dependency(TypedDict):
    """A child by its key, with the JSON of its result once it is processed; `err` when that is no JSON."""

    id: str
    v: NotRequired[Any]
    err: NotRequired[str]


class Flow(TypedDict):
    """A job with its children; null stands for one that was removed."""

    job: JobJson
    children: NotRequired[list[Flow | None]]


class FlowNode(TypedDict):
    """One job of a flow, with the jobs that it waits for."""

    name: str
    queueName: str
    data: NotRequired[Any]
    prefix: NotRequired[str | None]
    opts: NotRequired[JobOptions | None]
    children: NotRequired[list[FlowNode] | None]


class FlowOptions(TypedDict):
    """Of a flow: options by queue name."""

    queuesOptions: NotRequired[dict[str, QueueOptions | None] | None]


class FlowQuery(TypedDict):
    """Which flow, and how much of it. `depth` counts levels; `maxChildren` is for each kind of children, about."""

    queueName: str
    id: str | int
    prefix: NotRequired[str | None]
    depth: NotRequired[int]
    maxChildren: NotRequired[int]


class FoundQueue(TypedDict):
    """A queue that is there, with what was asked for and can be told."""

    name: str
    counts: NotRequired[dict[str, int]]
    """the number of its jobs by state."""
    oldest: NotRequired[int | None]
    """milliseconds that the job next in line has waited; null where none waits."""
    paused: NotRequired[bool]
    """whether it is paused."""
    workers: NotRequired[int]
    """Worker connections, and webhook workers."""
    watchers: NotRequired[int]
    """connections that watch it, and streams."""


class FoundQueues(TypedDict):
    """A page of queues."""

    queues: list[FoundQueue]
    cursor: str | None
    """for the next page; null when there is none."""
    silent: NotRequired[int]
    """how many shards have not answered in time, where it was asked who is connected: who is there is missing."""


class History(TypedDict):
    """What has become of jobs in the last hour, in 360 steps of 10 seconds, the oldest one first."""

    step: int
    """milliseconds of a step."""
    end: int
    """of the last step, which still goes on, in ms since 1970."""
    added: list[int]
    """new jobs."""
    completed: list[int]
    """jobs, for good, as the failed ones."""
    failed: list[int]
    """those that are not tried again."""
    waited: list[int | None]
    """mean milliseconds that jobs had waited which went to a worker for the first time; null for none."""
    longest: list[int | None]
    """that one of them had waited."""
    kept: bool
    """whether the queue is among the busiest ones, of which figures are kept; else all are zero."""


class HistoryQuery(TypedDict):
    """Of which queue; of all, where none is named."""

    queue: NotRequired[str | None]


class JobJson(TypedDict):
    """A job as Node's `Job.toJSON` shows it. Times in milliseconds since 1970; null where Node has NaN."""

    name: NotRequired[str]
    data: Any
    """as the producer wrote it."""
    opts: Any
    """under the names of the job options; `attempts` is always there."""
    id: str | int
    progress: NotRequired[Any]
    """as a worker wrote it; 0 before."""
    returnvalue: NotRequired[Any]
    """of a completed job, as its worker wrote it."""
    stacktrace: NotRequired[list[Any] | None]
    """of its failures."""
    delay: NotRequired[int | None]
    """in milliseconds."""
    priority: int | None
    attemptsStarted: int | None
    """how often a worker has started it."""
    attemptsMade: int | None
    """how often it was finished, or has failed."""
    stalledCounter: int | None
    """how often it has lost its worker."""
    repeatJobKey: NotRequired[str]
    """of the job scheduler that it comes from."""
    timestamp: int | None
    """when it was created."""
    parentKey: NotRequired[str]
    """of the job that waits for this one, `<prefix>:<queue>:<id>`."""
    parent: NotRequired[JobParent]
    deduplicationId: NotRequired[str]
    queueQualifiedName: str
    """`<prefix>:<queue>`."""
    finishedOn: NotRequired[int]
    """when it was completed, or has failed."""
    processedOn: NotRequired[int]
    """when a worker took it last."""
    failedReason: NotRequired[str]
    """of its last failure."""
    deferredFailure: NotRequired[str]
    """why it will fail as soon as a worker takes it."""
    processedBy: NotRequired[str]
    """the name of the worker that took it."""


class JobDependencies(TypedDict):
    """A job's children by their keys, `<prefix>:<queue>:<id>`.

    `processed`: return values; `ignored`: why they failed; a cursor of 0 says that there is no further page.
    """

    processed: NotRequired[dict[str, Any]]
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


class JobError(TypedDict):
    """Why a job was not added; `code` is an error code."""

    message: str
    code: str


class JobLogs(TypedDict):
    """The rows that were logged for a job, and how many there are."""

    logs: list[str]
    count: int


class JobOptions(TypedDict):
    """BullMQ's JobsOptions. Times in milliseconds, sizes in bytes."""

    jobId: NotRequired[str]
    """the job's id; no integer, and without `:` (but with two of them, as BullMQ's own ids have)."""
    priority: NotRequired[int]
    """0 is none; smaller ones come first."""
    delay: NotRequired[int]
    """before the first attempt."""
    attempts: NotRequired[int]
    """how often it is tried; 0 and 1 are once."""
    backoff: NotRequired[int | Backoff]
    """between attempts."""
    lifo: NotRequired[bool]
    """put in front of those that wait."""
    removeOnComplete: NotRequired[bool | int | KeepJobs]
    """how many completed jobs stay; true: none, false: all."""
    removeOnFail: NotRequired[bool | int | KeepJobs]
    """how many failed jobs stay; true: none, false: all."""
    keepLogs: NotRequired[int]
    """how many rows of its log are kept."""
    stackTraceLimit: NotRequired[int]
    """how many stack traces are kept."""
    sizeLimit: NotRequired[int]
    """most bytes of data."""
    timestamp: NotRequired[int]
    """when it was created, instead of now."""
    parent: NotRequired[Parent]
    """the job that waits for this one."""
    failParentOnFailure: NotRequired[bool]
    """its failure fails the parent."""
    continueParentOnFailure: NotRequired[bool]
    """its failure lets the parent go on at once."""
    ignoreDependencyOnFailure: NotRequired[bool]
    """its failure counts for the parent as done."""
    removeDependencyOnFailure: NotRequired[bool]
    """its failure takes it off the parent's children."""
    deduplication: NotRequired[Deduplication]
    """while one job of this id is there, no other is added."""
    telemetry: NotRequired[Telemetry]
    """handed on to the worker."""


class JobParent(TypedDict):
    """The job that waits for this one, with the flags of what its failure means to the parent."""

    id: str
    queueKey: str
    fpof: NotRequired[bool]
    rdof: NotRequired[bool]
    idof: NotRequired[bool]
    cpof: NotRequired[bool]


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


class JobTemplate(TypedDict):
    """What the jobs of a scheduler are made of; the name is the scheduler's id unless it is given."""

    name: NotRequired[str | None]
    data: NotRequired[Any]
    opts: NotRequired[TemplateOptions | None]


class KeepJobs(TypedDict):
    """How many finished jobs stay. `age` in seconds."""

    age: NotRequired[int]
    count: NotRequired[int]
    limit: NotRequired[int]


class LockedJobJson(TypedDict):
    """A job that is locked under `token`; one with a `deferredFailure` has failed already and is only to be moved."""

    name: NotRequired[str]
    data: Any
    opts: Any
    id: str | int
    progress: NotRequired[Any]
    returnvalue: NotRequired[Any]
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
    token: str


class Metrics(TypedDict):
    """Finished jobs by the minute, the newest minute first; `count` is how many minutes are kept."""

    meta: MetricsMeta
    data: list[float]
    count: int


class MetricsMeta(TypedDict):
    """How far the counting is: jobs so far, and time (ms since 1970) and count at the end of the last full minute."""

    count: int | None
    prevTS: int | None
    prevCount: int | None


class NextJobOptions(TypedDict):
    """Options of `getNextJob`."""

    block: NotRequired[int]
    lockDuration: NotRequired[int]


class ObliterateOptions(TypedDict):
    """Options of `obliterate`."""

    force: NotRequired[bool]
    count: NotRequired[int]


class Page(TypedDict):
    """Where to go on reading, and about how many entries to read."""

    cursor: NotRequired[int]
    count: NotRequired[int]


class Parent(TypedDict):
    """The job that waits for this one. `queue` is the qualified name, `<prefix>:<queue>`."""

    id: str
    queue: str


class PriorityOptions(TypedDict):
    """Options of `changeJobPriority`."""

    priority: NotRequired[float]
    lifo: NotRequired[bool]


class PromoteJobsOptions(TypedDict):
    """Options of `promoteJobs`."""

    count: NotRequired[int]


class PublishedEvent(TypedDict):
    """An event's name, and beside it what it has to say: texts, numbers, booleans or null."""

    eventName: str


class QueueMeta(TypedDict):
    """A queue's global configuration; fields that others have put there come beside it, as strings."""

    version: NotRequired[str]
    concurrency: NotRequired[float | None]
    maxLenEvents: NotRequired[float | None]
    max: NotRequired[float | None]
    duration: NotRequired[float | None]
    paused: bool


class QueueOptions(TypedDict):
    """Of one queue, for the jobs of a flow that go there."""

    defaultJobOptions: NotRequired[JobOptions | None]


class QueuesQuery(TypedDict):
    """Which queues: about `limit` of them, behind `cursor`; and what of each.

    With `counts` how many jobs it has, by state; with `oldest` how long the job next in line has waited, and
    whether the queue is paused; with `connected` how many workers and watchers it has on all gateways.
    """

    cursor: NotRequired[str | None]
    limit: NotRequired[int]
    counts: NotRequired[bool]
    oldest: NotRequired[bool]
    connected: NotRequired[bool]


class RateLimit(TypedDict):
    """At most `max` jobs start in `duration` ms."""

    max: float | None
    duration: float | None


class RawJob(TypedDict):
    """A job with `data`, `stacktrace` and `returnvalue` as the JSON text that is stored, and without its id."""

    id: NotRequired[str]
    name: NotRequired[str]
    data: str
    opts: Any
    progress: Any
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


class RefusedJob(TypedDict):
    """Stands in the place of a job that BullMQ did not take."""

    err: JobError


class RemoveOptions(TypedDict):
    """Options of `remove`."""

    removeChildren: NotRequired[bool]


class RepeatOptions(TypedDict):
    """When a job scheduler's jobs are due: either `pattern` or `every`."""

    pattern: NotRequired[str]
    """a cron pattern of one to six fields (docs/cron.md)."""
    every: NotRequired[int]
    """milliseconds from one job to the next."""
    limit: NotRequired[int]
    """the most jobs."""
    startDate: NotRequired[int | str]
    """none is due before; milliseconds or ISO 8601."""
    endDate: NotRequired[int | str]
    """none is created after; milliseconds or ISO 8601."""
    tz: NotRequired[str]
    """the time zone of the pattern."""
    immediately: NotRequired[bool]
    """the first one is due at once."""
    offset: NotRequired[int]
    """milliseconds by which jobs are due after the multiples of `every`."""
    count: NotRequired[int]
    """of the jobs so far."""


class RetryJobsOptions(TypedDict):
    """Options of `retryJobs`."""

    count: NotRequired[int]
    state: NotRequired[Literal["completed", "failed"]]
    timestamp: NotRequired[int | None]


class RetryOptions(TypedDict):
    """Options of `retryJob`."""

    resetAttemptsMade: NotRequired[bool]
    resetAttemptsStarted: NotRequired[bool]


class Scale(TypedDict):
    """The work of a queue."""

    queue: str
    value: int
    """jobs that need a worker now, or have one."""
    oldest: int | None
    """milliseconds that the job next in line has waited; null where none waits."""
    paused: bool
    """whether it is paused."""
    workers: int
    """Worker connections and webhook workers, on all gateways."""


class ScaleQuery(TypedDict):
    """Of which queue."""

    queue: str


class SchedulerTemplate(TypedDict):
    """What a job scheduler makes its jobs of; members that are empty are left out."""

    data: NotRequired[Any]
    opts: NotRequired[dict[str, Any]]


class ShownConnection(TypedDict):
    """A connection of a client. Times in milliseconds since 1970."""

    id: str
    kind: Literal["events", "flows", "http", "queue", "worker"]
    queue: str | None
    """null for one that is of no queue, such as one of flows."""
    key: str
    """the name of its key; empty for one of `auth_keys`."""
    host: str
    """the name of the machine that its gateway runs on."""
    gateway: str
    """the gateway, as at the beginning of `id`."""
    shard: int
    """the slot of its shard."""
    address: str
    """of the client, or of the proxy before it; empty on a Unix socket."""
    since: int
    """when it was made."""
    inHand: int
    """jobs that a worker holds."""
    concurrency: int | None
    """how many it may hold; null for one that is no worker."""
    calls: int
    """without a reply."""
    lag: int
    """bytes that were sent and that the client has not read."""


class ShownConsumer(TypedDict):
    """A Worker connection, or a webhook worker. Times in milliseconds since 1970."""

    id: str
    key: str
    """the name of its key; empty for one of `auth_keys`, and for a webhook worker."""
    name: str | None
    """the connection's option, at most 100 characters of it, or null; that of the webhook worker."""
    connectedSince: int
    concurrency: int
    """how many jobs it may hold."""
    inHand: int
    """how many it holds."""
    takesJobs: bool
    """whether it gets new ones: it has not paused, is not silent, and nobody has drained it."""
    connected: bool
    """false while its jobs are kept for it after its connection broke."""
    lastHeard: int
    """when anything came from it last, a pong for example, to half of `ping_interval`; for a webhook worker when its
    endpoint has answered last.
    """
    webhook: bool
    """whether it is a webhook worker: `drainConsumer` and `disconnectConsumer` do not know it."""


class Telemetry(TypedDict):
    """What a tracer hands on from producer to worker."""

    metadata: NotRequired[str]
    omitContext: NotRequired[bool]


class TemplateOptions(TypedDict):
    """The options of a scheduler's jobs: those of a job, without what the scheduler decides."""

    jobId: NotRequired[Any]
    """the job's id; no integer, and without `:` (but with two of them, as BullMQ's own ids have)."""
    priority: NotRequired[int]
    """0 is none; smaller ones come first."""
    delay: NotRequired[Any]
    """before the first attempt."""
    attempts: NotRequired[int]
    """how often it is tried; 0 and 1 are once."""
    backoff: NotRequired[int | Backoff]
    """between attempts."""
    lifo: NotRequired[bool]
    """put in front of those that wait."""
    removeOnComplete: NotRequired[bool | int | KeepJobs]
    """how many completed jobs stay; true: none, false: all."""
    removeOnFail: NotRequired[bool | int | KeepJobs]
    """how many failed jobs stay; true: none, false: all."""
    keepLogs: NotRequired[int]
    """how many rows of its log are kept."""
    stackTraceLimit: NotRequired[int]
    """how many stack traces are kept."""
    sizeLimit: NotRequired[int]
    """most bytes of data."""
    timestamp: NotRequired[int]
    """when it was created, instead of now."""
    parent: NotRequired[Parent]
    """the job that waits for this one."""
    failParentOnFailure: NotRequired[bool]
    """its failure fails the parent."""
    continueParentOnFailure: NotRequired[bool]
    """its failure lets the parent go on at once."""
    ignoreDependencyOnFailure: NotRequired[bool]
    """its failure counts for the parent as done."""
    removeDependencyOnFailure: NotRequired[bool]
    """its failure takes it off the parent's children."""
    deduplication: NotRequired[Any]
    """while one job of this id is there, no other is added."""
    telemetry: NotRequired[Telemetry]
    """handed on to the worker."""


class WaitingChildrenOptions(TypedDict):
    """Options of `moveJobToWaitingChildren`."""

    child: NotRequired[ChildKey | None]


class WorkerLimiter(TypedDict):
    """An option of a worker."""

    max: int
    """Most jobs per `limiter.duration`, over all workers of the queue; both or none."""
    duration: int
    """Milliseconds that `limiter.max` is for."""


class WorkerMetrics(TypedDict):
    """An option of a worker."""

    maxDataPoints: int
    """Minutes for which `getMetrics` keeps the numbers of this worker's finished jobs; 0: none are kept."""


class WorkerOptions(TypedDict):
    """The options of a Worker connection; times in milliseconds."""

    lockDuration: NotRequired[int]
    """Milliseconds that a job's lock lasts; it is renewed at half of them."""
    stalledInterval: NotRequired[int]
    """Milliseconds between BullMQ's checks for jobs without a lock. Connections that differ share the shortest."""
    maxStalledCount: NotRequired[int]
    """A job that has lost its worker more often than this fails."""
    limiter: NotRequired[WorkerLimiter]
    removeOnComplete: NotRequired[bool | int | KeepJobs]
    """How many finished jobs stay, unless the job option of this name says it; an object as JSON."""
    removeOnFail: NotRequired[bool | int | KeepJobs]
    """How many finished jobs stay, unless the job option of this name says it; an object as JSON."""
    name: NotRequired[str]
    """This worker's name, which BullMQ stores as the job's `processedBy`."""
    metrics: NotRequired[WorkerMetrics]
    ackTimeout: NotRequired[int]
    """Milliseconds until a pushed job of which nothing is heard goes back, once the client has said `ack`; 0: never."""
    maxRuntime: NotRequired[int]
    """Milliseconds that a started job may take: then the client gets `cancel`; 0: any time."""
    overrun: NotRequired[Literal["fail", "release"]]
    """`fail`: a job that takes longer than `maxRuntime` fails, and is tried again as its `attempts` say; `release`:
    it goes back as one that has lost its worker.
    """
    grace: NotRequired[int]
    """Milliseconds for which the jobs in hand are kept when the connection breaks, for a client that comes back; 0:
    no.
    """
    confirm: NotRequired[Literal[0, 1]]
    """1: each final answer is confirmed by `finished`."""
