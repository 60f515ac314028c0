"""Text to a unit vector by a transformer in ONNX Runtime: mean of the token vectors, length one.

Speed on a few cores comes from batches of texts of one length, so that nothing is padded, each run by one thread while
other threads run others. Matrix products of one such batch are too small to be worth splitting over cores.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from nearkin.encoders.check_graph import try_out, unusable

#: Longer texts are cut before they are split into tokens: enough for every token that the model reads.
MAX_CHARACTERS = 10_000

#: The most texts in one run of the graph.
BATCH_SIZE = 16

#: What a text graph may be asked with; it need not take all.
INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})

#: The runtime's fused sum and layer normalisation is a plain loop on a processor: apart, a text takes a tenth less.
SLOW_FUSIONS = ["SkipLayerNormFusion"]


class TextEncoder:
    """A sentence transformer. Thread-safe; holds at most `threads` cores, whoever calls.

    Args:
        graph: the ONNX graph, checked: of the `INPUTS` those that it takes, to token vectors.
        tokenizer: the tokenizer of that graph, as JSON.
        max_tokens: texts are cut to so many tokens.
        threads: how many runs at a time.
        pooling: how a text's token vectors become one: their mean, the first, or the graph did it itself.
        prefix: stands before each text.
        where: what holds both, to name it to a person.

    Raises:
        Misconfigured: they cannot be loaded, or do not fit each other.
    """

    def __init__(
        self,
        graph: bytes,
        tokenizer: bytes,
        *,
        max_tokens: int,
        threads: int,
        pooling: Literal["mean", "first", "none"] = "mean",
        prefix: str = "",
        where: str = "the bundle",
    ) -> None:
        self._pooling, self._prefix = pooling, prefix
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
            )
            self._tokenizer = Tokenizer.from_buffer(tokenizer)
            self._tokenizer.enable_truncation(max_tokens)
        except Exception as error:  # both libraries raise bare exceptions of their own for what they cannot read
            raise unusable(where, f"the text model cannot be loaded ({error})") from error
        self._tokenizer.no_padding()
        self._inputs = {each.name for each in self._session.get_inputs()}
        if "input_ids" not in self._inputs or not self._inputs <= INPUTS:
            problem = (
                f"the text model takes {', '.join(sorted(self._inputs))}; of {', '.join(sorted(INPUTS))} it may take"
            )
            raise unusable(where, f"{problem} some, input_ids among them")
        outputs = self._session.get_outputs()
        axes = 2 if pooling == "none" else 3
        if len(outputs[0].shape) != axes or not isinstance(outputs[0].shape[-1], int):
            problem = f"the text model's first output has the shape {outputs[0].shape}; with pooling {pooling!r} it has"
            raise unusable(where, f"{problem} {axes} axes, the last of a fixed length")
        self.dimensions: int = outputs[0].shape[-1]
        self._output = outputs[0].name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._cores = BoundedSemaphore(threads)
        try_out(lambda: self.encode(["warm"]), "text", where)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts in order.

        Returns:
            (texts, dimensions) of unit length; a row of NaN where the graph gave nothing that has a direction.
        """
        cleaned = [self._prefix + text[:MAX_CHARACTERS].encode("utf-8", "replace").decode() for text in texts]
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
        known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        inputs = {name: known[name] for name in self._inputs}
        with self._cores:
            found = self._session.run([self._output], inputs)[0]
        if self._pooling != "none":
            found = found.mean(1) if self._pooling == "mean" else found[:, 0]
        with np.errstate(all="ignore"):
            unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return np.where(np.isfinite(unit).all(1, keepdims=True), unit, np.float32(np.nan))
