"""A stack that cannot start as it is says which file is wrong and what to do, and leaves nothing running."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nearkin.encoders.bundle import DEFAULT_BUNDLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("harm", ["tampered with", "missing"])
def test_a_stack_whose_model_is_not_whole_names_it_with_the_remedy_and_stops(tmp_path: Path, harm: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, bundle)
    tokenizer = bundle / "tokenizer.json"
    if harm == "missing":
        tokenizer.unlink()
    else:
        tokenizer.write_bytes(tokenizer.read_bytes().replace(b"a", b"b", 1))
    data = tmp_path / "data"
    refused = subprocess.run(
        [sys.executable, "-m", "nearkin.cli", "up", "--data", str(data)],
        env=os.environ | {"NEARKIN_BUNDLE_PATH": str(bundle)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert refused.returncode not in (0, 1), refused.stdout + refused.stderr
    assert str(tokenizer) in "".join(refused.stderr.split("\n")), refused.stderr
    assert "NEARKIN_BUNDLE_PATH" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list((data / "index" / "collections").glob("*")), "nothing was indexed into a space that is not known"
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(data) in " ".join(one.info["cmdline"] or [])]
