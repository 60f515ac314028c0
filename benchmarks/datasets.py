"""Data sets that the project does not ship: where they lie, and how to open one."""

import tarfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from nearkin.core.errors import Misconfigured
from nearkin.ops.settings import load_settings

REPOSITORY = Path(__file__).resolve().parent.parent


def find_data() -> Path:
    """The folder that NEARKIN_DATA names, else ../shared/data beside the repository.

    Raises:
        Misconfigured: there is no such folder.
    """
    folder = load_settings().data or REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        raise Misconfigured(
            f"there is no folder {folder}",
            field="NEARKIN_DATA",
            remedy="name the folder that holds the evaluation data sets",
            reason="setting",
        )
    return folder


def unpack(name: str, into: Path) -> Path:
    """Unpack the archive of a data set into a folder, and return the data set's own folder there."""
    with tarfile.open(find_data() / f"{name}.tar.xz") as archive:
        archive.extractall(into, filter="data")
    return into / name


def load_protocol(name: str) -> ModuleType:
    """The module of an evaluation protocol, which lies beside the data."""
    path = find_data() / "protocols" / f"{name}.py"
    spec = spec_from_file_location(f"nearkin_protocol_{name}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
