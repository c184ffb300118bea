"""Renders the chart with real Helm, and finds things in what comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from tests.deploy.tools import DEPLOY, run

CHART = DEPLOY / "helm/e3rl"

#: Values that switch on all that can be on together, and the other ways of those that cannot.
MATRIX: dict[str, dict[str, Any]] = {
    "default": {},
    "cpu replicas": {"replicas": 3, "healing": {"mode": "shadow"}, "apiKey": {"enabled": True}},
    "healing off": {"healing": {"mode": "off"}, "networkPolicy": {"enabled": False}},
    "no disruption budget": {"podDisruptionBudget": {"enabled": False}, "serviceAccount": {"annotations": {"a": "b"}}},
    "persistent cache": {"cache": {"persistent": True, "storageClass": "fast"}},
    "shared cache": {"cache": {"persistent": True, "accessMode": "ReadWriteMany"}, "replicas": 2},
    "own cache and key": {"cache": {"existingClaim": "weights"}, "apiKey": {"enabled": True, "existingSecret": "keys"}},
    "hpa": {"autoscaling": {"type": "hpa"}, "monitoring": {"monitor": "ServiceMonitor", "rules": True}},
    "keda, a cache each": {
        "autoscaling": {"type": "keda"},
        "monitoring": {"monitor": "PodMonitor"},
        "cache": {"persistent": True},
    },
    "ingress": {
        "ingress": {"enabled": True, "className": "nginx", "host": "e3rl.example", "annotations": {"a": "b"}},
        "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
    },
    "route to a service": {
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway", "namespace": "gateways"}]},
        "networkPolicy": {"enabled": False},
    },
    "everything": {
        "image": {"repository": "registry.example/e3rl", "digest": f"sha256:{'a' * 64}", "pullSecrets": ["pull"]},
        "model": {"name": "org/model", "revision": "main", "servedName": "model", "hubTokenSecret": "hub"},
        "healing": {"mode": "on", "preset": "paper", "profile": '{"version": 1}'},
        "lora": [{"name": "sql", "path": "org/sql"}, {"name": "law", "path": "/models/law"}],
        "args": ["--max-model-len=4096"],
        "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "WARNING"}],
        "volumes": [{"name": "models", "emptyDir": {}}],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        "apiKey": {"enabled": True},
        "gpu": {"count": 2},
        "cache": {"persistent": True, "accessMode": "ReadWriteMany"},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "ingress": {"enabled": True, "host": "e3rl.example", "tlsSecret": "tls"},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["e3rl.example"]},
        "inferencePool": {"enabled": True, "endpointPicker": "picker"},
        "autoscaling": {"type": "keda"},
        "networkPolicy": {"from": [{"podSelector": {}}], "egress": [{"ports": [{"port": 6379}]}]},
        "monitoring": {"monitor": "PodMonitor", "rules": True, "dashboard": True, "labels": {"team": "ml"}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "ml"},
        "priorityClassName": "high",
        "runtimeClassName": "nvidia",
        "nodeSelector": {"pool": "gpu"},
        "affinity": {"nodeAffinity": {}},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    },
}  # fmt: skip


class Refused(Exception):
    """Helm did not render; the message is what it said."""


class Rendered(list[dict[str, Any]]):
    """The resources that came out."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [resource for resource in self if resource["kind"] == kind]

    def one(self, kind: str) -> Any:
        (resource,) = self.of(kind)
        return resource

    @property
    def workload(self) -> Any:
        """The Deployment or StatefulSet: what makes the server's pods."""
        (resource,) = self.of("Deployment") + self.of("StatefulSet")
        return resource

    @property
    def pod(self) -> Any:
        """The server's pod, as the workload makes it."""
        return self.workload["spec"]["template"]["spec"]

    @property
    def server(self) -> Any:
        (container,) = self.pod["containers"]
        return container


def render_text(values: Mapping[str, Any], *flags: str, chart: Path = CHART) -> str:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "values.json"
        file.write_text(json.dumps(values), "utf-8")
        done = run("helm", "template", "try", chart, "--namespace", "models", "--values", file, *flags)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def render(values: Mapping[str, Any] | None = None, *flags: str) -> Rendered:
    return Rendered(filter(None, yaml.safe_load_all(render_text(values or {}, *flags))))


def notes(values: Mapping[str, Any]) -> str:
    """What `helm install` tells the user."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "values.json"
        file.write_text(json.dumps(values), "utf-8")
        flags = ("--dry-run=client", "--namespace", "models", "--values", file)
        done = run("helm", "install", "try", CHART, *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def refusal(values: Mapping[str, Any]) -> str:
    """What Helm says of values that must not render."""
    with pytest.raises(Refused) as refused:
        render(values)
    return str(refused.value)
