"""The generated gRPC code is what the .proto files say."""

import sys
from importlib.resources import files
from pathlib import Path

import grpc_tools
import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
PROTOS = sorted(path.relative_to(ROOT / "schemas") for path in (ROOT / "schemas").rglob("*.proto"))


@pytest.mark.parametrize("proto", PROTOS, ids=str)
def test_generating_it_again_changes_nothing(proto: Path, tmp_path: Path) -> None:
    status = protoc.main(
        [
            sys.argv[0],
            f"-I{ROOT / 'schemas'}",
            f"-I{files(grpc_tools) / '_proto'}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            f"--grpc_python_out={tmp_path}",
            str(proto),
        ]
    )
    assert status == 0
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    assert len(made) == 3
    for name in made:
        assert (ROOT / "services" / name).read_text() == (tmp_path / name).read_text(), "run make proto"
