"""The real image model, and made ones that show what becomes of pixels before a model reads them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from nearkin.core.errors import Misconfigured
from nearkin.encoders.bundle import DEFAULT_BUNDLE, IMAGE_BUNDLE, load_encoder, load_image_encoder
from nearkin.encoders.image import BATCH_SIZE, ImageEncoder, prepare
from nearkin.encoders.manifest import Preparation, View
from nearkin.learning.drawings import load_drawings, read_pictures

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(scope="module")
def drawings() -> list[NDArray[np.uint8]]:
    return read_pictures(load_drawings()[::20])


@pytest.fixture(scope="module")
def shipped() -> ImageEncoder:
    return load_image_encoder(IMAGE_BUNDLE, 2)


def plain(colour: tuple[int, int, int], height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


def resized(picture: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def preparation(**changes: object) -> Preparation:
    """Of 16 pixels, each level as it is."""
    return Preparation(**{"size": 16, "mean": (0, 0, 0), "spread": (1, 1, 1), **changes})  # type: ignore[arg-type]


def mean_graph(
    shape: Sequence[int | str] = ("pictures", 3, 16, 16), out: Sequence[int | str] = ("pictures", 3), **pool: object
) -> bytes:
    """A model whose vector is the mean colour of what it reads."""
    read = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, list(shape))
    made = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, list(out))
    node = helper.make_node("ReduceMean", ["pictures"], ["vectors"], axes=[2, 3], **{"keepdims": 0, **pool})
    graph = helper.make_graph([node], "mean colour", [read], [made])
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10
    ).SerializeToString()
    return content


def test_a_picture_is_nearest_to_a_smaller_copy_of_itself(
    shipped: ImageEncoder, drawings: list[NDArray[np.uint8]]
) -> None:
    copies = [resized(drawing, 0.6) for drawing in drawings]
    nearest = (shipped.encode(copies) @ shipped.encode(drawings).T).argmax(axis=1)
    assert np.mean(nearest == np.arange(len(drawings))) > 0.95


def test_vectors_have_unit_length_and_stand_in_the_order_of_the_pictures(
    shipped: ImageEncoder, drawings: list[NDArray[np.uint8]]
) -> None:
    vectors = shipped.encode(drawings)
    assert vectors.shape == (len(drawings), shipped.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    alone = np.concatenate([shipped.encode([drawing]) for drawing in drawings])
    assert np.sum(vectors * alone, axis=1).min() > 0.9999


def test_no_pictures_give_no_vectors(shipped: ImageEncoder) -> None:
    assert shipped.encode([]).shape == (0, shipped.dimensions)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 2), (640, 480)], ids=str)
@pytest.mark.parametrize("level", [0, 255])
def test_any_picture_gives_a_finite_vector(shipped: ImageEncoder, shape: tuple[int, int], level: int) -> None:
    vectors = shipped.encode([np.full((*shape, 3), level, np.uint8)])
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)


def test_many_threads_get_what_one_gets(shipped: ImageEncoder, drawings: list[NDArray[np.uint8]]) -> None:
    expected = shipped.encode(drawings)
    with ThreadPoolExecutor(6) as pool:
        for answer in pool.map(shipped.encode, [drawings] * 6):
            assert np.allclose(answer, expected, atol=1e-5)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["floats", "grey", "with alpha", "empty"],
)
def test_what_is_no_picture_is_refused(shipped: ImageEncoder, picture: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="picture 1 is"):
        shipped.encode([plain(RED), picture])


def test_the_bundle_that_serves_text_encodes_no_pictures() -> None:
    with pytest.raises(Misconfigured, match="encodes no pictures"):
        load_image_encoder(DEFAULT_BUNDLE, 1)


def test_a_bundle_of_pictures_alone_serves_no_items() -> None:
    with pytest.raises(Misconfigured, match="encodes no text"):
        load_encoder(IMAGE_BUNDLE, 1)


def test_levels_are_taken_from_a_mean_and_divided_by_a_spread() -> None:
    planes = prepare([plain((255, 51, 0))], preparation(mean=(0.5, 0.1, 0), spread=(0.5, 0.2, 1)))
    assert planes.shape == (1, 3, 16, 16)
    assert planes[0].mean((1, 2)) == pytest.approx([1, 0.5, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("fit", "share_of_red"),
    [("cut", 1.0), ("stretch", 0.5), ("whole", 0.25)],
)
def test_what_of_a_wide_picture_is_read_is_said_by_the_bundle(fit: str, share_of_red: float) -> None:
    sides = plain(BLUE, 32, 16)
    wide = np.concatenate([sides, plain(RED, 32, 32), sides], axis=1)
    planes = prepare([wide], preparation(views=(View(fit, background=0.0),), resampling="box"))
    assert planes[0, 0].mean() == pytest.approx(share_of_red, abs=0.02)


def test_a_cut_may_keep_less_than_the_middle_square() -> None:
    framed = plain(BLUE, 40, 40)
    framed[5:35, 5:35] = RED
    assert prepare([framed], preparation(views=(View(kept=0.75),), resampling="box"))[0, 2].mean() < 0.01
    assert prepare([framed], preparation(resampling="box"))[0, 2].mean() == pytest.approx(1 - 0.75**2, abs=0.05)


def test_a_picture_of_the_right_size_is_read_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 21, 3), np.uint8)
    planes = prepare([picture], preparation())
    assert np.rint(255 * planes[0].transpose(1, 2, 0)).astype(np.uint8).tolist() == picture[:, 2:18].tolist()


def test_the_vector_of_a_picture_is_the_mean_of_its_views() -> None:
    framed = plain(BLUE, 40, 40)
    framed[10:30, 10:30] = RED
    views = View(kept=0.25), View("whole")
    both = ImageEncoder(mean_graph(), preparation(views=views), threads=1).encode([plain(BLUE), framed])
    inner, outer = (
        ImageEncoder(mean_graph(), preparation(views=(view,)), threads=1).encode([framed])[0] for view in views
    )
    assert inner.tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert both[1] == pytest.approx((inner + outer) / np.linalg.norm(inner + outer), abs=1e-6)
    assert both[0].tolist() == pytest.approx([0, 0, 1], abs=1e-6)


def test_a_vector_without_a_direction_is_marked_and_spoils_no_other() -> None:
    encoder = ImageEncoder(mean_graph(), preparation(), threads=2)
    pictures = [plain(RED)] * BATCH_SIZE + [plain((0, 0, 0)), plain(BLUE)]
    vectors = encoder.encode(pictures)
    assert np.isnan(vectors[BATCH_SIZE]).all()
    assert vectors[0].tolist() == pytest.approx([1, 0, 0])
    assert vectors[-1].tolist() == pytest.approx([0, 0, 1])


@pytest.mark.parametrize(
    ("graph", "problem"),
    [
        (b"no graph", "cannot be loaded"),
        (mean_graph(("pictures", 3, 32, 32)), "it has to read"),
        (mean_graph((1, 3, 16, 16), (1, 3)), "it has to read"),
        (mean_graph(out=("pictures", 3, 1, 1), keepdims=1), "not a vector for each picture"),
    ],
    ids=["no graph", "another size", "one picture at a time", "a map"],
)
def test_a_graph_that_is_no_encoder_of_such_pictures_is_refused(graph: bytes, problem: str) -> None:
    with pytest.raises(Misconfigured, match=problem) as refused:
        ImageEncoder(graph, preparation(), threads=1, where="bundles/mine")
    assert refused.value.field == "bundles/mine"


def test_a_graph_that_gives_no_finite_vector_is_refused_when_it_is_loaded() -> None:
    model = onnx.load_model_from_string(mean_graph())
    model.graph.node[0].output[0] = "mean"
    model.graph.node.append(helper.make_node("Sub", ["mean", "mean"], ["nothing"]))
    model.graph.node.append(helper.make_node("Div", ["mean", "nothing"], ["vectors"]))
    with pytest.raises(Misconfigured, match="no finite vector"):
        ImageEncoder(model.SerializeToString(), preparation(), threads=1)
