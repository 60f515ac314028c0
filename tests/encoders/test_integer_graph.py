"""Products in integers: the same meaning as in floats, and a refusal where there is nothing to rewrite."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nearkin.core.errors import Misconfigured
from nearkin.embedded.catalogue.online_retail import load_catalogue
from nearkin.encoders.bundle import DEFAULT_BUNDLE, read_file, read_manifest
from nearkin.encoders.integer_graph import with_integer_products
from nearkin.encoders.text import TextEncoder


def stored() -> onnx.ModelProto:
    """The graph of the default bundle, as its package stores it."""
    return onnx.load_model_from_string(read_file(DEFAULT_BUNDLE, read_manifest(DEFAULT_BUNDLE).file("model.onnx")))


def encoder(*, integer_products: bool) -> TextEncoder:
    graph = with_integer_products(stored(), "model.onnx") if integer_products else stored().SerializeToString()
    tokenizer = read_file(DEFAULT_BUNDLE, read_manifest(DEFAULT_BUNDLE).file("tokenizer.json"))
    return TextEncoder(graph, tokenizer, max_tokens=256, threads=2)


def test_vectors_stay_where_products_in_floats_put_them() -> None:
    texts = [item.title for item in load_catalogue()[::10]]
    cosines = np.sum(
        encoder(integer_products=True).encode(texts) * encoder(integer_products=False).encode(texts), axis=1
    )
    assert cosines.mean() > 0.997
    assert np.percentile(cosines, 1) > 0.995


def test_every_product_with_int8_weights_is_rewritten_and_none_is_left_unpacked() -> None:
    graph = onnx.load_model_from_string(with_integer_products(stored(), "model.onnx")).graph
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


def test_a_graph_of_an_opset_with_other_words_is_refused() -> None:
    model = stored()
    model.opset_import[0].version = 24
    with pytest.raises(Misconfigured, match="of opset 24; 13 to 23 can be rewritten"):
        with_integer_products(model, "model.onnx")


def test_a_graph_without_int8_products_is_refused() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "plain", [value], [out])
    with pytest.raises(Misconfigured, match="no matrix product with int8 weights") as refused:
        with_integer_products(helper.make_model(graph), "its file")
    assert refused.value.field == "its file"
