"""deploy/kubernetes is what the API server takes, and its parts agree with each other and with the settings."""

import json
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry

from deploy.compose_file import ROOT, SERVICES
from deploy.kubernetes_manifests import FOLDER, KUSTOMIZATION, container_of, of_kind, rendered, settings
from nearkin.contracts.topics import TOPICS
from nearkin.ops.addresses import split_parts
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import Settings, load_settings

#: The oldest version that the manifests are for (preStop sleeps), and the newest whose schemas there are.
VERSIONS = ("1.30", kubernetes_validate.latest_version())

#: What other programs of the cluster take.
BESIDE = ("prometheus-adapter.yaml", "service-monitor.yaml")

DEPLOYMENTS = of_kind("Deployment")
WORKLOADS = of_kind("Deployment", "Job")
PODS = {name: workload["spec"]["template"] for name, workload in WORKLOADS.items()}


def port_of(workload: str, port: str | int) -> int:
    """The number of a port that a workload names."""
    ports = {each["name"]: each["containerPort"] for each in container_of(WORKLOADS[workload]).get("ports", [])}
    return ports[port] if isinstance(port, str) else port


def selected(selector: dict) -> set[str]:
    """The workloads whose pods a selector takes."""
    wanted = {(key, (value,)) for key, value in selector.get("matchLabels", {}).items()}
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        wanted.add((expression["key"], tuple(expression["values"])))
    found = {
        name
        for name, pod in PODS.items()
        if all(pod["metadata"]["labels"].get(key) in values for key, values in wanted)
    }
    named = {value for key, values in wanted for value in values if key == "app.kubernetes.io/name"}
    assert named <= set(PODS), f"{named - set(PODS)} are no workloads"
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("each", rendered(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_an_object_is_as_the_schema_says(each, version):
    kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl here to render with")
def test_kubectl_renders_the_same():
    done = subprocess.run(["kubectl", "kustomize", FOLDER], capture_output=True, text=True, check=True)
    made = re.sub(r"nearkin-settings-\w+", "nearkin-settings", done.stdout)
    by_kubectl = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(made)}
    generated = by_kubectl.pop(("ConfigMap", "nearkin-settings"))

    assert generated["data"] == settings()
    for each in rendered():
        theirs = by_kubectl.pop((each["kind"], each["metadata"]["name"]))
        assert json.loads(json.dumps(_sorted(theirs))) == json.loads(json.dumps(_sorted(each)))
    assert not by_kubectl


def _sorted(value: object) -> object:
    """With lists of named members in one order."""
    if isinstance(value, dict):
        return {key: _sorted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted((_sorted(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


def test_every_file_of_the_folder_is_used():
    used = {*KUSTOMIZATION["resources"], *(patch["path"] for patch in KUSTOMIZATION["patches"])}
    used |= {name for each in KUSTOMIZATION["configMapGenerator"] for name in each["envs"]}

    assert {path.name for path in FOLDER.iterdir()} == used | {"kustomization.yaml", *BESIDE}


def test_what_runs_is_what_runs_in_the_compose_file():
    ours = {name: service for name, service in SERVICES.items() if service["image"].startswith("nearkin:")}

    assert set(WORKLOADS) == set(ours)
    for name, workload in WORKLOADS.items():
        assert container_of(workload)["command"] == ours[name]["command"]
        assert container_of(workload)["image"] == ours[name]["image"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_is_nobody_writes_nothing_and_is_bounded(name):
    pod, container = PODS[name]["spec"], container_of(WORKLOADS[name])

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == SERVICES[name]["user"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert all(mount.get("readOnly") or mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_probe_asks_what_the_service_answers(name):
    container = container_of(DEPLOYMENTS[name])
    listens = int(settings()["NEARKIN_METRICS_LISTEN"].rpartition(":")[2])
    asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}

    assert {probe: get["path"] for probe, get in asked.items()} == {
        "startupProbe": "/live",
        "livenessProbe": "/live",
        "readinessProbe": "/ready",
    }
    assert all(port_of(name, get["port"]) == listens for get in asked.values())


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_setting_is_one_that_there_is_with_a_value_that_is_taken(name, monkeypatch, tmp_path):
    told = settings() | {each["name"]: each["value"] for each in container_of(WORKLOADS[name]).get("env", [])}
    known = {f"NEARKIN_{field.upper()}" for field in Settings.model_fields} | {"NEARKIN_SECRETS_DIR"}
    assert set(told) <= known

    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for secret in ("kafka_sasl_password", "redis_password", "qdrant_api_key", "lookup_token"):
        assert "SecretStr" in str(Settings.model_fields[secret].annotation)
        (secrets / f"nearkin_{secret}").write_text("drawn")
    for variable, value in (told | {"NEARKIN_SECRETS_DIR": str(secrets)}).items():
        monkeypatch.setenv(variable, value)
    taken = load_settings()

    for variable in set(told) - {"NEARKIN_SECRETS_DIR"}:
        value = getattr(taken, variable.removeprefix("NEARKIN_").lower())
        assert str(value).lower() == told[variable].lower()
    mounts = [mount["mountPath"] for mount in container_of(WORKLOADS[name])["volumeMounts"]]
    for value in told.values():
        if value.startswith("/"):
            assert any(value.startswith(mount) for mount in mounts), f"{value} is not mounted"


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_selects_its_own_pods_and_no_others(name):
    assert selected(DEPLOYMENTS[name]["spec"]["selector"]) == {name}
    for spread in PODS[name]["spec"]["topologySpreadConstraints"]:
        assert selected(spread["labelSelector"]) == {name}


def test_the_monitor_finds_whom_it_watches():
    services = of_kind("Service")
    told = {each["name"]: each["value"] for each in container_of(DEPLOYMENTS["monitor"])["env"]}
    lookup = f"lookup.{KUSTOMIZATION['namespace']}.svc:{services['lookup']['spec']['ports'][0]['port']}"
    watched = dict(split_parts(told["NEARKIN_MONITOR_PARTS"]))

    assert told["NEARKIN_LOOKUP_ADDRESS"] == lookup
    assert told["NEARKIN_MONITOR_PARTS"] == SERVICES["monitor"]["environment"]["NEARKIN_MONITOR_PARTS"]
    assert set(watched) == set(DEPLOYMENTS) - {"lookup", "monitor"}
    for name, address in watched.items():
        assert address == f"{name}:{services[name]['spec']['ports'][0]['port']}"


def test_a_service_leads_to_a_port_that_its_pods_have():
    for service in of_kind("Service").values():
        assert selected({"matchLabels": service["spec"]["selector"]}) == {service["metadata"]["name"]}
        for name in selected({"matchLabels": service["spec"]["selector"]}):
            for port in service["spec"]["ports"]:
                assert port_of(name, port["targetPort"]) == port["port"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_has_longer_to_end_than_it_may_take(name):
    hook = container_of(DEPLOYMENTS[name]).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drains = Settings.model_fields["lookup_grace_s"].default

    assert PODS[name]["spec"]["terminationGracePeriodSeconds"] > 2 * drains + hook + 10


def test_prometheus_finds_every_service_under_the_name_that_dashboards_go_by():
    monitor = yaml.safe_load((FOLDER / "service-monitor.yaml").read_text())
    read = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    found = {
        name
        for name, service in of_kind("Service").items()
        if wanted <= service["metadata"]["labels"].items()
        and endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    }

    assert found == {job["job_name"] for job in read}
    lanes = {name: re.fullmatch(endpoint["relabelings"][0]["regex"], name) for name in found}
    told = {name: lane[1] for name, lane in lanes.items() if lane}
    assert told == {
        job["job_name"]: job["relabel_configs"][0]["replacement"] for job in read if "relabel_configs" in job
    }


def test_who_is_scaled_has_no_number_of_its_own_and_never_more_workers_than_partitions():
    scalers = of_kind("HorizontalPodAutoscaler")
    topics = {topic.name for topic in TOPICS}
    rules = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["external"]
    declared = [f"nearkin_{name}" for name, *_ in Metrics(CollectorRegistry()).declared]
    told = {rule["name"]["as"]: rule["seriesQuery"] for rule in rules}
    assert set(told.values()) <= {name.replace("nearkin_nearkin_", "nearkin_") for name in declared}
    asked = [m["external"]["metric"]["name"] for s in scalers.values() for m in s["spec"]["metrics"] if "external" in m]
    assert set(asked) == set(told)

    for name, scaler in scalers.items():
        spec = scaler["spec"]
        assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        assert "replicas" not in DEPLOYMENTS[name]["spec"]
        for metric in spec["metrics"]:
            if metric.get("external", {}).get("metric", {}).get("name") == "nearkin_lag_events":
                assert spec["maxReplicas"] <= int(settings()["NEARKIN_ITEMS_PARTITIONS"])
                chosen = metric["external"]["metric"]["selector"]
                named = [*chosen.get("matchLabels", {}).values()]
                named += [value for each in chosen.get("matchExpressions", []) for value in each["values"]]
                assert set(named) <= topics
    assert set(DEPLOYMENTS) - set(scalers) == {"monitor"}


def test_who_is_there_more_than_once_keeps_most_of_its_pods_while_nodes_are_drained():
    scalers, budgets = of_kind("HorizontalPodAutoscaler"), of_kind("PodDisruptionBudget")
    several = {name for name, scaler in scalers.items() if scaler["spec"]["minReplicas"] > 1}

    assert set(budgets) == several
    for name, budget in budgets.items():
        assert selected(budget["spec"]["selector"]) == {name}
        assert budget["spec"]["maxUnavailable"] == 1


def test_nobody_reaches_anybody_but_for_what_each_service_is_told_to_speak_to():
    policies = of_kind("NetworkPolicy")
    nothing = policies["nothing-by-default"]["spec"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    open_ports: dict[str, set[int]] = {name: set() for name in PODS}
    for policy in policies.values():
        for rule in policy["spec"].get("egress", []):
            for name in selected(policy["spec"]["podSelector"]):
                for port in rule["ports"]:
                    target = "lookup" if isinstance(port["port"], str) else name  # which has every named port
                    open_ports[name].add(port_of(target, port["port"]))
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"], "from nobody is from everybody"
    engines = {"KAFKA_BOOTSTRAP": "kafka", "QDRANT_URL": "qdrant", "REDIS_URL": "redis"}
    port = {
        engine: int(re.search(r":(\d+)(?:/\d+)?$", settings()[f"NEARKIN_{setting}"])[1])
        for setting, engine in engines.items()
    }
    dns, index = 53, {"kafka", "qdrant"}
    speaks = {"topics": {"kafka"}, "indexer-live": index, "indexer-bulk": index, "feedback": {"kafka", "redis"}}
    speaks |= {"lookup": set(port), "monitor": set(port)}
    for name, whom in speaks.items():
        traces = (
            {int(load_settings().traces_endpoint.rpartition(":")[2])} if name not in ("topics", "monitor") else set()
        )
        wanted = {dns, *(port[engine] for engine in whom)} | ({7700, 9101} if name == "monitor" else traces)
        assert open_ports[name] == wanted, name
