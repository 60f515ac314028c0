"""A whole bundle with a tiny text model of its own, for tests that need another bundle than the default one."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from nearkin.encoders import content, lexical
from nearkin.encoders.manifest import (
    FORMAT,
    BundleFile,
    Graph,
    LexicalSettings,
    Manifest,
    Modalities,
    Tensor,
    TextSettings,
    decode_manifest,
    encode_manifest,
)

WORDS = ["[UNK]", "red", "blue", "coffee", "mug", "cup", "tyre"]


def make_bundle(
    folder: Path,
    name: str = "tiny",
    *,
    dimensions: int = 4,
    pooling: Literal["mean", "first", "none"] = "mean",
    prefix: str = "",
) -> Manifest:
    """A bundle in a folder that is made for it: each word a fixed direction."""
    folder.mkdir(parents=True)
    contents = {
        "model.onnx": make_graph(dimensions, pools=pooling == "none").SerializeToString(),
        "tokenizer.json": make_tokenizer(WORDS),
    }
    shape = ("texts", dimensions) if pooling == "none" else ("texts", "tokens", dimensions)
    graph = Graph(
        17,
        (Tensor("input_ids", "int64", ("texts", "tokens")),),
        (Tensor("vectors", "float32", shape),),
    )
    for path, bytes_ in contents.items():
        (folder / path).write_bytes(bytes_)
    files = tuple(
        BundleFile(
            path,
            hashlib.sha256(bytes_).hexdigest(),
            len(bytes_),
            "Apache-2.0",
            "made by a test",
            graph=graph if path.endswith(".onnx") else None,
        )
        for path, bytes_ in contents.items()
    )
    text = TextSettings("model.onnx", "tokenizer.json", content.RECIPE, 16, "as_stored", pooling, prefix)
    manifest = Manifest(
        FORMAT, "-", name, "1.0.0", dimensions, Modalities(text, LexicalSettings(lexical.SCHEME)), files, ("en",),
        "nothing", (), (), (),
    )  # fmt: skip
    encoded = encode_manifest(manifest)
    (folder / "manifest.json").write_bytes(encoded)
    return decode_manifest(encoded)


def make_tokenizer(words: Sequence[str]) -> bytes:
    """A tokenizer of whole words."""
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return str(tokenizer.to_str()).encode()


def table_of(dimensions: int) -> NDArray[np.float32]:
    """The vector of each word."""
    return np.random.default_rng(0).standard_normal((len(WORDS), dimensions)).astype(np.float32)


def make_graph(dimensions: int, *, pools: bool = False) -> onnx.ModelProto:
    """Of token ids to their vectors, or to the mean of those."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"])
    shape = ["texts", dimensions] if pools else ["texts", "tokens", dimensions]
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, shape)
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["words" if pools else "vectors"])]
    if pools:
        nodes.append(helper.make_node("ReduceMean", ["words"], ["vectors"], axes=[1], keepdims=0))
    weights = [numpy_helper.from_array(table_of(dimensions), "table")]
    graph = helper.make_graph(nodes, "tiny", [ids], [vectors], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
