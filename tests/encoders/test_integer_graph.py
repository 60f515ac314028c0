"""Products in integers: the same meaning as in floats, and a refusal where there is nothing to rewrite."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nearkin.core.errors import Misconfigured
from nearkin.embedded.catalogue.online_retail import load_catalogue
from nearkin.encoders.bundle import DEFAULT_BUNDLE, read_manifest, verify_file
from nearkin.encoders.integer_graph import with_integer_products
from nearkin.encoders.text import TextEncoder


def encoder(*, integer_products: bool) -> TextEncoder:
    manifest = read_manifest(DEFAULT_BUNDLE)
    files = {name: verify_file(DEFAULT_BUNDLE, name, file) for name, file in manifest.files.items()}
    return TextEncoder(
        files[manifest.text.model],
        files[manifest.text.tokenizer],
        max_tokens=256,
        threads=2,
        integer_products=integer_products,
    )


def test_vectors_stay_where_products_in_floats_put_them() -> None:
    texts = [item.title for item in load_catalogue()[::10]]
    cosines = np.sum(
        encoder(integer_products=True).encode(texts) * encoder(integer_products=False).encode(texts), axis=1
    )
    assert cosines.mean() > 0.997
    assert np.percentile(cosines, 1) > 0.995


def test_every_product_with_int8_weights_is_rewritten_and_none_is_left_unpacked() -> None:
    manifest = read_manifest(DEFAULT_BUNDLE)
    path = verify_file(DEFAULT_BUNDLE, manifest.text.model, manifest.files[manifest.text.model])
    graph = onnx.load_model_from_string(with_integer_products(path)).graph
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) == 36  # six layers, six weights each
    quantised = [node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantised) == 24  # query, key and value share theirs
    used = {name for node in graph.node for name in node.input}
    assert all(tensor.name in used for tensor in graph.initializer)


def test_a_vector_does_not_depend_on_the_texts_beside_it() -> None:
    texts = [item.title for item in load_catalogue()[:64]]
    integers = encoder(integer_products=True)
    alone = np.concatenate([integers.encode([text]) for text in texts])
    assert np.sum(alone * integers.encode(texts), axis=1).min() > 0.9999


def test_a_graph_of_an_opset_with_other_words_is_refused(tmp_path: Path) -> None:
    manifest = read_manifest(DEFAULT_BUNDLE)
    model = onnx.load(verify_file(DEFAULT_BUNDLE, manifest.text.model, manifest.files[manifest.text.model]))
    model.opset_import[0].version = 18
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(Misconfigured, match="of opset 18; 13 to 17 can be rewritten"):
        with_integer_products(path)


def test_a_graph_without_int8_products_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "plain", [value], [out])
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(Misconfigured, match="no matrix product with int8 weights") as refused:
        with_integer_products(path)
    assert refused.value.field == str(path)
