"""Text to a unit vector by a transformer in ONNX Runtime: mean of the token vectors, length one.

Speed on a few cores comes from batches of texts of one length, so that nothing is padded, each run by one thread while
other threads run others. Matrix products of one such batch are too small to be worth splitting over cores.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from nearkin.core.errors import Misconfigured
from nearkin.encoders.integer_graph import with_integer_products

#: Longer texts are cut before they are split into tokens: enough for every token that the model reads.
MAX_CHARACTERS = 10_000

#: The most texts in one run of the graph.
BATCH_SIZE = 16

#: The runtime's fused sum and layer normalisation is a plain loop on a processor: apart, a text takes a tenth less.
SLOW_FUSIONS = ["SkipLayerNormFusion"]


class TextEncoder:
    """A sentence transformer. Thread-safe; holds at most `threads` cores, whoever calls.

    Args:
        model: the ONNX graph: token ids, attention mask and token types to token vectors.
        tokenizer: the tokenizer of that graph.
        max_tokens: texts are cut to so many tokens.
        threads: how many runs at a time.
        integer_products: whether products with int8 weights run in integers (`integer_graph.py`).

    Raises:
        Misconfigured: a file is not what it should be.
    """

    def __init__(self, model: Path, tokenizer: Path, *, max_tokens: int, threads: int, integer_products: bool) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            graph = with_integer_products(model) if integer_products else str(model)
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
            )
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Misconfigured:
            raise
        except Exception as error:  # both libraries raise bare exceptions of their own for a file that they cannot read
            raise Misconfigured(
                f"the text model cannot be loaded ({error})",
                field=str(model.parent),
                remedy="install the bundle again",
                reason="bundle",
            ) from error
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.no_padding()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._cores = BoundedSemaphore(threads)
        self.dimensions: int = self._session.get_outputs()[0].shape[-1]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts in order.

        Returns:
            (texts, dimensions) of unit length; a row of NaN where the graph gave nothing that has a direction.
        """
        cleaned = [text[:MAX_CHARACTERS].encode("utf-8", "replace").decode() for text in texts]
        token_ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(cleaned)]
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        batches = list(self._batch_by_length(token_ids))
        if len(batches) == 1:  # as for one text: handing it to another thread would only cost time
            vectors[batches[0]] = self._run(token_ids, batches[0])
            return vectors
        for rows, means in zip(batches, self._pool.map(lambda rows: self._run(token_ids, rows), batches), strict=True):
            vectors[rows] = means
        return vectors

    def _batch_by_length(self, token_ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Rows of texts with equally many tokens, longest first: a long batch started last would leave cores idle."""
        by_length = defaultdict(list)
        for row, ids in enumerate(token_ids):
            by_length[len(ids)].append(row)
        for length in sorted(by_length, reverse=True):
            rows = by_length[length]
            for start in range(0, len(rows), BATCH_SIZE):
                yield rows[start : start + BATCH_SIZE]

    def _run(self, token_ids: Sequence[Sequence[int]], rows: Sequence[int]) -> NDArray[np.float32]:
        ids = np.array([token_ids[row] for row in rows], np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        with self._cores:
            means = self._session.run(None, inputs)[0].mean(1)
        with np.errstate(all="ignore"):
            unit: NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return np.where(np.isfinite(unit).all(1, keepdims=True), unit, np.float32(np.nan))
