import subprocess
import sys

import pytest


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_models_of_the_client_are_not_imported_with_its_stubs() -> None:
    loaded = run("import sys, nearkin.stores.qdrant; print([name for name in sys.modules if 'qdrant_client' in name])")

    assert "qdrant_client.grpc.points_pb2" in loaded
    assert "qdrant_client.http" not in loaded


@pytest.mark.parametrize(
    "order",
    [
        ("from nearkin.stores.qdrant_stubs import wire", "from qdrant_client import AsyncQdrantClient, grpc"),
        ("from qdrant_client import AsyncQdrantClient, grpc", "from nearkin.stores.qdrant_stubs import wire"),
    ],
)
def test_who_imports_the_client_has_all_of_it_with_the_same_stubs(order: tuple[str, str]) -> None:
    assert run(f"{order[0]}\n{order[1]}\nprint(wire is grpc, AsyncQdrantClient.__name__)") == "True AsyncQdrantClient\n"
