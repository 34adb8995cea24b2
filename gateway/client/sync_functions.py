"""The functions of queues, flows and jobs as methods, for scripts: each one waits until the reply is there.

Made from the code by `make docs`.
"""

# fmt: off
# ruff: noqa: E501
# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bullmq_proxy.gateway.client.sync_calls import EMPTY, Functions

if TYPE_CHECKING:
    from bullmq_proxy.gateway.client.sync import Job
    from bullmq_proxy.gateway.client.types import (
        AddedFlow,
        BulkJob,
        Caller,
        CancelledJob,
        CancelOptions,
        Connections,
        ConnectionsQuery,
        Consumers,
        Dependencies,
        DependenciesCountOptions,
        DependenciesOptions,
        Flow,
        FlowNode,
        FlowOptions,
        FlowQuery,
        FoundQueues,
        History,
        HistoryQuery,
        JobDependencies,
        JobDependenciesCount,
        JobLogs,
        JobOptions,
        JobParent,
        JobScheduler,
        JobTemplate,
        Metrics,
        NextJobOptions,
        ObliterateOptions,
        PriorityOptions,
        PromoteJobsOptions,
        PublishedEvent,
        QueueMeta,
        QueuesQuery,
        RateLimit,
        RawJob,
        RefusedJob,
        RemoveOptions,
        RepeatOptions,
        RetryJobsOptions,
        RetryOptions,
        Scale,
        ScaleQuery,
        WaitingChildrenOptions,
    )


class QueueFunctions(Functions):
    """The functions of a queue."""

    def add(self, name: str, data: Any = EMPTY, opts: JobOptions | None = None) -> Job:
        """Add a job and return it. `duplicate: true` stands beside its fields when the job was there already."""
        return self._jobs(self._write("add", [name, data], opts))

    def addBulk(self, jobs: list[BulkJob]) -> list[Job | RefusedJob]:
        """Add many jobs at once, in their order, and return them. All are checked before the first one is stored.

        One that BullMQ still refuses, as its parent is missing, shows as an object with `err` in its place.
        """
        return self._jobs(self._write("addBulk", [jobs]))

    def getJob(self, jobId: str | int) -> Job | None:
        """Return a job, or null."""
        return self._jobs(self._read("getJob", [jobId]))

    def getJobs(
        self,
        types: Literal["active", "completed", "delayed", "failed", "paused", "prioritized", "repeat", "wait", "waiting", "waiting-children"] | list[Literal["active", "completed", "delayed", "failed", "paused", "prioritized", "repeat", "wait", "waiting", "waiting-children"]] | None = None,
        start: int | None = None,
        end: int | None = None,
        asc: bool | None = None,
    ) -> list[Job]:
        """Return the jobs of some types, in the order of the types; `start` and `end` count within each type.

        Those that are larger than 16 MiB together are refused: ask for them in pages.
        """
        return self._jobs(self._read("getJobs", [], types, start, end, asc))

    def getWaiting(self, start: int | None = None, end: int | None = None) -> list[Job]:
        """Return the waiting jobs, the oldest first."""
        return self._jobs(self._read("getWaiting", [], start, end))

    def getWaitingChildren(self, start: int | None = None, end: int | None = None) -> list[Job]:
        """Return the waiting-children jobs, the oldest first."""
        return self._jobs(self._read("getWaitingChildren", [], start, end))

    def getActive(self, start: int | None = None, end: int | None = None) -> list[Job]:
        """Return the active jobs, the oldest first."""
        return self._jobs(self._read("getActive", [], start, end))

    def getDelayed(self, start: int | None = None, end: int | None = None) -> list[Job]:
        """Return the delayed jobs, the oldest first."""
        return self._jobs(self._read("getDelayed", [], start, end))

    def getPrioritized(self, start: int | None = None, end: int | None = None) -> list[Job]:
        """Return the prioritized jobs, the oldest first."""
        return self._jobs(self._read("getPrioritized", [], start, end))

    def getCompleted(self, start: int | None = None, end: int | None = None) -> list[Job]:
        """Return the completed jobs, the newest first."""
        return self._jobs(self._read("getCompleted", [], start, end))

    def getFailed(self, start: int | None = None, end: int | None = None) -> list[Job]:
        """Return the failed jobs, the newest first."""
        return self._jobs(self._read("getFailed", [], start, end))

    def getRanges(
        self,
        types: list[Literal["active", "completed", "delayed", "failed", "paused", "prioritized", "repeat", "wait", "waiting", "waiting-children"]],
        start: int | None = None,
        end: int | None = None,
        asc: bool | None = None,
    ) -> list[str]:
        """Return the ids of the jobs of some types, each once; `start` and `end` count within each type.

        Some hundred thousand ids are more than 16 MiB and refused: ask for them in pages.
        """
        return self._read("getRanges", [types], start, end, asc)

    def getJobState(self, jobId: str | int) -> str:
        """Return a job's state, or `unknown` (Node's `job.getState`)."""
        return self._read("getJobState", [jobId])

    def getJobLogs(
        self,
        jobId: str | int,
        start: int | None = None,
        end: int | None = None,
        asc: bool | None = None,
    ) -> JobLogs:
        """Return the rows of a job's log, and how many there are. Rows of more than 16 MiB are refused: ask for
        less.
        """
        return self._read("getJobLogs", [jobId], start, end, asc)

    def getJobCounts(
        self,
        *types: Literal["active", "completed", "delayed", "failed", "paused", "prioritized", "repeat", "wait", "waiting", "waiting-children"],
    ) -> dict[str, int]:
        """Return the number of jobs of each type; of all types when none is named."""
        return self._read("getJobCounts", list(types))

    def recordJobCountsMetric(
        self,
        *types: Literal["active", "completed", "delayed", "failed", "paused", "prioritized", "repeat", "wait", "waiting", "waiting-children"],
    ) -> dict[str, int]:
        """Return the same as `getJobCounts`; what Node also records for a tracer has no meaning here."""
        return self._read("recordJobCountsMetric", list(types))

    def getJobCountByTypes(
        self,
        *types: Literal["active", "completed", "delayed", "failed", "paused", "prioritized", "repeat", "wait", "waiting", "waiting-children"],
    ) -> int:
        """Return the number of jobs of these types together."""
        return self._read("getJobCountByTypes", list(types))

    def count(self) -> int:
        """Return the number of jobs to be processed: waiting, delayed, prioritized and waiting for children."""
        return self._read("count", [])

    def getActiveCount(self) -> int:
        """Return the number of active jobs."""
        return self._read("getActiveCount", [])

    def getCompletedCount(self) -> int:
        """Return the number of completed jobs."""
        return self._read("getCompletedCount", [])

    def getFailedCount(self) -> int:
        """Return the number of failed jobs."""
        return self._read("getFailedCount", [])

    def getPrioritizedCount(self) -> int:
        """Return the number of prioritized jobs."""
        return self._read("getPrioritizedCount", [])

    def getWaitingCount(self) -> int:
        """Return the number of waiting jobs."""
        return self._read("getWaitingCount", [])

    def getWaitingChildrenCount(self) -> int:
        """Return the number of waiting-children jobs."""
        return self._read("getWaitingChildrenCount", [])

    def getDelayedCount(self, timestamp: float | None = None) -> int:
        """Return the number of delayed jobs; with `timestamp`, in ms since 1970, of those that are due before it."""
        return self._read("getDelayedCount", [], timestamp)

    def getCountsPerPriority(self, priorities: list[int]) -> dict[str, int]:
        """Return the number of waiting jobs of each priority; 0 stands for jobs without one."""
        return self._read("getCountsPerPriority", [priorities])

    def cancelJob(self, jobId: str | int, reason: str | None = None, opts: CancelOptions | None = None) -> CancelledJob:
        """Take a job from whoever holds it: it fails for good with `reason`, whatever attempts it has left.

        With `fail` false it goes back instead: first in line, no attempt charged. Its worker gets `cancel` with
        the reason, on whatever shard or host it is connected; `delivered` says whether that was sent. Else it
        learns of it when its lock is to be renewed, or by its answer, which is not stored. A job that nobody
        holds is a `CONFLICT`.
        """
        return self._write("cancelJob", [jobId], reason, opts)

    def getConsumers(self) -> Consumers:
        """Return who works on the queue over Worker connections, and its webhook workers, on all shards and hosts.

        The others of its workers, of BullMQ's own libraries, are among those of `getWorkers`.
        """
        return self._read("getConsumers", [])

    def drainConsumer(self, id: str) -> None:
        """Give a Worker connection no new jobs any more; `id` is that of `getConsumers`.

        Its client gets `drain`, without a deadline, and can finish what it has in hand. This lasts until it
        connects again.
        """
        return self._write("drainConsumer", [id])

    def disconnectConsumer(self, id: str) -> None:
        """Close a Worker connection with the code 4001; `id` is that of `getConsumers`.

        The jobs that it has not answered go back, first in line, with no attempt charged and no loss counted.
        """
        return self._write("disconnectConsumer", [id])

    def renew(self, token: str) -> Caller:
        """Put a fresh token in force on the connection, in place of the one that it was opened with; return its
        rights.

        It has the same `sub`. Its rights may be others: they hold from the next call on. A token that is not for
        the connection is refused, and the present one stays. On a connection that was opened with a key it is a
        `CONFLICT`.
        """
        return self._read("renew", [token])

    def getNextJob(self, token: str, opts: NextJobOptions | None = None) -> Job | None:
        """Take one job and lock it under `token`; return null when there is none (Node's `worker.getNextJob`).

        With `block` it waits for one, as many ms as that says. The lock lives for `lockDuration` ms and is the
        caller's to renew, by `extendJobLock`; the job is the caller's to move on.
        """
        return self._jobs(self._write("getNextJob", [token], opts))

    def moveJobToCompleted(
        self,
        jobId: str | int,
        result: Any,
        token: str,
        fetchNext: bool | None = None,
    ) -> list[RawJob | str | int | None]:
        """Complete a job with its return value, which is any JSON (Node's `job.moveToCompleted`).

        With `fetchNext` the next job, if there is one, is taken in the same step and locked under the same token
        for 30 s: `[job, id, 0, 0]`. Without, or when there is none, the list is empty, or has null for the job.
        """
        return self._write("moveJobToCompleted", [jobId, result, token], fetchNext)

    def moveJobToFailed(
        self,
        jobId: str | int,
        err: Any,
        token: str,
        fetchNext: bool | None = None,
    ) -> list[RawJob | str | int | None] | None:
        """Fail a job: it is tried again if its attempts allow it (Node's `job.moveToFailed`).

        `err` is a text, or an object with `message` and perhaps `stack` and `unrecoverable`, which fails the job
        for good. The result is as that of `moveJobToCompleted`, or null when the job is back in wait at once.
        """
        return self._write("moveJobToFailed", [jobId, err, token], fetchNext)

    def moveJobToDelayed(self, jobId: str | int, timestamp: int, token: str) -> None:
        """Give a job back until `timestamp`, in ms since 1970; no attempt is charged (Node's `job.moveToDelayed`)."""
        return self._write("moveJobToDelayed", [jobId, timestamp, token])

    def moveJobToWait(self, jobId: str | int, token: str) -> int:
        """Give a job back as the first in line; no attempt is charged (Node's `job.moveToWait`).

        Returns for how many ms the queue's rate limit lets nobody take jobs, 0 for none.
        """
        return self._write("moveJobToWait", [jobId, token])

    def moveJobToWaitingChildren(
        self,
        jobId: str | int,
        token: str,
        opts: WaitingChildrenOptions | None = None,
    ) -> bool:
        """Make a job wait for its children, or for `opts.child` alone (Node's `job.moveToWaitingChildren`).

        False when there is nothing to wait for: the job is then the caller's as before. When a child has failed
        it is, too, with a `CONFLICT`: fail the job with that message and `unrecoverable`, as Node's worker does.
        """
        return self._write("moveJobToWaitingChildren", [jobId, token], opts)

    def extendJobLock(self, jobId: str | int, token: str, duration: int) -> int:
        """Extend a job's lock to `duration` ms from now; return 1, or 0 when the lock is not under this token.

        Node's `job.extendLock`.
        """
        return self._write("extendJobLock", [jobId, token, duration])

    def publishEvent(self, event: PublishedEvent, maxEvents: int | None = None) -> None:
        """Publish an event under the name `event.eventName`, with its other members as text, to all who watch the
        queue.

        This is Node's `QueueEventsProducer.publishEvent`, and trims the stream to about `maxEvents` entries as
        that does. An event under one of BullMQ's own names is believed by everybody who waits for such: hence the
        permission.
        """
        return self._write("publishEvent", [event], maxEvents)

    def trimEvents(self, maxLength: int) -> int:
        """Trim the event stream to about `maxLength` entries; return how many were removed."""
        return self._write("trimEvents", [maxLength])

    def getJobChildrenValues(self, jobId: str | int) -> dict[str, Any]:
        """Return the results of a job's completed children, by the children's keys (Node's `job.getChildrenValues`).

        Results that are larger than 16 MiB together are refused: `getJobDependencies` has pages of them.
        """
        return self._read("getJobChildrenValues", [jobId])

    def getJobIgnoredChildrenFailures(self, jobId: str | int) -> dict[str, str]:
        """Return why children failed whose failure the job ignores (Node's `job.getIgnoredChildrenFailures`).

        Reasons that are larger than 16 MiB together are refused: `getJobDependencies` has pages of them.
        """
        return self._read("getJobIgnoredChildrenFailures", [jobId])

    def getJobDependencies(self, jobId: str | int, opts: DependenciesOptions | None = None) -> JobDependencies:
        """Return the keys of a job's children: completed, unfinished, failed, ignored (Node's
        `job.getDependencies`).

        Without options all of them; with options only the named kinds, a page of each, and beside it the cursor
        of the next page: 0 after the last. A page may hold more than `count`. For `failed`, as in Node, `count`
        is the number at which the page ends, counted from the first child of all, and the next cursor is `cursor
        + count`. What is larger than 16 MiB together is refused.
        """
        return self._read("getJobDependencies", [jobId], opts)

    def getJobDependenciesCount(
        self,
        jobId: str | int,
        opts: DependenciesCountOptions | None = None,
    ) -> JobDependenciesCount:
        """Return the number of a job's children of each kind, or of the named kinds (Node's
        `job.getDependenciesCount`).
        """
        return self._read("getJobDependenciesCount", [jobId], opts)

    def removeJobChildDependency(self, jobId: str | int) -> bool:
        """Detach a job from its parent, which then does not wait for it (Node's `job.removeChildDependency`).

        Returns whether the parent was waiting for it. A parent that has no other child to wait for moves to wait.
        """
        return self._write("removeJobChildDependency", [jobId])

    def removeJobUnprocessedChildren(self, jobId: str | int) -> None:
        """Remove a job's unfinished children, and theirs (Node's `job.removeUnprocessedChildren`).

        Children that a worker holds stay. A job that has nothing more to wait for moves to wait. Many children
        are removed some at a time.
        """
        return self._write("removeJobUnprocessedChildren", [jobId])

    def getDependencies(
        self,
        parentId: str | int,
        type: Literal["pending", "processed"],
        start: int,
        end: int,
    ) -> Dependencies:
        """Return a page of a job's children, completed or pending; `jobs` has their hashes, in no order.

        `items[].id` is a child's key, `<prefix>:<queue>:<id>`. Children that are larger than 16 MiB together are
        refused: ask for them in pages.
        """
        return self._read("getDependencies", [parentId, type, start, end])

    def pause(self) -> None:
        """Pause the queue: no worker of any kind takes new jobs until `resume`."""
        return self._write("pause", [])

    def resume(self) -> None:
        """Resume a paused queue; jobs that versions before 6 have put aside for it come back."""
        return self._write("resume", [])

    def drain(self, delayed: bool | None = None) -> None:
        """Remove all waiting jobs, and with `delayed` the delayed ones, too; the next jobs of schedulers stay."""
        return self._write("drain", [], delayed)

    def clean(
        self,
        grace: int,
        limit: int,
        type: Literal["active", "completed", "delayed", "failed", "paused", "prioritized", "wait", "waiting"] | None = None,
    ) -> list[str]:
        """Remove at most `limit` jobs (0: all) of a type that are older than `grace` ms; return their ids."""
        return self._write("clean", [grace, limit], type)

    def obliterate(self, opts: ObliterateOptions | None = None) -> None:
        """Pause the queue and remove it completely; with `force` even while jobs are active."""
        return self._write("obliterate", [], opts)

    def retryJobs(self, opts: RetryJobsOptions | None = None) -> None:
        """Move all failed, or all completed, jobs back to wait."""
        return self._write("retryJobs", [], opts)

    def promoteJobs(self, opts: PromoteJobsOptions | None = None) -> None:
        """Move all delayed jobs to wait."""
        return self._write("promoteJobs", [], opts)

    def remove(self, jobId: str | int, opts: RemoveOptions | None = None) -> int:
        """Remove a job and its children, and theirs; return 1, or 0 when a worker holds one of them.

        With `removeChildren` false only the job. Children may be in other queues: the key must be for these, too.
        Many children are removed some at a time, the job last: a worker that takes one meanwhile keeps what is
        left.
        """
        return self._write("remove", [jobId], opts)

    def removeDeduplicationKey(self, id: str) -> int:
        """Free a deduplication id, so that another job can have it; return 1 when a job had it."""
        return self._write("removeDeduplicationKey", [id])

    def removeDeprecatedPriorityKey(self) -> int:
        """Remove a key that old versions of BullMQ left behind; return 1 when it was there."""
        return self._write("removeDeprecatedPriorityKey", [])

    def removeOrphanedJobs(self, count: int | None = None, limit: int | None = None) -> int:
        """Remove jobs that are in no state; return their number.

        This goes through all keys of the Redis database, some `count` at a time and at most 1,000, and ends early
        once `limit` jobs are removed (0: never).
        """
        return self._write("removeOrphanedJobs", [], count, limit)

    def removeJob(self, jobId: str | int, opts: RemoveOptions | None = None) -> None:
        """Remove a job and its children, and theirs; a job that a worker holds is an error (Node's `job.remove`).

        With `removeChildren` false only the job. Children may be in other queues: the key must be for these, too.
        """
        return self._write("removeJob", [jobId], opts)

    def retryJob(
        self,
        jobId: str | int,
        state: Literal["completed", "failed"] | None = None,
        opts: RetryOptions | None = None,
    ) -> None:
        """Move a failed or completed job back to wait (Node's `job.retry`)."""
        return self._write("retryJob", [jobId], state, opts)

    def promoteJob(self, jobId: str | int) -> None:
        """Move a delayed job to wait (Node's `job.promote`)."""
        return self._write("promoteJob", [jobId])

    def changeJobDelay(self, jobId: str | int, delay: int) -> None:
        """Change how long a delayed job waits: `delay` ms from now (Node's `job.changeDelay`)."""
        return self._write("changeJobDelay", [jobId, delay])

    def changeJobPriority(self, jobId: str | int, opts: PriorityOptions) -> None:
        """Change a job's priority, 0 to 2097151; none if it is left out (Node's `job.changePriority`).

        It moves behind the jobs of that priority, or with `lifo` before them. A job that does not wait has its
        new priority for when it does.
        """
        return self._write("changeJobPriority", [jobId, opts])

    def removeJobDeduplicationKey(self, jobId: str | int) -> bool:
        """Free a job's deduplication id, so that another job can have it (Node's `job.removeDeduplicationKey`).

        Returns false when the job has none, or another job holds it.
        """
        return self._write("removeJobDeduplicationKey", [jobId])

    def updateJobData(self, jobId: str | int, data: Any, token: str | None = None) -> None:
        """Replace a job's data (Node's `job.updateData`)."""
        return self._write("updateJobData", [jobId, data], token)

    def updateJobProgress(self, jobId: str | int, progress: Any, token: str | None = None) -> None:
        """Set a job's progress, which is any JSON (Node's `job.updateProgress`)."""
        return self._write("updateJobProgress", [jobId, progress], token)

    def addJobLog(self, jobId: str | int, logRow: str, keepLogs: int | None = None, token: str | None = None) -> int:
        """Add a row to a job's log and return the number of rows; only the last `keepLogs` stay (Node's `job.log`)."""
        return self._write("addJobLog", [jobId, logRow], keepLogs, token)

    def clearJobLogs(self, jobId: str | int, keepLogs: int | None = None, token: str | None = None) -> None:
        """Clear a job's log, except for its last `keepLogs` rows (Node's `job.clearLogs`)."""
        return self._write("clearJobLogs", [jobId], keepLogs, token)

    def isJobActive(self, jobId: str | int) -> bool:
        """Return whether a job is active (Node's `job.isActive`)."""
        return self._read("isJobActive", [jobId])

    def isJobCompleted(self, jobId: str | int) -> bool:
        """Return whether a job is completed (Node's `job.isCompleted`)."""
        return self._read("isJobCompleted", [jobId])

    def isJobDelayed(self, jobId: str | int) -> bool:
        """Return whether a job is delayed (Node's `job.isDelayed`)."""
        return self._read("isJobDelayed", [jobId])

    def isJobFailed(self, jobId: str | int) -> bool:
        """Return whether a job is failed (Node's `job.isFailed`)."""
        return self._read("isJobFailed", [jobId])

    def isJobWaiting(self, jobId: str | int) -> bool:
        """Return whether a job is waiting, without a priority (Node's `job.isWaiting`)."""
        return self._read("isJobWaiting", [jobId])

    def isJobWaitingChildren(self, jobId: str | int) -> bool:
        """Return whether a job is waiting for its children (Node's `job.isWaitingChildren`)."""
        return self._read("isJobWaitingChildren", [jobId])

    def setGlobalConcurrency(self, concurrency: int) -> int:
        """Limit how many jobs all workers together process at a time; return 1 when there was no limit before.

        The gateways' workers take what a higher limit allows at once.
        """
        return self._write("setGlobalConcurrency", [concurrency])

    def getGlobalConcurrency(self) -> float | None:
        """Return how many jobs all workers together may process at a time, or null."""
        return self._read("getGlobalConcurrency", [])

    def removeGlobalConcurrency(self) -> int:
        """Remove the limit of jobs at a time; return 1 when there was one."""
        return self._write("removeGlobalConcurrency", [])

    def isMaxed(self) -> bool:
        """Return whether as many jobs are active as the global concurrency allows."""
        return self._read("isMaxed", [])

    def setGlobalRateLimit(self, max: int, duration: int) -> int:
        """Limit how many jobs all workers together start in `duration` ms; return how many of both settings are new."""
        return self._write("setGlobalRateLimit", [max, duration])

    def getGlobalRateLimit(self) -> RateLimit | None:
        """Return the rate limit of all workers together, or null."""
        return self._read("getGlobalRateLimit", [])

    def removeGlobalRateLimit(self) -> int:
        """Remove the rate limit of all workers together; return how many of its two settings there were."""
        return self._write("removeGlobalRateLimit", [])

    def rateLimit(self, expireTimeMs: int) -> None:
        """Start no more jobs for `expireTimeMs` ms, as if the rate limit were reached.

        This holds for workers with a limit of their own, and for all while a global one is set.
        """
        return self._write("rateLimit", [expireTimeMs])

    def removeRateLimitKey(self) -> int:
        """Reset the counter of the rate limit; return 1 when there was one. The gateways' workers go on at once."""
        return self._write("removeRateLimitKey", [])

    def getRateLimitTtl(self, maxJobs: int | None = None) -> int:
        """Return for how many ms the rate limit lets no more jobs start.

        With `maxJobs`, or a global rate limit, it is 0 while fewer jobs have started. Without either it is what
        is left of the current period: -2 when there is none, -1 when it never ends.
        """
        return self._read("getRateLimitTtl", [], maxJobs)

    def upsertJobScheduler(
        self,
        jobSchedulerId: str,
        repeatOpts: RepeatOptions,
        jobTemplate: JobTemplate | None = None,
    ) -> Job | None:
        """Create a job scheduler, or change the one with this id; return its next job.

        Null where there is none: the limit is reached, or the pattern does not fire before the end date.
        """
        return self._jobs(self._write("upsertJobScheduler", [jobSchedulerId, repeatOpts], jobTemplate))

    def removeJobScheduler(self, jobSchedulerId: str) -> bool:
        """Remove a job scheduler, and its next job unless that has started; return whether there was one."""
        return self._write("removeJobScheduler", [jobSchedulerId])

    def getJobScheduler(self, id: str) -> JobScheduler | None:
        """Return a job scheduler, or null."""
        return self._read("getJobScheduler", [id])

    def getJobSchedulers(
        self,
        start: int | None = None,
        end: int | None = None,
        asc: bool | None = None,
    ) -> list[JobScheduler]:
        """Return the job schedulers by the time of their next jobs, the latest first unless `asc`.

        Leftovers of schedulers whose data is gone are removed. Schedulers that are larger than 16 MiB together
        are refused: ask for them in pages.
        """
        return self._write("getJobSchedulers", [], start, end, asc)

    def getJobSchedulersCount(self) -> int:
        """Return the number of job schedulers."""
        return self._read("getJobSchedulersCount", [])

    def isPaused(self) -> bool:
        """Return whether the queue is paused."""
        return self._read("isPaused", [])

    def getVersion(self) -> str | None:
        """Return the library and version that introduced themselves to the queue first, or null."""
        return self._read("getVersion", [])

    def getMeta(self) -> QueueMeta:
        """Return the queue's global configuration; unknown fields come as they are stored, as strings."""
        return self._read("getMeta", [])

    def getDeduplicationJobId(self, id: str) -> str | None:
        """Return the id of the job that has a deduplication id, or null."""
        return self._read("getDeduplicationJobId", [id])

    def getWorkers(self) -> list[dict[str, str]]:
        """Return the Redis connections of the queue's workers; a shard is one worker, however many clients it
        serves.

        Where a shard's queues share a connection to wait on, that one stands here.
        """
        return self._read("getWorkers", [])

    def getWorkersCount(self) -> int:
        """Return the number of entries that `getWorkers` has."""
        return self._read("getWorkersCount", [])

    def getMetrics(
        self,
        type: Literal["completed", "failed"],
        start: int | None = None,
        end: int | None = None,
    ) -> Metrics:
        """Return how many jobs finished in each minute, the newest minute first; for workers that keep metrics."""
        return self._read("getMetrics", [type], start, end)

    def exportPrometheusMetrics(self, globalVariables: dict[str, str] | None = None) -> str:
        """Return `getJobCounts` and `getMetrics` in Prometheus's text format; the variables become labels of each
        line.
        """
        return self._read("exportPrometheusMetrics", [], globalVariables)

    def waitUntilJobFinished(self, jobId: str | int, ttl: int | None = None) -> Any:
        """Wait until a job is completed and return its return value (Node's `job.waitUntilFinished`).

        When it has failed for good, the error is `CONFLICT` with the reason as its message; when it is gone,
        `NOT_FOUND`. With `ttl` it is `TIMEOUT` after so many ms; 0 and null wait for as long as the connection
        lives.
        """
        return self._read("waitUntilJobFinished", [jobId], ttl)

    def addAndWait(self, name: str, data: Any = EMPTY, opts: JobOptions | None = None, ttl: int | None = None) -> Any:
        """Add a job, wait until it is completed, and return its return value: `add` and `waitUntilJobFinished` in
        one.

        No end is missed, also with `removeOnComplete`. When the wait ends otherwise, as after `ttl` ms, the job
        stays. One that is there already is waited for as well; that needs the permission `observe`, too.
        """
        return self._write("addAndWait", [name, data], opts, ttl)


class FlowFunctions(Functions):
    """The functions of flows."""

    def add(self, flow: FlowNode, opts: FlowOptions | None = None) -> AddedFlow:
        """Add a flow, which is a job with the jobs that it waits for, and return it in the same form.

        All are checked before the first one is stored, and stored at once. `opts` has default job options by
        queue: `{"queuesOptions": {"mails": {"defaultJobOptions": {"attempts": 3}}}}`.
        """
        return self._write("add", [flow], opts)

    def addBulk(self, flows: list[FlowNode]) -> list[AddedFlow]:
        """Add several flows at once and return them. One whose root BullMQ refuses shows `err` beside it."""
        return self._write("addBulk", [flows])

    def getFlow(self, opts: FlowQuery) -> Flow | None:
        """Return a job with its children, down to `depth` levels, or null where there is no such job.

        The children are in this order: completed, pending, failed, and those whose failure the parent ignores.
        null stands for one that was removed.
        """
        return self._read("getFlow", [opts])

    def getConnections(self, opts: ConnectionsQuery | None = None) -> Connections:
        """Return who is connected to the queues that the key is for, on all shards and hosts, the oldest ones first.

        Connections of no queue, such as those of flows, are shown to a key for all queues, whose pattern is `*`.
        A worker's id is that of `getConsumers`, too. Webhook workers, and workers of BullMQ's own libraries, are
        no connections.
        """
        return self._read("getConnections", [], opts)

    def drainConnection(self, id: str) -> bool:
        """Let the worker on a connection finish what it has in hand, and give it nothing new: it gets `drain`.

        The connection of any other client is closed, as by `closeConnection`. Returns false where there is none
        of this id on the queues that the key is for.
        """
        return self._write("drainConnection", [id])

    def closeConnection(self, id: str) -> bool:
        """Close a connection with the code 4001; one for requests ends with the response to the last of them.

        The jobs that its worker has not answered go back, first in line, with no attempt charged and no loss
        counted. Returns false where there is none of this id on the queues that the key is for.
        """
        return self._write("closeConnection", [id])

    def whoami(self) -> Caller:
        """Return the name of the caller's key, its permissions, and the queues that it is for."""
        return self._read("whoami", [])

    def renew(self, token: str) -> Caller:
        """Put a fresh token in force on the connection, as `renew` of a queue does; return its rights."""
        return self._read("renew", [token])

    def getHistory(self, opts: HistoryQuery | None = None) -> History:
        """Return what has become of jobs in the last hour over the shards of this gateway, in steps of 10 seconds.

        What other programs add and finish is not seen, nor what other gateways do; `getMetrics` counts the
        finished jobs of all where workers keep metrics. A job waits from when it was added, or from the end of
        the delay that it was added with, until it goes to a worker for the first time. Without a queue the key
        must be for all: its pattern is `*`.
        """
        return self._read("getHistory", [], opts)

    def getQueues(self, opts: QueuesQuery | None = None) -> FoundQueues:
        """Return the queues that the key is for, in no order, and a `cursor` for the next page while there may be
        more.

        One call goes through 100,000 of Redis' keys at most, so that a page may have fewer queues than `limit`,
        or none. A queue that is there all the time is in one of the pages, or seldom in two; one that comes
        meanwhile may be missing.
        """
        return self._read("getQueues", [], opts)

    def getScale(self, opts: ScaleQuery) -> Scale:
        """Return how many jobs of a queue need a worker now, those included that have one, and who works on them.

        Delayed jobs and parents that wait for children are not among them; of a paused queue only the active ones
        are.
        """
        return self._read("getScale", [opts])


class JobFunctions:
    """The members of a job, and the functions for it. Members that a job does not have are None."""

    id: str
    name: str | None = None
    data: Any = None
    opts: Any = None
    progress: Any = None
    returnvalue: Any = None
    stacktrace: list[Any] | None = None
    delay: int | None = None
    priority: int | None = None
    attemptsStarted: int | None = None
    attemptsMade: int | None = None
    stalledCounter: int | None = None
    repeatJobKey: str | None = None
    timestamp: int | None = None
    parentKey: str | None = None
    parent: JobParent | None = None
    deduplicationId: str | None = None
    queueQualifiedName: str | None = None
    finishedOn: int | None = None
    processedOn: int | None = None
    failedReason: str | None = None
    deferredFailure: str | None = None
    processedBy: str | None = None
    duplicate: bool | None = None
    token: str | None = None

    @property
    def queue(self) -> QueueFunctions:
        """The functions of its queue."""
        raise NotImplementedError

    def getState(self) -> str:
        """Return a job's state, or `unknown` (Node's `job.getState`)."""
        return self.queue.getJobState(self.id)

    def moveToCompleted(self, result: Any, fetchNext: bool | None = None) -> list[RawJob | str | int | None]:
        """Complete a job with its return value, which is any JSON (Node's `job.moveToCompleted`).

        With `fetchNext` the next job, if there is one, is taken in the same step and locked under the same token
        for 30 s: `[job, id, 0, 0]`. Without, or when there is none, the list is empty, or has null for the job.
        """
        return self.queue.moveJobToCompleted(self.id, result, self.token or "", fetchNext)

    def moveToFailed(self, err: Any, fetchNext: bool | None = None) -> list[RawJob | str | int | None] | None:
        """Fail a job: it is tried again if its attempts allow it (Node's `job.moveToFailed`).

        `err` is a text, or an object with `message` and perhaps `stack` and `unrecoverable`, which fails the job
        for good. The result is as that of `moveJobToCompleted`, or null when the job is back in wait at once.
        """
        return self.queue.moveJobToFailed(self.id, err, self.token or "", fetchNext)

    def moveToDelayed(self, timestamp: int) -> None:
        """Give a job back until `timestamp`, in ms since 1970; no attempt is charged (Node's `job.moveToDelayed`)."""
        return self.queue.moveJobToDelayed(self.id, timestamp, self.token or "")

    def moveToWait(self) -> int:
        """Give a job back as the first in line; no attempt is charged (Node's `job.moveToWait`).

        Returns for how many ms the queue's rate limit lets nobody take jobs, 0 for none.
        """
        return self.queue.moveJobToWait(self.id, self.token or "")

    def moveToWaitingChildren(self, opts: WaitingChildrenOptions | None = None) -> bool:
        """Make a job wait for its children, or for `opts.child` alone (Node's `job.moveToWaitingChildren`).

        False when there is nothing to wait for: the job is then the caller's as before. When a child has failed
        it is, too, with a `CONFLICT`: fail the job with that message and `unrecoverable`, as Node's worker does.
        """
        return self.queue.moveJobToWaitingChildren(self.id, self.token or "", opts)

    def extendLock(self, duration: int) -> int:
        """Extend a job's lock to `duration` ms from now; return 1, or 0 when the lock is not under this token.

        Node's `job.extendLock`.
        """
        return self.queue.extendJobLock(self.id, self.token or "", duration)

    def getChildrenValues(self) -> dict[str, Any]:
        """Return the results of a job's completed children, by the children's keys (Node's `job.getChildrenValues`).

        Results that are larger than 16 MiB together are refused: `getJobDependencies` has pages of them.
        """
        return self.queue.getJobChildrenValues(self.id)

    def getIgnoredChildrenFailures(self) -> dict[str, str]:
        """Return why children failed whose failure the job ignores (Node's `job.getIgnoredChildrenFailures`).

        Reasons that are larger than 16 MiB together are refused: `getJobDependencies` has pages of them.
        """
        return self.queue.getJobIgnoredChildrenFailures(self.id)

    def getDependencies(self, opts: DependenciesOptions | None = None) -> JobDependencies:
        """Return the keys of a job's children: completed, unfinished, failed, ignored (Node's
        `job.getDependencies`).

        Without options all of them; with options only the named kinds, a page of each, and beside it the cursor
        of the next page: 0 after the last. A page may hold more than `count`. For `failed`, as in Node, `count`
        is the number at which the page ends, counted from the first child of all, and the next cursor is `cursor
        + count`. What is larger than 16 MiB together is refused.
        """
        return self.queue.getJobDependencies(self.id, opts)

    def getDependenciesCount(self, opts: DependenciesCountOptions | None = None) -> JobDependenciesCount:
        """Return the number of a job's children of each kind, or of the named kinds (Node's
        `job.getDependenciesCount`).
        """
        return self.queue.getJobDependenciesCount(self.id, opts)

    def removeChildDependency(self) -> bool:
        """Detach a job from its parent, which then does not wait for it (Node's `job.removeChildDependency`).

        Returns whether the parent was waiting for it. A parent that has no other child to wait for moves to wait.
        """
        return self.queue.removeJobChildDependency(self.id)

    def removeUnprocessedChildren(self) -> None:
        """Remove a job's unfinished children, and theirs (Node's `job.removeUnprocessedChildren`).

        Children that a worker holds stay. A job that has nothing more to wait for moves to wait. Many children
        are removed some at a time.
        """
        return self.queue.removeJobUnprocessedChildren(self.id)

    def remove(self, opts: RemoveOptions | None = None) -> None:
        """Remove a job and its children, and theirs; a job that a worker holds is an error (Node's `job.remove`).

        With `removeChildren` false only the job. Children may be in other queues: the key must be for these, too.
        """
        return self.queue.removeJob(self.id, opts)

    def retry(self, state: Literal["completed", "failed"] | None = None, opts: RetryOptions | None = None) -> None:
        """Move a failed or completed job back to wait (Node's `job.retry`)."""
        return self.queue.retryJob(self.id, state, opts)

    def promote(self) -> None:
        """Move a delayed job to wait (Node's `job.promote`)."""
        return self.queue.promoteJob(self.id)

    def changeDelay(self, delay: int) -> None:
        """Change how long a delayed job waits: `delay` ms from now (Node's `job.changeDelay`)."""
        return self.queue.changeJobDelay(self.id, delay)

    def changePriority(self, opts: PriorityOptions) -> None:
        """Change a job's priority, 0 to 2097151; none if it is left out (Node's `job.changePriority`).

        It moves behind the jobs of that priority, or with `lifo` before them. A job that does not wait has its
        new priority for when it does.
        """
        return self.queue.changeJobPriority(self.id, opts)

    def removeDeduplicationKey(self) -> bool:
        """Free a job's deduplication id, so that another job can have it (Node's `job.removeDeduplicationKey`).

        Returns false when the job has none, or another job holds it.
        """
        return self.queue.removeJobDeduplicationKey(self.id)

    def updateData(self, data: Any) -> None:
        """Replace a job's data (Node's `job.updateData`)."""
        return self.queue.updateJobData(self.id, data, self.token)

    def updateProgress(self, progress: Any) -> None:
        """Set a job's progress, which is any JSON (Node's `job.updateProgress`)."""
        return self.queue.updateJobProgress(self.id, progress, self.token)

    def log(self, logRow: str, keepLogs: int | None = None) -> int:
        """Add a row to a job's log and return the number of rows; only the last `keepLogs` stay (Node's `job.log`)."""
        return self.queue.addJobLog(self.id, logRow, keepLogs, self.token)

    def clearLogs(self, keepLogs: int | None = None) -> None:
        """Clear a job's log, except for its last `keepLogs` rows (Node's `job.clearLogs`)."""
        return self.queue.clearJobLogs(self.id, keepLogs, self.token)

    def isActive(self) -> bool:
        """Return whether a job is active (Node's `job.isActive`)."""
        return self.queue.isJobActive(self.id)

    def isCompleted(self) -> bool:
        """Return whether a job is completed (Node's `job.isCompleted`)."""
        return self.queue.isJobCompleted(self.id)

    def isDelayed(self) -> bool:
        """Return whether a job is delayed (Node's `job.isDelayed`)."""
        return self.queue.isJobDelayed(self.id)

    def isFailed(self) -> bool:
        """Return whether a job is failed (Node's `job.isFailed`)."""
        return self.queue.isJobFailed(self.id)

    def isWaiting(self) -> bool:
        """Return whether a job is waiting, without a priority (Node's `job.isWaiting`)."""
        return self.queue.isJobWaiting(self.id)

    def isWaitingChildren(self) -> bool:
        """Return whether a job is waiting for its children (Node's `job.isWaitingChildren`)."""
        return self.queue.isJobWaitingChildren(self.id)

    def waitUntilFinished(self, ttl: int | None = None) -> Any:
        """Wait until a job is completed and return its return value (Node's `job.waitUntilFinished`).

        When it has failed for good, the error is `CONFLICT` with the reason as its message; when it is gone,
        `NOT_FOUND`. With `ttl` it is `TIMEOUT` after so many ms; 0 and null wait for as long as the connection
        lives.
        """
        return self.queue.waitUntilJobFinished(self.id, ttl)
