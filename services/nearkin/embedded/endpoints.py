"""Where a running stack listens, kept in its folder so that other commands find it without being told."""

from pathlib import Path

import msgspec

from nearkin.embedded.owned_folder import OwnedFolder, write_durably

#: What a stack's folder says of itself.
FORMAT = "nearkin-stack 1"


class Endpoints(msgspec.Struct, frozen=True):
    """Where a running stack listens.

    Attributes:
        kafka: the broker's host:port.
        lookup: the look-up service's host:port.
        qdrant: the index's gRPC address.
        redis: the address of Redis; empty where the stack goes without.
        metrics: for each process, the host:port of its /metrics, /live and /ready.
        partitions: of each item topic.
    """

    kafka: str
    lookup: str
    qdrant: str
    redis: str
    metrics: dict[str, str]
    partitions: int


def read_endpoints(data: Path) -> Endpoints | None:
    """Where the stack that runs on a data folder listens; None where none runs."""
    if not OwnedFolder(data, FORMAT).is_owned():
        return None
    try:
        return msgspec.json.decode((data / "endpoints.json").read_bytes(), type=Endpoints)
    except (OSError, msgspec.DecodeError):
        return None


def write_endpoints(data: Path, endpoints: Endpoints) -> None:
    """Tell others where the stack listens."""
    write_durably(data / "endpoints.json", msgspec.json.encode(endpoints).decode() + "\n")


def remove_endpoints(data: Path) -> None:
    """Tell others that the stack listens no more."""
    (data / "endpoints.json").unlink(missing_ok=True)
