"""The manifests of docs/kubernetes.md fit the gateway: probes, variables, and the time that a pod gets to end."""

from __future__ import annotations

from typing import Any

import yaml

from bullmq_proxy.gateway.wire.endpoints import PageEndpoint
from bullmq_proxy.supervisor.fleet import GRACE
from bullmq_proxy.supervisor.sources import resolve
from tests.docs.markdown import only_block
from tests.support.service import ROOT

MANIFESTS: dict[str, Any] = {
    each["kind"]: each for each in yaml.safe_load_all(only_block(ROOT / "docs" / "kubernetes.md", "yaml"))
}
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]


def test_its_variables_are_settings_and_a_pod_has_the_time_that_they_ask_for() -> None:
    variables = {each["name"]: each["value"] for each in CONTAINER["env"]} | MANIFESTS["Secret"]["stringData"]
    variables["AUTH_KEYS"] = "0123456789abcdef"
    settings = resolve({}, variables, None).settings  # refuses what it does not know
    takes = settings.shutdown_delay + settings.drain_timeout + 2 * GRACE
    assert POD["terminationGracePeriodSeconds"] >= takes
    assert settings.redis_url == "redis://:that%20of%20the%20server@valkey:6379"


def test_it_probes_what_there_is() -> None:
    pages = {path for page in PageEndpoint for path in page.value.paths}
    probes = [CONTAINER[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert probes == ["/health", "/health", "/ready"]
    assert pages.issuperset(probes)
    [port] = [each["containerPort"] for each in CONTAINER["ports"]]
    assert f"PORT={port}" in (ROOT / "Dockerfile").read_text()


def test_its_parts_belong_together() -> None:
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        MANIFESTS["Service"]["spec"]["selector"],
        MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector == labels
    assert CONTAINER["envFrom"] == [{"secretRef": {"name": MANIFESTS["Secret"]["metadata"]["name"]}}]
