"""`nearkin bundle export` says what it made, and what it lacks before it begins."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nearkin.cli.main import main
from nearkin.learning.drawings import load_drawings, read_pictures


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["bundle", *arguments])


def test_without_the_extra_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    found = run("export", "image", "efficientnet-lite0", str(tmp_path / "made"))
    assert found.exit_code == 2
    assert "needs torch" in found.output
    assert "pip install -e '.[train]'" in found.output


def test_the_shipped_bundle_of_pictures_is_listed_and_whole() -> None:
    listed = json.loads(run("list", "--json").stdout)
    (image,) = [row for row in listed if row["name"] == "efficientnet-lite0"]
    assert (image["modalities"], image["dimensions"], image["serves"]) == (["image"], 320, False)
    assert image["bytes"] < 20_000_000
    assert run("verify", image["id"]).exit_code == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_bundle_is_made_of_ones_own_pictures_and_its_parity_told(train_extra: None, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for place, picture in enumerate(read_pictures(load_drawings()[:40])):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{place:03}.jpg")
    arguments = ("export", "image", "efficientnet-lite0", str(tmp_path / "made"))
    found = run(*arguments, "--pictures", str(tmp_path / "pictures"))
    assert found.exit_code == 0, found.output
    assert "cosine mean 0.9" in found.stdout
    assert "on 20 pictures of pictures" in found.stdout
    assert run("verify", str(tmp_path / "made")).exit_code == 0
    again = run(*arguments)
    assert again.exit_code == 2
    assert "is there already" in again.output
