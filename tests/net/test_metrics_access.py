"""Access to the metrics: by which key and on which port; and those of queues, which name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bullmq_proxy.gateway import queue_metrics
from tests.net.conftest import MakeGateway
from tests.net.support import RawClient, get, upgrade
from tests.support.keys import entry, write_keys
from tests.support.ports import free_port


async def test_metrics_may_need_a_key_that_sees_all_queues(make_gateway: MakeGateway, tmp_path: Path) -> None:
    keys = write_keys(
        tmp_path / "keys.toml",
        entry("all", "observe"),
        entry("some", "observe", queues=["mails"]),
        entry("producer", "produce"),
    )
    gateway = await make_gateway(metrics_auth=True, keys_file=keys)
    statuses = {
        key: (await get(gateway.port, "/metrics", f"Authorization: Bearer {key}")).status
        for key in ("all", "some", "producer", "wrong")
    }
    assert statuses == {"all": 200, "some": 403, "producer": 403, "wrong": 401}
    assert (await get(gateway.port, "/metrics?token=all")).status == 200
    assert (await get(gateway.port, "/metrics")).status == 401
    assert (await get(gateway.port, "/health")).status == 200


async def test_a_port_of_their_own_has_nothing_else(make_gateway: MakeGateway) -> None:
    admin = free_port()
    gateway = await make_gateway(admin_port=admin)
    for path in ("/health", "/ready"):
        assert [(await get(port, path)).status for port in (gateway.port, admin)] == [200, 200]
    assert [(await get(port, "/metrics")).status for port in (gateway.port, admin)] == [404, 200]
    async with await RawClient.connect(admin) as client:
        assert (await client.fetch("GET", "/queue/q/count")).status == 404
    assert (await upgrade(admin, "/queue/q")).status == 404
    assert (await upgrade(gateway.port, "/queue/q")).status == 101


async def test_queues_are_named_only_where_it_is_wanted(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await make_gateway(metrics_queues=10)
    async with (
        await RawClient.open(gateway.port, "/queue/mails") as producer,
        await RawClient.open(gateway.port, "/queue/mails/process/1") as worker,
    ):
        for _ in range(3):
            await producer.ask("add", "n", {})
        await worker.message()
        page = (await get(gateway.port, "/metrics")).body.decode()
        assert 'bullmq_job_count{queue="mails",state="active"} 1\n' in page
        assert 'bullmq_proxy_queue_jobs{queue="mails",state="waiting"} 2\n' in page
        assert 'bullmq_proxy_queue_workers{queue="mails"} 1\n' in page
        assert 'bullmq_proxy_queue_oldest_seconds{queue="mails"} ' in page
        await producer.ask("add", "n", {})
        assert 'bullmq_proxy_queue_jobs{queue="mails",state="waiting"} 2\n' in await shown(gateway.port)
        monkeypatch.setattr(queue_metrics, "FRESH", 0.0)
        assert 'bullmq_proxy_queue_jobs{queue="mails",state="waiting"} 3\n' in await shown(gateway.port)
    other = await make_gateway()
    assert "mails" not in await shown(other.port)


async def shown(port: int) -> str:
    """The page of metrics."""
    return (await get(port, "/metrics")).body.decode()
