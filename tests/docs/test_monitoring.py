"""The alert rules and the dashboard ask for metrics and labels that there are, and Prometheus can read the rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from tests.docs.markdown import PROTOCOL, sections
from tests.support.service import ROOT
from tests.support.waiting import TIMEOUT

FOLDER = ROOT / "docs" / "monitoring"
ALERTS = FOLDER / "alerts.yaml"
PROMTOOL = shutil.which("promtool")
NAMED = [row for part in sections(PROTOCOL) for row in part.rows if row[0].startswith("`bullmq_proxy_")]
ROWS = [row for row in NAMED if len(row) > 2]  # those of queues have another table, and no rule or panel
METRICS = {row[0].strip("`"): row[1] for row in ROWS}
LABELS = {row[0].strip("`"): set(re.findall(r"\w+", row[2])) | {"slot", "instance", "le"} for row in ROWS}


def rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    yield from (rule["expr"] for rule in rules())


@pytest.mark.parametrize("expression", [*expressions()])
def test_each_expression_asks_for_metrics_and_labels_that_there_are(expression: str) -> None:
    names = re.findall(r"bullmq_proxy_\w+", expression)
    assert names
    for name in names:
        metric = name.removesuffix("_bucket")
        assert metric in METRICS
        assert (METRICS[metric] == "histogram") is name.endswith("_bucket")
        assert (METRICS[metric] == "gauge") is not bool(re.search(rf"(?:rate|increase)\({name}", expression))
        for by in re.findall(r"by \(([^)]*)\)", expression):
            assert set(re.findall(r"\w+", by)) <= LABELS[metric]


def test_each_alert_is_explained() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert re.findall(r"^\| `(BullmqProxy\w+)`", page, re.MULTILINE) == [rule["alert"] for rule in rules()]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here")
def test_prometheus_can_read_the_rules() -> None:
    command = [str(PROMTOOL), "check", "rules", str(ALERTS)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
