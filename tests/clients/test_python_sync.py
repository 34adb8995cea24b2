"""The Python client for scripts: the same names, and each call waits."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from bullmq_proxy.gateway.client.errors import ClosedError, UnauthorizedError
from bullmq_proxy.gateway.client.sync import FlowProducer, Queue, QueueEvents, UnrecoverableError, Worker, WorkerJob
from tests.clients.conftest import KEY
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess


@pytest.fixture(scope="module")
def url(valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway in another process: the loop of this one is no script's."""
    arguments = ("--procs", "1", "--redis-url", valkey.url, "--prefix", "sync")
    with Service(tmp_path_factory.mktemp("service"), *arguments, env={"AUTH_KEYS": KEY}) as service:
        yield f"ws://127.0.0.1:{service.port}"


@pytest.fixture
def queue(url: str) -> Iterator[Queue]:
    with Queue("mails", url=url, key=KEY) as queue:
        yield queue


def test_a_script_adds_reads_and_waits(queue: Queue, url: str) -> None:
    seen: list[int] = []

    def work(job: WorkerJob) -> int:
        if job.data == 3:
            raise UnrecoverableError("three")
        job.updateProgress(50)
        job.log(f"working on {job.data}")
        assert job.getState() == "active"
        seen.append(threading.get_ident())
        return int(job.data) * 2

    worker = Worker("mails", work, url=url, key=KEY, concurrency=2)
    running = threading.Thread(target=worker.run)
    running.start()
    jobs = queue.addBulk([{"name": "double", "data": n} for n in (1, 2)])
    assert [job.waitUntilFinished(5000) for job in jobs if not isinstance(job, dict)] == [2, 4]
    failing = queue.add("double", 3, {"attempts": 5})
    while not failing.isFailed():
        pass
    worker.close()
    running.join(10)
    assert not running.is_alive()
    assert threading.get_ident() not in seen
    assert queue.getJobCounts("completed", "failed") == {"completed": 2, "failed": 1}
    job = queue.getJobs(["completed"])[0]
    assert (job.progress, queue.getJobLogs(job.id)["count"]) == (50, 1)


def test_ctrl_c_ends_a_worker_that_has_finished_what_it_had(queue: Queue, url: str) -> None:
    program = f"""
from bullmq_proxy.gateway.client.sync import Worker
def work(job):
    print("begun", flush=True)
    input()
    return "done"
Worker("ctrl-c", work, url={url!r}, key={KEY!r}).run()
"""
    with Queue("ctrl-c", url=url, key=KEY) as jobs:
        job = jobs.add("job")
        worker = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "begun\n"
        worker.send_signal(signal.SIGINT)
        _, errors = worker.communicate("\n", timeout=20)
        assert (worker.returncode, errors) == (0, "")
        assert job.waitUntilFinished(5000) == "done"


def test_events_are_a_loop(queue: Queue, url: str) -> None:
    with QueueEvents("mails", url=url, key=KEY, events=["added"]) as events:
        queue.addBulk([{"name": "x", "opts": {"jobId": id}} for id in "abc"])
        came = [event.fields["jobId"] for _, event in zip("abc", events, strict=False)]
        assert came == ["a", "b", "c"]
        assert events.lastEventId
    assert list(events) == []


def test_flows(url: str) -> None:
    with FlowProducer(url=url, key=KEY) as flows:
        tree = flows.add({"name": "top", "queueName": "mails", "children": [{"name": "c", "queueName": "sub"}]})
        shown = flows.getFlow({"queueName": "mails", "id": tree["job"]["id"]})
    assert shown is not None
    assert len(shown["children"]) == 1


def test_a_worker_gives_jobs_back_delays_and_waits_for_children(queue: Queue, url: str) -> None:
    seen: list[str] = []

    def work(job: WorkerJob) -> None:
        seen.append(job.id)
        assert not job.isCancelled
        if seen == ["j"]:
            job.release()
        elif seen == ["j", "j"]:
            job.delayFor(1)
        else:
            assert not job.waitChildren()
            worker.close()

    worker = Worker("mails", work, url=url, key=KEY)
    queue.add("x", opts={"jobId": "j"})
    worker.run()
    assert queue.getJobState("j") == "completed"


def test_a_refusal_is_raised(url: str) -> None:
    with Queue("mails", url=url, key="wrong") as queue:
        with pytest.raises(UnauthorizedError):
            queue.count()
        queue.close()
        with pytest.raises(ClosedError):
            queue.count()
    with pytest.raises(UnauthorizedError):
        QueueEvents("mails", url=url, key="wrong")
    with pytest.raises(UnauthorizedError):
        Worker("mails", lambda job: None, url=url, key="wrong").run()
