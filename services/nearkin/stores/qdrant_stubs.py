"""Qdrant's generated messages and stubs without the client around them: `from nearkin.stores.qdrant_stubs import wire`.

The client's package imports the models of its REST API, which nobody here uses: half a second, nearly half of what a
service needed from its start until it was ready.
"""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

__all__ = ["load", "wire"]

PACKAGE = "qdrant_client"


def load() -> Any:
    """The module `qdrant_client.grpc`, imported past `qdrant_client/__init__.py`.

    Whoever imports the package itself gets the whole of it, before or afterwards, with the same stubs.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if PACKAGE in sys.modules or spec is None:
        return importlib.import_module(f"{PACKAGE}.grpc")
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)  # its path alone: nothing of it is run
    try:
        return importlib.import_module(f"{PACKAGE}.grpc")
    finally:
        del sys.modules[PACKAGE]


if TYPE_CHECKING:
    from qdrant_client import grpc as wire
else:
    wire = load()
