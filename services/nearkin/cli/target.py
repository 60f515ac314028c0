"""Which stack a command speaks to: what the environment names, else the one that `nearkin up` runs on the folder."""

from collections.abc import Callable, Mapping
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
    found |= _in_the_open(found)
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


def settings_beside(running: Endpoints, *, own_broker: bool = True) -> Settings:
    """The settings by which a command speaks to a stack that it started itself, on the clock of a log of the past.

    Args:
        running: where the stack is.
        own_broker: whether its broker is the embedded one; another one is spoken to as the environment says.
    """
    found = addresses_of(running)
    spoken = _in_the_open(found)
    if not own_broker:
        del spoken["kafka_protocol"]
    return load_settings(**found, **spoken, clock="stream")


def _in_the_open(found: Mapping[str, object]) -> dict[str, object]:
    """How the embedded engines among some addresses are spoken to: what the environment says is of other engines."""
    brokers: dict[str, object] = {"kafka_protocol": "plaintext"} if "kafka_bootstrap" in found else {}
    return brokers | ({"redis_username": "", "redis_password": None} if "redis_url" in found else {})


def stack_that_serves(engine: str, context: click.Context) -> Path | None:
    """The folder of the running stack that a command asked for an engine; None where it asked another one."""
    served: dict[str, Path] = context.meta.get(_SERVED, {})
    return served.get(engine)
