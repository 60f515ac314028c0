"""Text encoding against the same model called one text at a time with both cores.

    python -m benchmarks.encoding [--rounds N] [--json FILE]

Short texts are descriptions of the catalogue, longer ones four descriptions together, long ones abstracts of papers
(csfcube, beside the evaluation data). The two ways take turns within a round, so that whatever else the machine does
hits both; a ratio is the median over the rounds of one round's ratio. The encoder is fed 64 texts at a time, the
largest batch of an indexer.

The model one by one is run as its package stores it (products in fp32) and as the encoder rewrites it
(docs/decisions/0006-integer-products.md): the second ratio is what batches and threads give, the first the whole. Both
are held to what is asked, on descriptions.

Kernels for one row and for many round differently, so a text's vector depends a little on its companions. How much is
measured as the cosine between its vector alone and in company.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import gzip
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.datasets import unpack
from benchmarks.report import Bar, conclude, print_table
from nearkin.embedded.catalogue.online_retail import load_catalogue
from nearkin.encoders.bundle import DEFAULT_BUNDLE, read_file, read_graphs, read_manifest
from nearkin.encoders.text import TextEncoder
from nearkin.ops.settings import Settings

CORES = 2

#: How many times as fast as one by one: what must be reached, and the goal. They are of the texts named so below.
MUST, GOAL = 1.5, 2.5
SHORT = "short: a description"

BATCH: int = Settings.model_fields["indexer_batch"].default


class OneByOne:
    """What a service without batches does: one text at a time, each run on all cores."""

    def __init__(self, graph: bytes, tokenizer: bytes, max_tokens: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = CORES
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.no_padding()

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Unit vectors of texts."""
        return np.stack([self._encode(text) for text in texts])

    def _encode(self, text: str) -> NDArray[np.float32]:
        ids = np.array([self._tokenizer.encode(text).ids])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean: NDArray[np.float32] = self._session.run(None, inputs)[0][0].mean(0)
        return mean / np.linalg.norm(mean)

    def count_tokens(self, texts: list[str]) -> float:
        """Mean number of tokens."""
        return statistics.mean(len(encoding.ids) for encoding in self._tokenizer.encode_batch(texts))


def sample_texts(rng: random.Random) -> dict[str, list[str]]:
    titles = [item.title for item in load_catalogue()]
    with tempfile.TemporaryDirectory() as folder:
        papers = gzip.decompress((unpack("csfcube", Path(folder)) / "docs.jsonl.gz").read_bytes()).splitlines()
    abstracts = [" ".join(sentence for _, sentence in json.loads(paper)["abstract_sents"]) for paper in papers]
    return {
        SHORT: rng.sample(titles, 4 * BATCH),
        "longer: four descriptions": [", ".join(rng.sample(titles, 4)) for _ in range(2 * BATCH)],
        "long: an abstract": rng.sample(abstracts, BATCH // 2),
    }


def in_batches(encoder: TextEncoder, texts: list[str]) -> NDArray[np.float32]:
    return np.concatenate([encoder.encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])


def time_pairs(
    encoder: TextEncoder, as_stored: OneByOne, rewritten: OneByOne, texts: list[str], rounds: int
) -> dict[str, Any]:
    calls = {
        "as stored": lambda: as_stored.encode(texts),
        "encoder": lambda: in_batches(encoder, texts),
        "rewritten": lambda: rewritten.encode(texts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for count in range(rounds + 1):
        for name in sorted(calls, reverse=bool(count % 2)):
            start = time.perf_counter()
            calls[name]()
            if count:  # the first round warms both up
                seconds[name].append(time.perf_counter() - start)
    ratios = {
        name: [slow / fast for slow, fast in zip(seconds[name], seconds["encoder"], strict=True)]
        for name in ("as stored", "rewritten")
    }
    alone, single = [], []
    for text in texts:
        start = time.perf_counter()
        single.append(encoder.encode([text])[0])
        alone.append(time.perf_counter() - start)
    cosines = np.sum(in_batches(encoder, texts) * np.stack(single), axis=1)
    return {
        "texts": len(texts),
        "tokens": round(as_stored.count_tokens(texts), 1),
        "rounds": rounds,
        "per_s": {name: len(texts) / statistics.median(times) for name, times in seconds.items()},
        "ratio": {
            name: {"median": statistics.median(all_), "min": min(all_), "max": max(all_)}
            for name, all_ in ratios.items()
        },
        "single_text_ms": {"p50": 1000 * statistics.median(alone), "p95": 1000 * float(np.percentile(alone, 95))},
        "cosine_alone_and_in_company": {"median": float(np.median(cosines)), "min": float(cosines.min())},
    }


def bars_of(results: dict[str, Any]) -> list[Bar]:
    """What is asked of this run."""
    return [
        Bar(
            what=f"{SHORT}, encoder over one by one, {graph}",
            measured=results[SHORT]["ratio"][way]["median"],
            must=MUST,
            goal=GOAL,
            unit="×",
            at_least=True,
            note=note,
        )
        for graph, way, note in (
            ("same graph", "rewritten", "what batches and threads give"),
            ("graph as its package stores it", "as stored", "what the integer graph gives too"),
        )
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    manifest = read_manifest(DEFAULT_BUNDLE)
    text = manifest.modalities.text
    assert text is not None  # the default bundle encodes text
    stored = read_file(DEFAULT_BUNDLE, manifest.file(text.model))
    served = read_graphs(DEFAULT_BUNDLE, manifest)[text.model]
    tokenizer = read_file(DEFAULT_BUNDLE, manifest.file(text.tokenizer))
    encoder = TextEncoder(served, tokenizer, max_tokens=text.max_tokens, threads=CORES)
    as_stored = OneByOne(stored, tokenizer, text.max_tokens)
    rewritten = OneByOne(served, tokenizer, text.max_tokens)
    samples = sample_texts(random.Random(0))
    results = {name: time_pairs(encoder, as_stored, rewritten, texts, args.rounds) for name, texts in samples.items()}
    rows = [
        (
            name,
            figures["tokens"],
            *(f"{figures['per_s'][way]:.0f}/s" for way in ("as stored", "rewritten", "encoder")),
            *(
                "{median:.2f} ({min:.2f} to {max:.2f})".format(**figures["ratio"][way])
                for way in ("as stored", "rewritten")
            ),
            "{p50:.1f} ms".format(**figures["single_text_ms"]),
            "{median:.7f}, {min:.7f}".format(**figures["cosine_alone_and_in_company"]),
        )
        for name, figures in results.items()
    ]
    columns = (
        *(
            "texts",
            "tokens",
            "one by one, stored",
            "one by one, same graph",
            "encoder",
            "ratio, stored",
            "ratio, same graph",
        ),
        *("one text alone", "cosine alone/company, min"),
    )
    print_table(f"Text encoding on {CORES} cores, medians of {args.rounds} interleaved rounds", columns, rows)
    return conclude({"bundle": manifest.id, "encoding": results}, bars_of(results), args.json)


if __name__ == "__main__":
    sys.exit(main())
