"""Which stack a command speaks to: what the environment names, else the one that `nearkin up` runs on the folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nearkin.core.errors import Unavailable
from nearkin.embedded.endpoints import Endpoints, read_endpoints
from nearkin.ops.settings import Settings, load_settings

#: The settings that say where an engine is, by the engine's name in errors.
_ADDRESSES = {"broker": "kafka_bootstrap", "look-up service": "lookup_address", "evidence": "redis_url"}

_SERVED = "nearkin.cli.target"


def data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option that names the folder of `nearkin up`."""
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of `nearkin up`; .nearkin by default, or NEARKIN_UP_DATA.",
    )(command)


def target(data: Path | None) -> Settings:
    """The settings, with the addresses of the running stack where neither flag nor environment says otherwise.

    Args:
        data: the folder that was named on the command line; it then counts more than the environment's addresses.

    Raises:
        Unavailable: a folder was named, and no stack runs on it.
    """
    settings = load_settings()
    running = read_endpoints(data or settings.up_data)
    if running is None:
        if data is not None:
            raise Unavailable("stack", f"no `nearkin up` runs on {data}; start one with `nearkin up --data {data}`")
        return settings
    found = addresses_of(running)
    if data is None:
        found = {name: value for name, value in found.items() if name not in settings.model_fields_set}
    if "kafka_bootstrap" in found:
        found["kafka_protocol"] = "plaintext"  # whatever stands in the environment is of other brokers
    if "redis_url" in found:
        found |= {"redis_username": "", "redis_password": None}
    if (context := click.get_current_context(silent=True)) is not None:
        context.meta[_SERVED] = {
            engine: data or settings.up_data for engine, name in _ADDRESSES.items() if name in found
        }
    return load_settings(**found)


def addresses_of(running: Endpoints) -> dict[str, object]:
    """The settings by which its clients and services find a stack."""
    found: dict[str, object] = {
        "kafka_bootstrap": running.kafka,
        "items_partitions": running.partitions,
        "kafka_replication": 1,
        "lookup_address": running.lookup,
        "qdrant_url": running.qdrant,
        "monitor_parts": ",".join(f"{name}={address}" for name, address in running.metrics.items()),
        "monitor_engines": "broker,index,redis,lookup" if running.redis else "broker,index,lookup",
    }
    return found | ({"redis_url": running.redis} if running.redis else {})


def stack_that_serves(engine: str, context: click.Context) -> Path | None:
    """The folder of the running stack that a command asked for an engine; None where it asked another one."""
    served: dict[str, Path] = context.meta.get(_SERVED, {})
    return served.get(engine)
