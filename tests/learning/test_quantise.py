"""Graphs in 8 bits give nearly what they gave, are smaller, and have the form that the encoders make integers of."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nearkin.core.errors import Misconfigured
from nearkin.encoders.integer_graph import with_integer_products
from nearkin.learning.parity import compare
from nearkin.learning.quantise import quantise_convolutions, store_int8_weights

CHANNELS, LAYERS = 24, 8


def run(graph: Path | bytes, **inputs: np.ndarray) -> np.ndarray:
    content = graph if isinstance(graph, bytes) else graph.read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, inputs)[0]
    return found


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Batches that are like pictures: areas of one level, and some noise."""
    rng = np.random.default_rng(1)
    areas = rng.uniform(-1, 1, (48, 3, 4, 4)).repeat(8, axis=2).repeat(8, axis=3)
    return list((areas + 0.05 * rng.standard_normal(areas.shape)).astype(np.float32).reshape(6, 8, 3, 32, 32))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convolutions, every other by channel, with what is below 0 or above 6 cut off, and the mean of the last."""
    rng = np.random.default_rng(0)
    nodes, constants, read = [], [], "pictures"
    for name, value in (("low", 0.0), ("high", 6.0)):
        constants.append(numpy_helper.from_array(np.array(value, np.float32), name))
    for layer in range(LAYERS):
        by_channel = layer % 2 == 1
        inputs = 3 if layer == 0 else 1 if by_channel else CHANNELS
        weights = rng.standard_normal((CHANNELS, inputs, 3, 3)) * rng.uniform(0.2, 2, (CHANNELS, 1, 1, 1))
        weights *= np.sqrt(2 / (9 * inputs))
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"weights_{layer}"))
        constants.append(numpy_helper.from_array(rng.uniform(0, 1, CHANNELS).astype(np.float32), f"bias_{layer}"))
        inputs_of = [read, f"weights_{layer}", f"bias_{layer}"]
        shape = {"group": CHANNELS if by_channel else 1, "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", inputs_of, [f"sums_{layer}"], name=f"conv_{layer}", **shape))
        nodes.append(helper.make_node("Clip", [f"sums_{layer}", "low", "high"], [f"clipped_{layer}"]))
        read = f"clipped_{layer}"
    nodes.append(helper.make_node("ReduceMean", [read], ["vectors"], axes=[2, 3], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["pictures", 3, 32, 32])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["pictures", CHANNELS])],
        constants,
    )
    path = tmp_path_factory.mktemp("network") / "fp32.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def test_convolutions_in_8_bits_give_nearly_the_same(network: Path, pictures: list[np.ndarray], tmp_path: Path) -> None:
    quantise_convolutions(network, tmp_path / "int8.onnx", pictures[:4])
    held_out = np.concatenate(pictures[4:])
    near = compare(run(tmp_path / "int8.onnx", pictures=held_out), run(network, pictures=held_out))
    assert near.cosine_p1 > 0.99


def test_all_convolutions_but_the_first_have_weights_of_7_bits(
    network: Path, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    quantise_convolutions(network, tmp_path / "int8.onnx", pictures[:1], spared=2)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {node.output[0]: node for node in graph.node}
    weights = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    assert sum(name in constants for name in weights) == 2
    stored = [constants[made[name].input[0]] for name in weights if name in made]
    assert len(stored) == LAYERS - 2
    for each in stored:
        assert each.dtype == np.int8
        assert np.abs(each.astype(int)).max() <= 64


def test_corrected_biases_keep_the_means(
    network: Path, pictures: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = np.concatenate(pictures)
    exact = run(network, pictures=everything).mean(0)
    quantise_convolutions(network, tmp_path / "corrected.onnx", pictures)
    monkeypatch.setattr("nearkin.learning.quantise._correct_biases", lambda *_: None)
    quantise_convolutions(network, tmp_path / "rounded.onnx", pictures)
    corrected, rounded = (
        np.abs(run(tmp_path / name, pictures=everything).mean(0) - exact).sum()
        for name in ("corrected.onnx", "rounded.onnx")
    )
    assert corrected < 0.8 * rounded


def test_a_graph_without_convolutions_to_quantise_is_refused(
    network: Path, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured, match=f"has {LAYERS} convolutions, of which {LAYERS} stay"):
        quantise_convolutions(network, tmp_path / "int8.onnx", pictures, spared=LAYERS)


def transformer(opset: int, tmp_path: Path) -> Path:
    """Of token ids to vectors: a table, and two products of the same activations."""
    rng = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("table", (200, 96)), ("left", (96, 96)), ("right", (96, 96)))
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "left"], ["a"]),
        helper.make_node("MatMul", ["embedded", "right"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["vectors"]),
    ]
    graph = helper.make_graph(
        nodes,
        "transformer",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", "tokens", 96])],
        constants,
    )
    path = tmp_path / "fp32.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_weights_of_products_and_tables_become_a_quarter_as_large_and_run_in_integers(
    opset: int, tmp_path: Path
) -> None:
    path = transformer(opset, tmp_path)
    store_int8_weights(path, tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.35 * path.stat().st_size
    ids = np.random.default_rng(1).integers(0, 200, (20, 5))
    exact = run(path, input_ids=ids)[:, 0]
    assert compare(run(tmp_path / "int8.onnx", input_ids=ids)[:, 0], exact).cosine_p1 > 0.9998
    in_integers = with_integer_products(onnx.load(tmp_path / "int8.onnx"), "int8.onnx")
    kinds = [node.op_type for node in onnx.load_model_from_string(in_integers).graph.node]
    assert (kinds.count("MatMulInteger"), kinds.count("MatMul")) == (2, 0)
    assert compare(run(in_integers, input_ids=ids)[:, 0], exact).cosine_p1 > 0.999


def test_a_graph_without_products_is_refused(network: Path, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no matrix products"):
        store_int8_weights(network, tmp_path / "int8.onnx")
