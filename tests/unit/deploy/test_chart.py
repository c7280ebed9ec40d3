"""deploy/helm/conch, rendered by the real Helm and held against Kubernetes' own schemas."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from core.settings import ROOT, Settings
from serving.gateway.routes import router
from serving.statefile import state_file
from tests import deploy_tools
from tests.unit.deploy.commands import check_command, containers, settings_of

CHART = ROOT / "deploy" / "helm" / "conch"
GIVEN = {
    "events.nats": "nats://nats.events:4222",
    "events.redis": "redis://redis.events:6379/0",
    "secrets.feedbackKeys": "conch-feedback-keys",
    "secrets.apiKeys": "conch-api-keys",
}
ALL = {
    "autoscaling.enabled": "true",
    "podMonitor.enabled": "true",
    "loop.firstRelease": "true",
    "triton.arguments": "{--log-verbose=1}",
    "networkPolicy.monitoring[0].namespaceSelector.matchLabels.name": "monitoring",
    "nodeSelector.pool": "gpu",
    "storage.state.class": "shared",
}
"""Everything that is off by default."""
FOREIGN = {"PodMonitor"}
"""Kinds of the Prometheus operator: Kubernetes has no schema for them."""
Rendered = list[dict[str, Any]]


@pytest.fixture
def helm(require: Callable[[str, bool, str], None]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Helm."""
    there = deploy_tools.helm().is_file() and all(deploy_tools.schemas(one).is_dir() for one in deploy_tools.KUBERNETES)
    require("helm", there, "python -m tests.deploy_tools")

    def run(verb: str, values: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
        chosen = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        name = ["conch"] if verb == "template" else []
        command = [str(deploy_tools.helm()), verb, *name, str(CHART), *chosen, *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Rendered]:
    """The chart's manifests with the values that must be given, and others."""

    def manifests(**more: str) -> Rendered:
        done = helm("template", GIVEN | more, "--kube-version", f"{deploy_tools.KUBERNETES[-1]}.0")
        assert done.returncode == 0, done.stderr
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    return manifests


def the(found: Rendered, kind: str, name: str = "conch") -> dict[str, Any]:
    (one,) = (each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return one


def pods(found: Rendered) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod of everything that makes pods."""
    for one in found:
        spec = one.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "containers" in spec.get("template", {}).get("spec", {}):
            yield one["metadata"]["name"], spec["template"]["spec"]


def replica(found: Rendered) -> dict[str, Any]:
    return dict(pods(found))["conch"]


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = (each for each in containers(pod) if each["name"] == name)
    return one


def settings_in(found: Rendered, file: str) -> Settings:
    files = the(found, "ConfigMap")["data"]
    return Settings.model_validate(settings_of(files["user.toml"], files[file]))


def complaints(manifest: dict[str, Any], version: str) -> list[str]:
    """What Kubernetes' schema of that version has against a manifest."""
    folder = deploy_tools.schemas(version)
    group, _, number = manifest["apiVersion"].rpartition("/")
    suffix = f"{group.partition('.')[0]}-{number}" if group else number
    schema = json.loads((folder / f"{manifest['kind'].lower()}-{suffix}.json").read_text(encoding="utf-8"))
    definitions = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    schema["$id"] = "kubernetes:///schema.json"
    registry = jsonschema_rs.Registry([("kubernetes:///api/_definitions.json", definitions)])
    validator = jsonschema_rs.Draft202012Validator(schema, registry=registry)
    return [f"{'/'.join(map(str, one.instance_path))}: {one.message[:300]}" for one in validator.iter_errors(manifest)]


@pytest.mark.parametrize("version", deploy_tools.KUBERNETES)
@pytest.mark.parametrize("more", [{}, ALL], ids=["defaults", "everything"])
def test_manifests_are_what_kubernetes_expects(
    render: Callable[..., Rendered], version: str, more: dict[str, str]
) -> None:
    found = render(**more)
    assert len(found) > 9
    wrong = {one["kind"]: bad for one in found if one["kind"] not in FOREIGN and (bad := complaints(one, version))}
    assert wrong == {}


def test_a_wrong_manifest_would_be_found(render: Callable[..., Rendered]) -> None:
    broken = the(render(), "Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["periodSecond"] = 2
    broken["spec"]["replicas"] = "two"
    assert len(complaints(broken, "1.37")) == 2


def test_helm_finds_nothing_to_complain_about(helm: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = helm("lint", GIVEN | ALL, "--strict")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("events.nats", ""),
        ("secrets.apiKeys", ""),
        ("replicas", "0"),
        ("replica", "3"),
        ("images.tag", "latest"),
        ("loop.schedule", "daily"),
        ("triton.resources.limits.memory", "lots"),
    ],
)
def test_values_that_cannot_work_are_refused(
    helm: Callable[..., subprocess.CompletedProcess[str]], key: str, value: str
) -> None:
    done = helm("template", GIVEN | {key: value})
    assert done.returncode != 0
    assert key.split(".")[0] in done.stderr


def test_every_default_is_in_the_schema_and_the_other_way_round() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]) - {"global"} == set(values)  # `global` is Helm's own
    for name, value in values.items():
        if isinstance(value, dict) and "properties" in schema["properties"][name]:
            assert set(schema["properties"][name]["properties"]) == set(value), name


def test_every_command_and_setting_exists(render: Callable[..., Rendered]) -> None:
    found = render(**ALL)
    seen = 0
    for _, pod in pods(found):
        for one in containers(pod):
            check_command([*one["command"], *one["args"]])
            seen += 1
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if "exec" in one.get(probe, {}):
                    check_command(one[probe]["exec"]["command"])
    assert seen == 7
    for file in ("replica.toml", "home.toml"):
        settings_in(found, file)


def test_files_that_settings_and_commands_name_are_mounted(render: Callable[..., Rendered]) -> None:
    found = render()
    keys = {"replica.toml": ["/etc/conch-keys"], "home.toml": ["/etc/conch-keys"]}
    for name, pod in pods(found):
        for one in containers(pod):
            mounted = {mount["mountPath"] for mount in one["volumeMounts"]}
            (file,) = {part.rpartition("/")[2] for part in one["args"] if "--config=" in part} - {"user.toml"}
            assert {"/etc/conch", "/tmp", str(settings_in(found, file).paths.var)} <= mounted, (name, one["name"])
            if one["name"] in ("gateway", "ingest", "loop"):
                assert set(keys[file]) <= mounted
    gateway = settings_in(found, "replica.toml").gateway
    assert str(gateway.keys) == "/etc/conch-api-keys/api.keys"


def test_triton_stays_on_loopback_and_only_gateway_and_metrics_are_ports(render: Callable[..., Rendered]) -> None:
    found = render()
    settings, pod = settings_in(found, "replica.toml"), replica(found)
    assert settings.serving.host == "127.0.0.1"
    assert settings.gateway.require_keys
    ports = {port["name"]: port["containerPort"] for one in containers(pod) for port in one.get("ports", ())}
    assert ports == {"http": settings.gateway.port, "triton-metrics": settings.serving.metrics_port}
    (service,) = the(found, "Service")["spec"]["ports"]
    assert service["targetPort"] == "http"


def test_probes_ask_the_model_and_not_only_the_server(render: Callable[..., Rendered]) -> None:
    pod = replica(render())
    gateway, triton = container(pod, "gateway"), container(pod, "triton")
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/health/live"
    routes = {route.path for route in router.routes}  # type: ignore[attr-defined]
    assert {
        gateway[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    } <= routes
    for probe in ("startupProbe", "livenessProbe"):
        assert "serving.healthcheck" in triton[probe]["exec"]["command"]
    assert triton["startupProbe"]["failureThreshold"] * triton["startupProbe"]["periodSeconds"] >= 900


def test_triton_starts_before_the_gateway_and_ends_after_it(render: Callable[..., Rendered]) -> None:
    pod = replica(render(**{"gateway.drainSeconds": "20", "triton.stopSeconds": "40"}))
    assert [one["name"] for one in pod["initContainers"]] == ["fetch", "triton", "follow"]
    assert [one.get("restartPolicy") for one in pod["initContainers"]] == [None, "Always", "Always"]
    assert [one["name"] for one in pod["containers"]] == ["gateway"]
    assert pod["shareProcessNamespace"]
    assert pod["terminationGracePeriodSeconds"] >= 20 + 10 + 40


def test_replicas_can_only_read_the_state_and_never_see_the_loops_keys(render: Callable[..., Rendered]) -> None:
    found = dict(pods(render()))
    state = next(one for one in found["conch"]["volumes"] if one["name"] == "state")
    assert state["persistentVolumeClaim"]["readOnly"]
    for one in containers(found["conch"]):
        assert all(mount.get("readOnly") for mount in one["volumeMounts"] if mount["name"] == "state")
    home = settings_in(render(), "home.toml").paths.var
    for name in ("conch-ingest", "conch-loop"):
        (one,) = containers(found[name])
        (keys,) = (mount for mount in one["volumeMounts"] if mount["mountPath"] == str(home / "keys"))
        assert keys["name"] == "events"  # a volume that replicas do not have


def test_every_container_is_hardened_and_has_limits(render: Callable[..., Rendered]) -> None:
    for name, pod in pods(render(**ALL)):
        assert pod["securityContext"]["runAsNonRoot"], name
        assert not pod["automountServiceAccountToken"]
        for one in containers(pod):
            security = one["securityContext"]
            assert security["readOnlyRootFilesystem"], (name, one["name"])
            assert security["capabilities"]["drop"] == ["ALL"]
            assert not security["allowPrivilegeEscalation"]
            assert "memory" in one["resources"]["limits"]
            assert {"cpu", "memory"} <= set(one["resources"]["requests"])


def test_gpus_are_asked_for_where_models_run_and_can_be_left_out(render: Callable[..., Rendered]) -> None:
    def gpus(found: Rendered) -> dict[str, int]:
        return {
            one["name"]: one["resources"]["limits"]["nvidia.com/gpu"]
            for _, pod in pods(found)
            for one in containers(pod)
            if "nvidia.com/gpu" in one["resources"]["limits"]
        }

    assert gpus(render()) == {"triton": 1, "loop": 1}
    assert gpus(render(**{"triton.gpus": "0", "loop.gpus": "0"})) == {}


def test_the_loop_never_runs_twice_at_once_and_beside_the_ingester(render: Callable[..., Rendered]) -> None:
    found = render()
    cron = the(found, "CronJob", "conch-loop")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert cron["startingDeadlineSeconds"] > 0
    pod = cron["jobTemplate"]["spec"]["template"]["spec"]
    assert "--once" in pod["containers"][0]["args"]
    (term,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    ingest = the(found, "Deployment", "conch-ingest")["spec"]
    labels = ingest["template"]["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()
    assert ingest["strategy"]["type"] == "Recreate"


def test_the_autoscaler_asks_for_metrics_that_the_adapter_makes(render: Callable[..., Rendered]) -> None:
    found = render(**ALL)
    spec = the(found, "HorizontalPodAutoscaler")["spec"]
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "adapter.yaml").read_text(encoding="utf-8"))["rules"][
        "custom"
    ]
    assert {one["pods"]["metric"]["name"] for one in spec["metrics"]} == {rule["name"]["as"] for rule in rules}
    assert "replicas" not in the(found, "Deployment")["spec"]
    assert the(render(), "Deployment")["spec"]["replicas"] == 2


def test_network_policies_open_the_ports_of_the_broker(render: Callable[..., Rendered]) -> None:
    found = render(**{"events.redis": "rediss://cache.example:6380/2"})
    for name in ("conch", "conch-home"):
        spec = the(found, "NetworkPolicy", name)["spec"]
        out = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
        assert out == {53, 4222, 6380}
        assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in the(found, "NetworkPolicy", "conch-home")["spec"]


def test_the_state_file_lies_where_all_containers_of_a_replica_can_write(render: Callable[..., Rendered]) -> None:
    found = render()
    settings = settings_in(found, "replica.toml")
    file = state_file(settings.paths.var, settings.serving)
    for name in ("triton", "gateway", "follow"):
        mounts = {mount["mountPath"]: mount for mount in container(replica(found), name)["volumeMounts"]}
        (place,) = (mounts[str(path)] for path in file.parents if str(path) in mounts)
        assert not place.get("readOnly")
        assert Path(place["mountPath"]) == settings.paths.var
