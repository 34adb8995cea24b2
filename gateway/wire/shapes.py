"""What results look like: the types that the functions' documentation and schemas are made of.

Members that Node leaves out when they are undefined are `NotRequired`.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from msgspec import Raw


class JobParent(TypedDict):
    """The job that waits for this one, with the flags of what its failure means to the parent."""

    id: str
    queueKey: str
    fpof: NotRequired[bool]
    rdof: NotRequired[bool]
    idof: NotRequired[bool]
    cpof: NotRequired[bool]


class Job(TypedDict):
    """A job as Node's `Job.toJSON` shows it. Times in milliseconds since 1970; null where Node has NaN."""

    name: NotRequired[str]
    data: Raw
    opts: Raw
    id: str | int
    progress: NotRequired[Raw]
    returnvalue: NotRequired[Raw]
    stacktrace: NotRequired[list[Any] | None]
    delay: NotRequired[int | None]
    priority: int | None
    attemptsStarted: NotRequired[int]
    attemptsMade: NotRequired[int]
    stalledCounter: NotRequired[int]
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
