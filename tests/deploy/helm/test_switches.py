"""What each value switches on, and that it is off otherwise."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
import yaml

from tests.deploy.helm.chart import MATRIX, notes, render
from tests.deploy.tools import DEPLOY

SCRAPED = {"monitor": "ServiceMonitor"}
LET_IN = {"enabled": False}


def test_the_command_line_by_default() -> None:
    assert render().server["args"] == ["serve", "--host=0.0.0.0", "--port=8000", "--shutdown-timeout=30"]
    assert "env" not in render().server


def test_a_model_comes_first_on_the_command_line() -> None:
    model = {"name": "org/model", "revision": "main", "servedName": "mine", "hubTokenSecret": "hub"}
    server = render({"model": model}).server
    assert server["args"][:2] == ["serve", "org/model"]
    assert {"--revision=main", "--served-model-name=mine"} <= set(server["args"])
    assert server["env"] == [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]


@pytest.mark.parametrize("mode", ["off", "shadow", "on"])
def test_the_healing_mode(mode: str) -> None:
    rendered = render({"healing": {"mode": mode}})
    assert f"--healing={mode}" in rendered.server["args"]
    assert ("try-e3rl-test-healing" in names(rendered.of("Pod"))) == (mode != "off")


def test_a_profile_is_mounted_and_restarts_the_pods_when_it_changes() -> None:
    profiles = ('{"version": 1}', '{"version": 1, "segments": 9}')
    one, other = (render({"healing": {"profile": profile}}) for profile in profiles)
    assert "--profile=/etc/e3rl/healing_profile.json" in one.server["args"]
    assert {"name": "profile", "mountPath": "/etc/e3rl", "readOnly": True} in one.server["volumeMounts"]
    config = next(each for each in one.of("ConfigMap") if each["metadata"]["name"] == "try-e3rl-profile")
    assert config["data"] == {"healing_profile.json": profiles[0]}
    checksums = {
        each.workload["spec"]["template"]["metadata"]["annotations"]["checksum/profile"] for each in (one, other)
    }
    assert len(checksums) == 2


def test_adapters() -> None:
    args = render(MATRIX["everything"]).server["args"]
    place = args.index("--enable-lora")
    assert args[place + 1 : place + 4] == ["--lora-modules", "sql=org/sql", "law=/models/law"]
    assert args[-1] == "--max-model-len=4096"


def test_gpus_come_with_their_image_their_taint_and_tensor_parallel() -> None:
    rendered = render({"gpu": {"count": 4, "resource": "nvidia.com/gpu"}})
    assert rendered.server["image"] == "e3rl:0.1.0-cuda"
    assert rendered.server["resources"]["limits"] == {"nvidia.com/gpu": 4, "memory": "6Gi"}
    assert rendered.pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "--tensor-parallel-size=4" in rendered.server["args"]


def test_one_gpu_is_not_split_and_none_is_not_asked_for() -> None:
    assert not any("tensor" in arg for arg in render({"gpu": {"count": 1}}).server["args"])
    assert render().server["image"] == "e3rl:0.1.0-cpu"
    assert render().server["resources"]["limits"] == {"memory": "6Gi"}
    assert "tolerations" not in render().pod


def test_an_api_key_is_made_and_used_by_server_and_tests() -> None:
    rendered = render({"apiKey": {"enabled": True}})
    secret = rendered.one("Secret")
    assert len(base64.b64decode(secret["data"]["api-key"])) == 40
    reference = {"secretKeyRef": {"name": secret["metadata"]["name"], "key": "api-key"}}
    assert rendered.server["env"] == [{"name": "VLLM_API_KEY", "valueFrom": reference}]
    for pod in rendered.of("Pod"):
        assert pod["spec"]["containers"][0]["env"] == [{"name": "API_KEY", "valueFrom": reference}]


def test_an_api_key_of_one_s_own_is_not_made() -> None:
    rendered = render({"apiKey": {"enabled": True, "existingSecret": "mine"}})
    assert rendered.of("Secret") == []
    assert rendered.server["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "mine"


def cache_of(cache: dict[str, Any]) -> Any:
    return next(volume for volume in render({"cache": cache}).pod["volumes"] if volume["name"] == "cache")


def test_the_cache() -> None:
    assert cache_of({}) == {"name": "cache", "emptyDir": {"sizeLimit": "20Gi"}}
    made = {"name": "cache", "persistentVolumeClaim": {"claimName": "try-e3rl-cache"}}
    assert cache_of({"persistent": True, "accessMode": "ReadWriteMany"}) == made
    given = {"name": "cache", "persistentVolumeClaim": {"claimName": "mine"}}
    assert cache_of({"existingClaim": "mine"}) == given
    assert render({"cache": {"existingClaim": "mine"}}).of("PersistentVolumeClaim") == []


@pytest.mark.parametrize("mode", ["ReadWriteOnce", "ReadWriteOncePod"])
def test_a_claim_for_one_node_is_each_replica_s_own(mode: str) -> None:
    cache = {"persistent": True, "accessMode": mode, "size": "7Gi", "storageClass": "fast"}
    rendered = render({"replicas": 3, "cache": cache})
    spec = rendered.one("StatefulSet")["spec"]
    (template,) = spec["volumeClaimTemplates"]
    assert template["metadata"]["name"] == "cache"
    assert template["spec"] == {
        "accessModes": [mode],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "7Gi"}},
    }
    assert spec["replicas"] == 3 and spec["podManagementPolicy"] == "Parallel"
    assert spec["serviceName"] == rendered.one("Service")["metadata"]["name"]
    assert rendered.of("Deployment") == rendered.of("PersistentVolumeClaim") == []


def test_what_cannot_change_in_a_stateful_set_does_not_change_with_the_version() -> None:
    spec = render({"cache": {"persistent": True}}).one("StatefulSet")["spec"]
    labels = spec["volumeClaimTemplates"][0]["metadata"]["labels"]
    assert labels == spec["selector"]["matchLabels"]
    assert not {"app.kubernetes.io/version", "helm.sh/chart"} & labels.keys()


def test_a_claim_for_one_pod_is_given_up_before_the_next_pod_wants_it() -> None:
    def strategy(cache: dict[str, Any]) -> str:
        return str(render({"cache": cache}).one("Deployment")["spec"]["strategy"]["type"])

    assert strategy({}) == "RollingUpdate"
    assert strategy({"existingClaim": "mine"}) == "Recreate"
    assert strategy({"existingClaim": "mine", "accessMode": "ReadWriteMany"}) == "RollingUpdate"
    assert strategy({"persistent": True, "accessMode": "ReadWriteMany"}) == "RollingUpdate"


@pytest.mark.parametrize(("before", "seconds"), [(5, 30), (20, 0), (1, 600)])
def test_the_pod_lives_until_it_is_drained(before: int, seconds: int) -> None:
    rendered = render({"drain": {"preStopSeconds": before, "seconds": seconds}})
    assert rendered.server["lifecycle"] == {"preStop": {"sleep": {"seconds": before}}}
    assert f"--shutdown-timeout={seconds}" in rendered.server["args"]
    assert rendered.pod["terminationGracePeriodSeconds"] == before + seconds + 15


def test_probes_give_a_start_its_time() -> None:
    server = render({"startupSeconds": 603}).server
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 605
    paths = [server[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
    assert paths == ["/health/ready", "/health/ready", "/health/live"]


def test_hpa() -> None:
    values = {"autoscaling": {"type": "hpa", "maxReplicas": 8, "kvCacheUsage": 0.75}, "monitoring": SCRAPED}
    rendered = render(values)
    scaler = rendered.one("HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in rendered.workload["spec"]
    targets = {metric["pods"]["metric"]["name"]: metric["pods"]["target"] for metric in scaler["metrics"]}
    adapter = yaml.safe_load((DEPLOY / "monitoring/prometheus-adapter.yaml").read_text("utf-8"))
    assert targets.keys() == {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    assert targets["e3rl_kv_cache_usage"] == {"type": "AverageValue", "averageValue": "750m"}


def test_keda_asks_for_this_release() -> None:
    rendered = render({"autoscaling": {"type": "keda"}, "monitoring": {"monitor": "PodMonitor"}})
    scaled = rendered.one("ScaledObject")["spec"]
    assert "replicas" not in rendered.workload["spec"]
    assert [trigger["metadata"]["query"] for trigger in scaled["triggers"]] == [
        'sum(vllm:num_requests_waiting{namespace="models", release="try"})',
        'sum(vllm:kv_cache_usage_perc{namespace="models", release="try"})',
    ]


@pytest.mark.parametrize(("scaler", "of"), [("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")])
@pytest.mark.parametrize("cache", [{}, {"persistent": True}])
def test_what_makes_the_pods_is_scaled(scaler: str, of: str, cache: dict[str, Any]) -> None:
    rendered = render({"autoscaling": {"type": scaler}, "monitoring": SCRAPED, "cache": cache})
    target = rendered.one(of)["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (rendered.workload["kind"], rendered.workload["metadata"]["name"])


@pytest.mark.parametrize(("kind", "where"), [("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")])
def test_a_monitor_sets_the_labels_that_rules_select(kind: str, where: str) -> None:
    rendered = render({"monitoring": {"monitor": kind, "labels": {"team": "ml"}}})
    (endpoint,) = rendered.one(kind)["spec"][where]
    assert {each["targetLabel"]: each["replacement"] for each in endpoint["relabelings"]} == {
        "job": "e3rl",
        "release": "try",
    }
    assert rendered.one(kind)["metadata"]["labels"]["team"] == "ml"
    assert rendered.one("NetworkPolicy")["spec"]["ingress"][0]["from"][1:] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]


def test_rules_are_those_of_the_files_less_what_is_disabled() -> None:
    def groups(**more: Any) -> Any:
        return render({"monitoring": {**SCRAPED, "rules": True, **more}}).one("PrometheusRule")["spec"]["groups"]

    files = ("recording-rules.yaml", "alerts.yaml")
    written = [yaml.safe_load((DEPLOY / "monitoring" / name).read_text("utf-8"))["groups"] for name in files]
    assert groups() == [*written[0], *written[1]]
    assert "E3rlAbsent" not in json.dumps(groups(disabledAlerts=["E3rlAbsent"]))


def test_ingress() -> None:
    values = {"ingress": {"enabled": True, "host": "e3rl.example", "tlsSecret": "tls"}, "networkPolicy": LET_IN}
    ingress = render(values).one("Ingress")["spec"]
    assert ingress["tls"] == [{"secretName": "tls", "hosts": ["e3rl.example"]}]
    assert ingress["rules"][0]["http"]["paths"][0]["path"] == "/v1"


def test_a_route_leads_to_the_service_or_to_the_pool() -> None:
    route = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]}, "networkPolicy": LET_IN}
    pool = {"inferencePool": {"enabled": True, "endpointPicker": "picker"}}
    (plain,) = render(route).one("HTTPRoute")["spec"]["rules"]
    (pooled,) = render({**route, **pool}).one("HTTPRoute")["spec"]["rules"]
    assert plain["backendRefs"] == [{"name": "try-e3rl", "port": 80}]
    assert pooled["backendRefs"][0]["kind"] == "InferencePool"
    assert plain["timeouts"] == {"request": "0s"}


def test_what_is_off_by_default() -> None:
    assert sorted({resource["kind"] for resource in render()}) == [
        "ConfigMap", "Deployment", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Service", "ServiceAccount",
    ]  # fmt: skip


def test_switching_off() -> None:
    off = {"podDisruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}}
    assert not {"PodDisruptionBudget", "NetworkPolicy"} & {resource["kind"] for resource in render(off)}


def names(resources: list[dict[str, Any]]) -> set[str]:
    return {resource["metadata"]["name"] for resource in resources}


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_every_pod_meets_the_restricted_standard(values: dict[str, Any]) -> None:
    rendered = render(values)
    for pod in [rendered.pod, *(pod["spec"] for pod in rendered.of("Pod"))]:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 10000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_selectors_find_the_server_s_pods_and_no_others(values: dict[str, Any]) -> None:
    rendered = render(values)
    wanted = rendered.workload["spec"]["selector"]["matchLabels"].items()
    assert wanted <= rendered.workload["spec"]["template"]["metadata"]["labels"].items()
    assert rendered.one("Service")["spec"]["selector"].items() == wanted
    for pod in rendered.of("Pod"):
        assert not wanted <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_every_volume_is_mounted_and_every_mount_has_a_volume(values: dict[str, Any]) -> None:
    rendered = render(values)
    claims = (claim["metadata"]["name"] for claim in rendered.workload["spec"].get("volumeClaimTemplates", []))
    assert sorted([*(volume["name"] for volume in rendered.pod["volumes"]), *claims]) == sorted(
        mount["name"] for mount in rendered.server["volumeMounts"]
    )


def test_helm_s_own_tests_know_their_script() -> None:
    script = next(each for each in render().of("ConfigMap") if each["metadata"]["name"].endswith("-smoke"))
    offered = set(re.findall(r'^    "(\w+)": \1,$', script["data"]["smoke.py"], re.MULTILINE))
    called = {pod["spec"]["containers"][0]["args"][0] for pod in render().of("Pod")}
    assert called == offered == {"models", "completion", "healing", "metrics"}
    assert all(each["metadata"]["annotations"]["helm.sh/hook"] == "test" for each in [script, *render().of("Pod")])


def test_the_notes_tell_the_next_commands() -> None:
    told = notes({"apiKey": {"enabled": True}})
    assert "rollout status deployment/try-e3rl" in told
    assert "rollout status statefulset/try-e3rl" in notes({"cache": {"persistent": True}})
    assert "helm test try --namespace models" in told
    assert "get secret try-e3rl-api-key" in told and "authorization: Bearer $API_KEY" in told
    assert "port-forward service/try-e3rl 8000:80" in told
    assert "Everybody" not in told


def test_the_notes_warn_of_what_may_be_missing() -> None:
    ingress = {"ingress": {"enabled": True, "host": "e3rl.example"}, "networkPolicy": LET_IN}
    told = notes({"model": {"name": "org/model", "hubTokenSecret": "hub"}, **ingress})
    assert "serves org/model" in told and "describe pod" in told
    assert "curl http://e3rl.example/v1/models" in told
    assert "Everybody who reaches it may use it" in told
