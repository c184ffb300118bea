"""The chart as a whole: lint, package, and every manifest against Kubernetes' own schemas and those of others."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import e3rl_core
from tests.deploy.helm.chart import CHART, MATRIX, Rendered, render, render_text
from tests.deploy.tools import DEPLOY, run

#: The oldest version that the chart allows (Chart.yaml), and the newest there are schemas for.
VERSIONS = ("1.30", "1.37")

#: Custom resources: the fields of their definitions that the chart uses, and no others.
CUSTOM = yaml.safe_load((Path(__file__).parent / "custom_resources.yaml").read_text("utf-8"))

#: What checkov asks for and the chart does not do.
DECLINED = {
    "CKV_K8S_11": "a limit on CPU slows decoding down; the request is the promise",
    "CKV_K8S_15": "an image is named by version or digest: pulling it again brings nothing",
    "CKV_K8S_21": "a namespace is for `helm install` to choose",
    "CKV_K8S_35": "vLLM takes its key from a variable or, visible to all, from the command line",
    "CKV_K8S_43": "image.digest is for who has a registry",
}
#: Likewise, of the pods of `helm test` alone: they run for seconds and nobody connects to them.
DECLINED_OF_TESTS = {"CKV_K8S_8", "CKV_K8S_9", "CKV2_K8S_6"}

matrix = pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())


@matrix
def test_lint_is_strict_and_silent(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "values.json").write_text(json.dumps(values), "utf-8")
    linted = run("helm", "lint", "--strict", CHART, "--values", tmp_path / "values.json")
    assert linted.returncode == 0, linted.stdout
    assert "[WARNING]" not in linted.stdout


@matrix
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_resource(values: dict[str, Any], version: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(render_text(values), "utf-8")
    checked = run("kubernetes-validate", "--strict", "-k", version, tmp_path / "all.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"against version {version}" in checked.stdout + checked.stderr


@matrix
def test_custom_resources_are_as_defined(values: dict[str, Any]) -> None:
    for resource in render(values):
        if schema := CUSTOM.get(resource["kind"]):
            jsonschema.validate(resource, {**schema, "$defs": CUSTOM["$defs"]})


@pytest.mark.parametrize("name", ["default", "everything", "keda, a cache each"])
def test_checkov_finds_what_was_declined_and_no_more(name: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(render_text(MATRIX[name]), "utf-8")
    flags = ("--framework", "kubernetes", "--skip-download", "--quiet", "--compact", "--output", "json")
    checked = run("checkov", *flags, "--file", tmp_path / "all.yaml")
    report = json.loads(checked.stdout)
    assert report["summary"]["passed"] > 100 and report["summary"]["parsing_errors"] == 0
    found = {(finding["check_id"], finding["resource"]) for finding in report["results"]["failed_checks"]}
    unwanted = {(check, resource) for check, resource in found if check not in DECLINED}
    assert {check for check, resource in unwanted if resource.startswith("Pod.")} == DECLINED_OF_TESTS
    assert not {resource for _, resource in unwanted if not resource.startswith("Pod.")}


def test_all_kinds_are_rendered_and_known() -> None:
    kinds = {resource["kind"] for values in MATRIX.values() for resource in render(values)}
    assert kinds >= CUSTOM.keys() - {"$defs"}
    assert kinds - CUSTOM.keys() == {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "PersistentVolumeClaim",
        "Pod", "PodDisruptionBudget", "Secret", "Service", "ServiceAccount", "StatefulSet",
    }  # fmt: skip


@matrix
def test_every_resource_carries_the_common_labels(values: dict[str, Any]) -> None:
    for resource in render(values):
        labels = resource["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "try", resource["kind"]
        assert labels["helm.sh/chart"].startswith("e3rl-")


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    assert unlike(values, schema, "") == []


def unlike(values: dict[str, Any], schema: dict[str, Any], path: str) -> list[str]:
    """Keys that only one of the two has; objects that are free below are not looked into."""
    known = schema.get("properties", {})
    optional = {"global", "resources.claims"}
    found = [f"{path}{key}" for key in values.keys() ^ known.keys() if f"{path}{key}" not in optional]
    for key in values.keys() & known.keys():
        if isinstance(values[key], dict) and "properties" in known[key]:
            found += unlike(values[key], known[key], f"{path}{key}.")
    return found


def test_the_package_holds_rules_and_dashboard_as_they_are(tmp_path: Path) -> None:
    packaged = run("helm", "package", CHART, "--destination", tmp_path)
    assert packaged.returncode == 0, packaged.stderr
    with tarfile.open(next(tmp_path.glob("e3rl-*.tgz"))) as tar:
        for name in ("dashboard.json", "alerts.yaml", "recording-rules.yaml"):
            file = tar.extractfile(f"e3rl/monitoring/{name}")
            assert file is not None
            assert file.read() == (DEPLOY / "monitoring" / name).read_bytes()
    text = render_text({"monitoring": {"dashboard": True}}, chart=next(tmp_path.glob("e3rl-*.tgz")))
    config = Rendered(yaml.safe_load_all(text)).of("ConfigMap")[0]
    assert config["data"]["e3rl.json"] == (DEPLOY / "monitoring/dashboard.json").read_text("utf-8")


def test_the_version_is_the_project_s() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["version"] == chart["appVersion"] == e3rl_core.__version__
