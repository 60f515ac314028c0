"""A whole bundle with a tiny text model of its own, for tests that need another bundle than the default one."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
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


def make_bundle(folder: Path, name: str = "tiny", *, dimensions: int = 4, pooling: str = "mean") -> Manifest:
    """A bundle in a folder that is made for it: each word a fixed direction."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    contents = {"model.onnx": make_graph(dimensions).SerializeToString(), "tokenizer.json": tokenizer.to_str().encode()}
    graph = Graph(
        17,
        (Tensor("input_ids", "int64", ("texts", "tokens")),),
        (Tensor("vectors", "float32", ("texts", "tokens", dimensions)),),
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
    text = TextSettings("model.onnx", "tokenizer.json", content.RECIPE, 16, "as_stored", pooling=pooling)  # type: ignore[arg-type]
    manifest = Manifest(
        FORMAT, "-", name, "1.0.0", dimensions, Modalities(text, LexicalSettings(lexical.SCHEME)), files, ("en",),
        "nothing", (), (), (),
    )  # fmt: skip
    encoded = encode_manifest(manifest)
    (folder / "manifest.json").write_bytes(encoded)
    return decode_manifest(encoded)


def make_graph(dimensions: int) -> onnx.ModelProto:
    """Of token ids to the rows of a table."""
    table = np.random.default_rng(0).standard_normal((len(WORDS), dimensions)).astype(np.float32)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"])
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", "tokens", dimensions])
    node = helper.make_node("Gather", ["table", "input_ids"], ["vectors"])
    graph = helper.make_graph([node], "tiny", [ids], [vectors], [numpy_helper.from_array(table, "table")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
