"""deploy/kubernetes as kustomize renders it: patches merged, settings generated, labels and image set.

Only what that folder uses is done here, so that a machine without kubectl can check it; where kubectl is there, a test
holds both results together.
"""

import copy
from typing import Any

import yaml

from deploy.compose_file import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())

#: Kinds that belong to no namespace.
_EVERYWHERE = ("Namespace",)

#: By what kustomize tells the members of a list apart.
_KEYS = {"ports": "containerPort", "volumeMounts": "mountPath"}


def settings() -> dict[str, str]:
    """What every pod is told."""
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    lines = (FOLDER / generated["envs"][0]).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def merged(base: Any, patch: Any, field: str = "") -> Any:
    """A strategic merge: maps by key, lists of containers, volumes and the like by what names their members."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {key: merged(base.get(key), value, key) for key, value in patch.items()}
    key = _KEYS.get(field, "name")
    if isinstance(base, list) and isinstance(patch, list) and all(isinstance(each, dict) for each in base + patch):
        by_name = {each[key]: each for each in base}
        for each in patch:
            by_name[each[key]] = merged(by_name.get(each[key]), each)
        return list(by_name.values())
    return copy.deepcopy(patch)


def rendered() -> list[dict[str, Any]]:
    """Every object that is applied, but for the map of settings, whose name kustomize makes of its content."""
    objects = []
    for name in KUSTOMIZATION["resources"]:
        objects += list(yaml.safe_load_all((FOLDER / name).read_text()))
    for each in objects:
        for patch in KUSTOMIZATION["patches"]:
            if patch["target"]["kind"] == each["kind"]:
                content = yaml.safe_load((FOLDER / patch["path"]).read_text())
                each["spec"] = merged(each["spec"], content["spec"])
        if each["kind"] not in _EVERYWHERE:
            each["metadata"]["namespace"] = KUSTOMIZATION["namespace"]
        (labels,) = KUSTOMIZATION["labels"]
        each["metadata"].setdefault("labels", {}).update(labels["pairs"])
        if "template" in each.get("spec", {}):
            each["spec"]["template"]["metadata"]["labels"].update(labels["pairs"])
            for container in each["spec"]["template"]["spec"]["containers"]:
                for image in KUSTOMIZATION["images"]:
                    if container["image"] == image["name"]:
                        container["image"] = f"{image['name']}:{image['newTag']}"
    return objects


def of_kind(*kinds: str) -> dict[str, dict[str, Any]]:
    """The objects of some kinds, by name."""
    return {each["metadata"]["name"]: each for each in rendered() if each["kind"] in kinds}


def container_of(workload: dict[str, Any]) -> dict[str, Any]:
    """The one container of a workload."""
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found
