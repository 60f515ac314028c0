"""How figures are reported: a readable table, and beside the figures in JSON the machine that they come from."""

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

#: Packages whose version may change a figure.
PACKAGES = ("numpy", "onnxruntime", "tokenizers", "qdrant-client", "qdrant-edge-py", "faust-streaming", "grpcio")


def describe_machine() -> dict[str, object]:
    """What a figure depends on beside the code: processor, cores, Python and the packages."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    return {
        "processor": fields.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "vnni": bool(flags & {"avx512_vnni", "avx_vnni"}),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table that is not cut, whatever the terminal's width."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=160).print(table)
