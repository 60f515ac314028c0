"""Bundles are found where Nearkin ships them, where packages carry them, and in a folder of bundles."""

import shutil
import sys
from pathlib import Path

import pytest

from made_bundles import make_bundle
from nearkin.core.errors import Misconfigured
from nearkin.encoders.bundle import DEFAULT_BUNDLE
from nearkin.encoders.find_bundles import Place, find_bundle, find_bundles


def keep(bundles: Path, name: str) -> Path:
    """A bundle in a folder of bundles."""
    manifest = make_bundle(bundles.parent / f"made-{name}", name)
    return (bundles.parent / f"made-{name}").rename(bundles / manifest.id)


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """A folder of two bundles."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    keep(folder, "one")
    keep(folder, "two")
    return folder


def test_the_default_bundle_is_always_there_and_first() -> None:
    places = find_bundles(None)
    assert places[0] == Place(DEFAULT_BUNDLE, "shipped with nearkin")
    assert len({place.folder for place in places}) == len(places)


def test_a_folder_gives_its_bundles_by_their_ids(bundles: Path) -> None:
    (bundles / ".pull-interrupted").mkdir()
    (bundles / "README").write_text("no bundle")
    places = [place for place in find_bundles(bundles) if place.source == "NEARKIN_BUNDLES_DIR"]
    assert [place.read().name for place in places] == ["one", "two"]
    assert all(place.folder.name == place.verify().id for place in places)


def test_a_folder_that_is_not_there_yet_gives_none(tmp_path: Path) -> None:
    assert find_bundles(tmp_path / "later") == find_bundles(None)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="NEARKIN_BUNDLES_DIR"):
        find_bundles(tmp_path / "file")


def test_a_bundle_in_a_folder_of_another_name_is_refused(bundles: Path) -> None:
    (one,) = (place for place in find_bundles(bundles) if place.folder.name.startswith("one"))
    renamed = one.folder.rename(bundles / "one-00000000")
    place = Place(renamed, one.source, kept_by_id=True)
    with pytest.raises(Misconfigured, match="bears its bundle's id") as refused:
        place.read()
    assert refused.value.field == str(renamed)


def test_a_broken_bundle_hides_no_other(bundles: Path) -> None:
    (broken,) = (place for place in find_bundles(bundles) if place.folder.name.startswith("one"))
    (broken.folder / "manifest.json").write_text("{")
    assert find_bundle("two", bundles).read().name == "two"
    assert find_bundle(broken.folder.name, bundles) == broken


def test_a_bundle_is_found_by_id_by_name_and_by_folder(bundles: Path) -> None:
    by_name = find_bundle("one", bundles)
    assert find_bundle(by_name.read().id, bundles) == by_name
    assert find_bundle(str(by_name.folder), None).read() == by_name.read()
    assert find_bundle("minilm-l6-int8", bundles).folder == DEFAULT_BUNDLE


def test_a_name_of_two_spaces_is_not_guessed(bundles: Path, tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path / "wider", "one", dimensions=8)
    (tmp_path / "wider").rename(bundles / manifest.id)
    with pytest.raises(Misconfigured, match="name of several bundles") as refused:
        find_bundle("one", bundles)
    assert manifest.id in refused.value.remedy


def test_a_bundle_that_is_not_installed_is_named_with_those_that_are(bundles: Path) -> None:
    with pytest.raises(Misconfigured, match="no bundle 'three'") as refused:
        find_bundle("three", bundles)
    assert "minilm-l6-int8-3661a69b" in refused.value.remedy


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed package that says that it carries a bundle."""
    site = tmp_path / "site"
    described = site / "acme_models-2.1.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-models\nVersion: 2.1\n")
    (described / "entry_points.txt").write_text("[nearkin.bundles]\nacme = acme_models_of_a_test.small\n")
    monkeypatch.syspath_prepend(str(site))
    return site / "acme_models_of_a_test"


def test_a_bundle_that_a_package_carries_is_found_and_the_package_not_imported(package: Path) -> None:
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('was imported')")
    made = make_bundle(package / "small")
    (place,) = (place for place in find_bundles(None) if place.source == "package acme-models 2.1")
    assert place.verify() == made
    assert package.name not in sys.modules


def test_an_entry_point_whose_package_is_gone_is_passed_over(package: Path) -> None:
    shutil.rmtree(package, ignore_errors=True)
    assert "package acme-models 2.1" not in [place.source for place in find_bundles(None)]
