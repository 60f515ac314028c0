"""docker-compose.yml, read as Compose reads it: anchors merged, `$$` a dollar, durations and sizes in figures."""

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

#: Which services run Nearkin's own image.
OURS = sorted(name for name, service in SERVICES.items() if service["image"].startswith("nearkin:"))

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def specification() -> dict[str, Any]:
    """The schema of the Compose specification, as check-jsonschema ships it."""
    package = find_spec("check_jsonschema")
    assert package is not None
    assert package.submodule_search_locations
    schemas = Path(package.submodule_search_locations[0]) / "builtin_schemas" / "vendor"
    schema: dict[str, Any] = json.loads((schemas / "compose-spec.json").read_text())
    return schema


def bytes_of(size: str) -> int:
    """2G and the like."""
    return int(size[:-1]) * _UNITS[size[-1]]


def seconds_of(duration: str) -> float:
    """30s; the file uses no other unit."""
    found = re.fullmatch(r"(\d+)s", duration)
    assert found, duration
    return float(found[1])


def words_of(service: dict[str, Any]) -> Iterator[str]:
    """Whatever a service is told: its command, its environment, its health check."""
    yield from service.get("command", [])
    yield from service.get("environment", {}).values()
    yield from service.get("healthcheck", {}).get("test", [])
