"""Tracing is off by default, and costs nothing then; switched on, it says what is missing."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bullmq_proxy.gateway import start_proxy
from bullmq_proxy.gateway.tracing import extra, spans
from bullmq_proxy.gateway.tracing.extra import TracingError, exporter
from tests.sessions.peer import Gateway
from tests.support.collector import Collector
from tests.support.service import run_here
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually

REMEDY = "the packages of OpenTelemetry are missing: pip install 'bullmq-proxy[otel]'"


def test_nothing_of_it_is_imported_by_default() -> None:
    code = "import sys, bullmq_proxy.gateway.shard; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_a_gateway_without_it_sends_no_spans(valkey: ValkeyProcess, prefix: str, collector: Collector) -> None:
    async with Gateway(valkey.url, prefix=prefix) as gateway:
        job = await (await gateway.queue()).call("add", "welcome")
        worker = await gateway.worker()
        pushed = await worker.job()
        await pushed.answer(result=1)
    assert "telemetry" not in job["opts"]
    assert "telemetry" not in pushed.shown["opts"]
    assert collector.spans == []


def test_missing_packages_stop_the_start_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    result = run_here(tmp_path, "config", "--tracing")
    assert (result.returncode, result.stderr) == (2, f"bullmq-proxy: error: tracing: {REMEDY}\n")


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin': expected otlp, console, none"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc': spans are sent by http/protobuf, to port 4318 as a rule",
        ),
    ],
)
def test_variables_that_ask_for_something_else_stop_it(
    tmp_path: Path, environment: dict[str, str], problem: str
) -> None:
    result = run_here(tmp_path, "config", "--tracing", env=environment)
    assert (result.returncode, result.stderr) == (2, f"bullmq-proxy: error: tracing: {problem}\n")
    assert run_here(tmp_path, "config", env=environment).returncode == 0
    with pytest.raises(TracingError):
        exporter(environment)


async def test_an_embedded_gateway_says_so_too(valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ValueError, match="OTEL_TRACES_EXPORTER"):
        await start_proxy(valkey.url, no_auth=True, port=0, tracing=True).start()


async def test_opentelemetry_can_be_switched_off_for_all(
    valkey: ValkeyProcess, prefix: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with Gateway(valkey.url, prefix=prefix, tracing=True) as gateway:
        assert "telemetry" not in (await (await gateway.queue()).call("add", "welcome"))["opts"]


async def test_spans_can_be_printed(
    valkey: ValkeyProcess, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    async with Gateway(valkey.url, prefix=prefix, tracing=True) as gateway:
        await (await gateway.queue()).call("add", "welcome")
    printed = capsys.readouterr().out
    assert '"name": "add q.welcome"' in printed
    assert '"service.name": "mine"' in printed


async def test_none_are_sent_where_the_sampler_takes_none(
    valkey: ValkeyProcess, prefix: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with Gateway(valkey.url, prefix=prefix, tracing=True) as gateway:
        job = await (await gateway.queue()).call("add", "welcome")
    flags = json.loads(job["opts"]["telemetry"]["metadata"])["traceparent"].rpartition("-")[2]
    assert int(flags, 16) & 1 == 0  # whoever goes on with the trace takes none either
    assert collector.spans == []


async def test_a_collector_that_does_not_answer_keeps_nobody_waiting(
    valkey: ValkeyProcess, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
        monkeypatch.setattr(spans, "FLUSH_TIMEOUT", 0.1)
        async with Gateway(valkey.url, prefix=prefix, tracing=True) as gateway:
            queue = await gateway.queue()
            for _ in range(3):
                await queue.call("add", "welcome")
        assert "tracing: the last spans could not be sent in 0.1 s" in caplog.text
        await eventually(lambda: "Failed to export" in caplog.text, "the exporter gives up")


def test_what_the_library_says_is_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    handler = extra.Remarks()
    for place in range(5):
        handler.emit(logging.makeLogRecord({"msg": "Failed to export %s batch %d", "args": ("span", place)}))
    assert [record.getMessage() for record in caplog.records] == [
        "tracing: Failed to export span batch 0 - spans may be lost; said at most once in 60 s"
    ]
