"""A network becomes an image bundle: whole, near to the network, and with nothing of the machine that made it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from nearkin.core.errors import Misconfigured
from nearkin.encoders.bundle import IMAGE_BUNDLE, load_image_encoder, read_manifest, verify_bundle
from nearkin.encoders.manifest import Preparation
from nearkin.learning.drawings import load_drawings, read_pictures
from nearkin.learning.export_image import export_image, run_network
from nearkin.learning.image_models import ImageModel, find_image_model
from nearkin.learning.parity import compare
from nearkin.learning.write_bundle import Origin

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("train_extra"), pytest.mark.filterwarnings("default")]

MODULE = """
import torch

from nearkin.encoders.manifest import Preparation
from nearkin.learning.image_models import ImageModel
from nearkin.learning.write_bundle import Origin


def tiny():
    torch.manual_seed(0)
    layers = []
    for inputs, outputs, stride in ((3, 16, 2), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
        layers += [torch.nn.Conv2d(inputs, outputs, 3, stride, 1), torch.nn.BatchNorm2d(outputs), torch.nn.ReLU6()]
    network = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    half = (0.5, 0.5, 0.5)
    origin = Origin(name="tiny", source="made by a test", licence="CC0-1.0", training_data="nothing")
    return ImageModel(network, Preparation(size=64, mean=half, spread=half), origin)


def nothing():
    return None
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageModel:
    """A network of a module in the working directory."""
    (tmp_path / "my_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return find_image_model("my_models:tiny")


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_network_of_ones_own_becomes_a_whole_bundle(tiny: ImageModel, precision: str, tmp_path: Path) -> None:
    pictures = read_pictures(load_drawings()[:96])
    folder = tmp_path / "bundles" / "tiny"
    made = export_image(
        tiny, folder, calibration=pictures[:48], comparison=pictures[48:], compared_on="drawings", precision=precision
    )  # type: ignore[call-overload]
    assert verify_bundle(folder) == made
    assert (made.dimensions, made.parity[0].samples) == (64, 48)
    assert made.parity[0].cosine_p1 > (0.98 if precision == "int8" else 0.99999)
    encoder = load_image_encoder(folder, 2)
    for count in (1, 3, 11):  # the graph takes any number
        assert encoder.encode(pictures[:count]).shape == (count, 64)
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert not [word for word in (b"my_models", b"site-packages", str(tmp_path).encode()) if word in content]


def test_the_shipped_graph_is_what_its_command_makes(tmp_path: Path) -> None:
    drawings = read_pictures(load_drawings()[::5])
    made = export_image(
        find_image_model("efficientnet-lite0"),
        tmp_path / "again",
        calibration=drawings[:64],
        comparison=drawings[64:],
        compared_on="drawings",
    )
    assert made.modalities == read_manifest(IMAGE_BUNDLE).modalities
    assert made.parity[0].cosine_mean > 0.995
    again, shipped = (
        load_image_encoder(folder, 2).encode(drawings[:64]) for folder in (tmp_path / "again", IMAGE_BUNDLE)
    )
    # Not to the byte: fewer drawings, and ranges are measured in floats, which processors add up in another order.
    assert np.sum(again * shipped, axis=1).min() > 0.99


def test_the_shipped_vectors_are_near_to_the_network() -> None:
    model = find_image_model("efficientnet-lite0")
    pictures = read_pictures(load_drawings()[1::16])
    near = compare(load_image_encoder(IMAGE_BUNDLE, 2).encode(pictures), run_network(model, pictures))
    assert near.cosine_mean > 0.99


def test_a_folder_that_is_there_is_left_as_it_is(tiny: ImageModel, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(Misconfigured, match="is there already"):
        export_image(tiny, tmp_path / "mine", calibration=[], comparison=[], compared_on="nothing")
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("resnet", "no image model that is known here"),
        ("no_such_module:network", "cannot be found"),
        ("my_models:missing", "cannot be found"),
        ("my_models:nothing", "gives NoneType"),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_what_names_no_model_is_refused(name: str, problem: str) -> None:
    with pytest.raises(Misconfigured, match=problem):
        find_image_model(name)


def test_a_network_of_another_size_than_its_preparation_says_is_refused(tiny: ImageModel, tmp_path: Path) -> None:
    import torch

    class OfOneSize(torch.nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.flatten(1) @ torch.ones(3 * 64 * 64, 8)

    wrong = ImageModel(OfOneSize(), Preparation(size=32, mean=(0, 0, 0), spread=(1, 1, 1)), tiny.origin)
    with pytest.raises(Misconfigured, match="cannot be traced"):
        export_image(wrong, tmp_path / "wrong", calibration=[], comparison=[], compared_on="nothing", precision="fp32")
    assert not (tmp_path / "wrong").exists()


def test_what_is_known_of_a_model_is_told_by_its_bundle() -> None:
    manifest = read_manifest(IMAGE_BUNDLE)
    assert manifest.name == "efficientnet-lite0"
    assert {file.licence for file in manifest.files} == {"Apache-2.0"}
    assert isinstance(find_image_model("efficientnet-lite0").origin, Origin)
