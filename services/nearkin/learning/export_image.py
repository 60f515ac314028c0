"""Makes an image bundle of a network: traced to ONNX, quantised on drawings, compared with the network on others.

What is compared is the whole way of a picture, by the encoder that serves, with the network in PyTorch in fp32 on the
same prepared pixels.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nearkin.encoders.image import ImageEncoder, Pixels, join_views, prepare
from nearkin.encoders.manifest import ImageSettings, Manifest, Modalities
from nearkin.learning.image_models import ImageModel
from nearkin.learning.parity import compare, parity_of
from nearkin.learning.quantise import quantise_convolutions
from nearkin.learning.trace_network import trace_network
from nearkin.learning.write_bundle import require_free, write_bundle

#: Pictures in one batch of the calibration and of the reference.
BATCH = 8

MODEL = "image.onnx"


def export_image(
    model: ImageModel,
    folder: Path,
    *,
    calibration: Sequence[Pixels],
    comparison: Sequence[Pixels],
    compared_on: str,
    precision: Literal["int8", "fp32"] = "int8",
    version: str = "1.0.0",
) -> Manifest:
    """Make an image bundle of a network.

    Args:
        model: the network, and what is known of it.
        folder: of the bundle; made by this.
        calibration: pictures that ranges are measured on.
        comparison: others, that the bundle is compared with the network on.
        compared_on: what those are.
        precision: of weights and activations.
        version: of the bundle.

    Raises:
        Misconfigured: the network cannot be made a bundle of, or the folder is there.
    """
    require_free(folder)
    with tempfile.TemporaryDirectory() as beside:
        traced, made = Path(beside) / "traced.onnx", Path(beside) / "made.onnx"
        trace_image(model, traced)
        if precision == "int8":
            starts = range(0, len(calibration), BATCH)
            batches = [prepare(calibration[start : start + BATCH], model.preparation) for start in starts]
            quantise_convolutions(traced, made, batches)
        graph = (made if precision == "int8" else traced).read_bytes()
    encoder = ImageEncoder(graph, model.preparation, threads=1, where=MODEL)
    near = compare(encoder.encode(comparison), run_network(model, comparison))
    parity = parity_of(near, "image", "the network in PyTorch, fp32", compared_on)
    return write_bundle(
        folder,
        model.origin,
        version=version,
        dimensions=encoder.dimensions,
        modalities=Modalities(image=ImageSettings(MODEL, model.preparation)),
        files={MODEL: graph},
        parity=(parity,),
    )


def run_network(model: ImageModel, pictures: Sequence[Pixels]) -> NDArray[np.float32]:
    """The unit vectors that the network itself gives for pictures."""
    import torch

    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), BATCH):
            planes = prepare(pictures[start : start + BATCH], model.preparation)
            found.append(model.network.eval()(torch.from_numpy(planes)).numpy())
    return join_views(np.concatenate(found), len(model.preparation.views))


def trace_image(model: ImageModel, out: Path) -> None:
    """Write the network as a graph in fp32, for any number of pictures."""
    import torch

    examples = {"pictures": torch.zeros(2, 3, model.preparation.size, model.preparation.size)}
    trace_network(model.network, examples, {0: "pictures"}, "vectors", out)
