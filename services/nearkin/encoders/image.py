"""A picture to a unit vector by a network in ONNX Runtime: the mean of what it sees in a few views, length one.

What is done to the pixels before the graph sees them is data of the bundle, because another view, size or mean gives
other vectors. Pictures come decoded: who decodes them answers for orientation, colour space and transparency.

A run of the graph takes one core and a few pictures, and runs stand side by side. So what is held at a time is bounded
by the number of runs, not by how many pictures are asked for.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from nearkin.encoders.check_graph import try_out, unusable
from nearkin.encoders.manifest import Preparation, View

Pixels = NDArray[np.uint8]

#: The most pictures in one run of the graph: more gain nothing on one core, and hold memory.
BATCH_SIZE = 4

#: A picture much larger than what is read is first shrunk by whole pixels, which is much faster and hardly seen.
REDUCING_GAP = 3.0


class ImageEncoder:
    """A network that sees. Thread-safe; holds at most `threads` cores, whoever calls.

    Args:
        graph: the ONNX graph, checked: (pictures, 3, size, size) of float32 to (pictures, dimensions).
        preparation: what becomes of the pixels before.
        threads: how many runs at a time.
        where: what holds the graph, to name it to a person.

    Raises:
        Misconfigured: the graph cannot be loaded, or is not one of pictures of that size.
    """

    def __init__(self, graph: bytes, preparation: Preparation, *, threads: int, where: str = "the bundle") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises bare exceptions of its own for what it cannot read
            raise unusable(where, f"the image model cannot be loaded ({error})") from error
        self._preparation = preparation
        self._read, self.dimensions = _check_shapes(self._session, preparation.size, where)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encode-image")
        self._cores = BoundedSemaphore(threads)
        ramp = np.linspace(0, 255, 32 * 32 * 3).astype(np.uint8).reshape(32, 32, 3)
        try_out(lambda: self.encode([ramp]), "picture", where)

    def encode(self, pictures: Sequence[Pixels]) -> NDArray[np.float32]:
        """Encode pictures in order.

        Args:
            pictures: each (height, width, 3), red, green and blue from 0 to 255, of at least one pixel.

        Returns:
            (pictures, dimensions) of unit length; a row of NaN where the graph gave nothing that has a direction.

        Raises:
            ValueError: one is no picture.
        """
        for place, picture in enumerate(pictures):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
                shape = f"{picture.dtype} of shape {picture.shape}"
                raise ValueError(f"picture {place} is {shape}; it must be uint8 of (height, width, 3), not empty")
        vectors = np.empty((len(pictures), self.dimensions), np.float32)
        batches = [slice(start, start + BATCH_SIZE) for start in range(0, len(pictures), BATCH_SIZE)]
        if len(batches) == 1:  # as for one picture: handing it to another thread would only cost time
            vectors[:] = self._run(pictures)
            return vectors
        outcomes = self._pool.map(self._run, (pictures[batch] for batch in batches))
        for batch, outcome in zip(batches, outcomes, strict=True):
            vectors[batch] = outcome
        return vectors

    def _run(self, pictures: Sequence[Pixels]) -> NDArray[np.float32]:
        with self._cores:
            planes = prepare(pictures, self._preparation)
            found: NDArray[np.float32] = self._session.run(None, {self._read: planes})[0]
        return join_views(found, len(self._preparation.views))


def prepare(pictures: Sequence[Pixels], preparation: Preparation) -> NDArray[np.float32]:
    """What the graph reads: (pictures x views, 3, size, size), the views of a picture one after the other."""
    mean, spread = np.array(preparation.mean, np.float32), np.array(preparation.spread, np.float32)
    scale, shift = (1 / (255 * spread))[:, None, None], (mean / spread)[:, None, None]
    squares = [read_square(picture, view, preparation) for picture in pictures for view in preparation.views]
    planes = np.empty((len(squares), 3, preparation.size, preparation.size), np.float32)
    for plane, square in zip(planes, squares, strict=True):
        np.multiply(square.transpose(2, 0, 1), scale, out=plane)
        plane -= shift
    return planes


def join_views(found: NDArray[np.float32], views: int) -> NDArray[np.float32]:
    """The unit vectors of pictures, of what a network gives for their views; NaN where that has no direction."""
    with np.errstate(all="ignore"):
        each = found / np.linalg.norm(found, axis=1, keepdims=True)
        means = each.reshape(-1, views, found.shape[1]).mean(1)
        unit: NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
    return np.where(np.isfinite(unit).all(1, keepdims=True), unit, np.float32(np.nan))


def read_square(picture: Pixels, view: View, preparation: Preparation) -> Pixels:
    """The square of pixels that a view reads of a picture (height, width, 3)."""
    size, (height, width) = preparation.size, picture.shape[:2]
    resampling = Image.Resampling[preparation.resampling.upper()]
    whole = Image.fromarray(picture)
    if view.fit == "whole":
        scale = size / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        square = np.full((size, size, 3), round(255 * view.background), np.uint8)
        top, left = (size - rows) // 2, (size - columns) // 2
        inside = whole.resize((columns, rows), resampling, None, REDUCING_GAP)
        square[top : top + rows, left : left + columns] = np.asarray(inside)
        return square
    if view.fit == "stretch":
        return np.asarray(whole.resize((size, size), resampling, None, REDUCING_GAP))
    # Cut and resized in one step: to resize first would make a huge picture of one that is long and thin. The cut
    # begins at a whole pixel, so that a picture which has the right size already is not blurred.
    side = view.kept * min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(whole.resize((size, size), resampling, box, REDUCING_GAP))


def _check_shapes(session: onnxruntime.InferenceSession, size: int, where: str) -> tuple[str, int]:
    """The name of the graph's input, and the length of its vectors."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise unusable(where, f"the image model has {len(inputs)} inputs and {len(outputs)} outputs, not one of each")
    read, made = inputs[0], outputs[0]
    if read.type != "tensor(float)" or isinstance(read.shape[0], int) or read.shape[1:] != [3, size, size]:
        wanted = f"tensor(float) of (any number, 3, {size}, {size})"
        raise unusable(where, f"the image model reads {read.type} of {read.shape}; it has to read {wanted}")
    if made.type != "tensor(float)" or len(made.shape) != 2 or not isinstance(made.shape[1], int):
        raise unusable(where, f"the image model gives {made.type} of {made.shape}, not a vector for each picture")
    return read.name, made.shape[1]
