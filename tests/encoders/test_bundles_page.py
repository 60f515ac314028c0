"""docs/bundles.md says of the manifest what the parser reads, and its lines make a bundle that serves."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from made_bundles import make_bundle
from nearkin.cli.main import main
from nearkin.core.item import Content
from nearkin.core.vectors import Vectors
from nearkin.encoders.bundle import load_encoder
from nearkin.encoders.check_graph import MAX_NODES, OPSETS
from nearkin.encoders.manifest import FORMAT, MAX_FILE_BYTES, MAX_MANIFEST_BYTES, Manifest

PAGE = (Path(__file__).parents[2] / "docs" / "bundles.md").read_text()


def structs(kind: Any) -> list[tuple[str, type[msgspec.Struct]]]:
    """The structs in a type, each with what stands behind the field's name in a path."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return structs(inner[0])
    if origin in (Union, UnionType):
        return [found for one in inner for found in structs(one)]
    if origin is tuple:
        return [(f"[]{behind}", found) for behind, found in structs(inner[0])]
    return [("", kind)] if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else []


def fields(kind: type[msgspec.Struct], path: str = "") -> dict[str, str]:
    """Every field of a manifest by its path, and whether it must be there."""
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(kind):
        at = f"{path}.{field.name}" if path else field.name
        found[at] = "yes" if field.required else "no"
        for behind, inner in structs(hints[field.name]):
            found |= fields(inner, at + behind)
    return found


def test_the_table_has_every_field_that_the_parser_reads_and_no_other() -> None:
    table = PAGE.split("## The manifest\n")[1].split("\n## ")[0]
    written = dict(re.findall(r"^\| `([^`]+)` \| [^|]+ \| (yes|no) \|", table, re.MULTILINE))
    assert written == fields(Manifest)


def test_the_limits_are_those_of_the_code() -> None:
    assert f"JSON, format {FORMAT}." in PAGE
    assert f"a manifest of more than {MAX_MANIFEST_BYTES >> 20} MiB" in PAGE
    assert f"a file of more than {MAX_FILE_BYTES >> 30} GiB" in PAGE
    assert f"a graph of more than {MAX_NODES:,} nodes" in PAGE
    assert f"an opset outside {OPSETS[0]} to {OPSETS[-1]}" in PAGE


def test_the_lines_of_the_page_make_a_bundle_that_serves(tmp_path: Path) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(lines.splitlines()) < 40
    make_bundle(tmp_path / "downloaded", dimensions=384)
    made = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    encoder = load_encoder(tmp_path / "bundles" / "acme-text", 1)
    assert made.stdout.strip() == encoder.bundle
    (vectors,) = encoder.encode([Content(title="red mug")])
    assert isinstance(vectors, Vectors)


def test_the_commands_of_the_page_are_there() -> None:
    assert set(re.findall(r"nearkin bundle ([a-z]+)", PAGE)) <= set(main.commands["bundle"].commands)
