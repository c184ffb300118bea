"""Wrong values do not render: Helm names the key, by the schema or by what contradicts it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.helm.chart import refusal

#: A wrong value, and the key that the message has to name.
ILL_TYPED: list[tuple[dict[str, Any], str]] = [
    ({"replica": 2}, "replica"),
    ({"replicas": "two"}, "/replicas"),
    ({"replicas": -1}, "/replicas"),
    ({"image": {"tga": "1"}}, "/image"),
    ({"image": {"digest": "sha256:short"}}, "/image/digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"model": {"name": "--host"}}, "/model/name"),
    ({"healing": {"mode": "maybe"}}, "/healing/mode"),
    ({"healing": {"mode": True}}, "/healing/mode"),
    ({"healing": {"profile": {"version": 1}}}, "/healing/profile"),
    ({"lora": [{"name": "sql"}]}, "/lora/0"),
    ({"args": "--max-model-len 4096"}, "/args"),
    ({"gpu": {"count": 0.5}}, "/gpu/count"),
    ({"sharedMemory": "plenty"}, "/sharedMemory"),
    ({"cache": {"accessMode": "ReadOnlyMany"}}, "/cache/accessMode"),
    ({"drain": {"preStopSeconds": 0}}, "/drain/preStopSeconds"),
    ({"service": {"port": 70000}}, "/service/port"),
    ({"autoscaling": {"type": "vpa"}}, "/autoscaling/type"),
    ({"autoscaling": {"minReplicas": 0}}, "/autoscaling/minReplicas"),
    ({"autoscaling": {"kvCacheUsage": 80}}, "/autoscaling/kvCacheUsage"),
    ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable"),
    ({"networkPolicy": {"from": [{"pods": {}}]}}, "/networkPolicy/from/0"),
    ({"monitoring": {"monitor": "Prometheus"}}, "/monitoring/monitor"),
    ({"monitoring": {"interval": "15"}}, "/monitoring/interval"),
    ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "/topologySpreadConstraints/0"),
]

SCRAPED = {"monitoring": {"monitor": "PodMonitor"}}

#: Values that are right each for itself, and the beginning of what Helm has to say of them together.
CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"healing": {"mode": "off", "preset": "paper"}}, "healing.preset and healing.profile have no effect"),
    ({"healing": {"profile": "healing_profile.json"}}, "healing.profile is not a JSON object"),
    ({"healing": {"profile": "[1]"}}, "healing.profile is not a JSON object"),
    ({"apiKey": {"existingSecret": "mine"}}, "apiKey.existingSecret has no effect"),
    ({"model": {"revision": "main"}}, "model.revision needs model.name"),
    ({"args": ["--api-key=secret"]}, "args: --api-key is set by the chart"),
    ({"args": ["--port", "9000"]}, "args: --port is set by the chart"),
    ({"cache": {"existingClaim": "mine", "persistent": True}}, "cache.existingClaim and cache.persistent exclude"),
    ({"replicas": 2, "cache": {"existingClaim": "mine"}}, "cache.existingClaim with several replicas needs"),
    ({**SCRAPED, "autoscaling": {"type": "keda"}, "cache": {"existingClaim": "a"}}, "cache.existingClaim with several"),
    ({**SCRAPED, "autoscaling": {"type": "hpa", "minReplicas": 5}}, "autoscaling.minReplicas is above"),
    ({"autoscaling": {"type": "hpa"}}, "autoscaling.type needs monitoring.monitor"),
    ({"autoscaling": {"type": "keda"}}, "autoscaling.type needs monitoring.monitor"),
    ({"monitoring": {"rules": True}}, "monitoring.rules needs monitoring.monitor"),
    ({"monitoring": {"disabledAlerts": ["E3rlDown"]}}, "monitoring.disabledAlerts has no effect"),
    ({"monitoring": {**SCRAPED["monitoring"], "rules": True, "disabledAlerts": ["E3rlDwon"]}}, "E3rlDwon is no alert"),
    ({"ingress": {"enabled": True, "host": "a"}}, "networkPolicy.from must name"),
    ({"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}}, "networkPolicy.from must name"),
    ({"ingress": {"enabled": True}, "networkPolicy": {"enabled": False}}, "ingress.host is missing"),
    ({"httpRoute": {"enabled": True}, "networkPolicy": {"enabled": False}}, "httpRoute.parentRefs must name"),
    ({"inferencePool": {"enabled": True}}, "inferencePool.endpointPicker must name"),
]


@pytest.mark.parametrize(("values", "key"), ILL_TYPED, ids=lambda value: str(value)[:60])
def test_the_schema_names_the_key(values: dict[str, Any], key: str) -> None:
    said = refusal(values)
    assert "values don't meet the specifications of the schema" in said
    assert f"'{key}'" in said


@pytest.mark.parametrize(("values", "beginning"), CONTRADICTIONS, ids=lambda value: str(value)[:60])
def test_contradictions_are_told(values: dict[str, Any], beginning: str) -> None:
    assert beginning in refusal(values)
