"""Makes a graph in fp32 small and fast: weights and, where it pays, activations in 8 bits.

Convolutions are quantised statically: the range of each activation is measured once, on pictures, and stays in the
graph. A transformer's activations differ too much from text to text for that, so only its weights are stored in 8 bits,
by column, in the form that `encoders/integer_graph.py` makes integer products of: those scale each token by itself.

Weights of convolutions use 7 of the 8 bits. A processor without VNNI adds two products in 16 bits and cuts what does
not fit; with 7 bits all fits, so that a picture has the same vector on every processor. What that costs is won back by
two things. The first convolutions stay in fp32: they see pixels, of which a drawing has large areas of one colour, and
an error that is equal all over such an area is not averaged away. And each other bias is corrected by what the rounded
weights add to the mean of its sums (Nagel et al., Data-free quantization through weight equalization and bias
correction, 2019).
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from nearkin.core.errors import Misconfigured
from nearkin.learning.trace_network import forget_origin

#: What is quantised; pooling and a last projection stay as they are: they cost little and shape the vector most.
CONVOLUTIONS = ("Conv", "Add", "Relu", "Clip")

#: How many convolutions stay in fp32, from the pixels on.
SPARED = 3

#: Smaller products are not worth nodes of their own.
LEAST_WEIGHTS = 4096

Batch = NDArray[np.float32]


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # the runtime has no types
    def __init__(self, name: str, batches: Sequence[Batch]) -> None:
        self._name, self._batches = name, iter(batches)

    def get_next(self) -> dict[str, Batch] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def quantise_convolutions(graph: Path, out: Path, batches: Sequence[Batch], *, spared: int = SPARED) -> None:
    """Write a graph whose convolutions run in 8 bits.

    Args:
        graph: in fp32, with one input.
        out: where the other is written.
        batches: what it reads, as it will be: ranges are measured on it.
        spared: how many convolutions stay in fp32, from the pixels on.

    Raises:
        Misconfigured: it has no more convolutions than those.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        if len(convolutions) <= spared:
            raise _nothing(graph, f"has {len(convolutions)} convolutions, of which {spared} stay in fp32")
        quantize_static(
            prepared,
            out,
            _Batches(model.graph.input[0].name, batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(CONVOLUTIONS),
            nodes_to_exclude=[node.name for node in convolutions[:spared]],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        _correct_biases(model, convolutions[spared:], out, batches)


def _correct_biases(
    model: onnx.ModelProto, convolutions: Sequence[onnx.NodeProto], quantised: Path, batches: Sequence[Batch]
) -> None:
    """Take out of each bias what the rounding of the weights adds to the mean of the sums."""
    means = _mean_inputs(model, sorted({node.input[0] for node in convolutions}), batches)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    corrected = onnx.load(quantised)
    constants = {tensor.name: tensor for tensor in corrected.graph.initializer}
    unpacked = {node.output[0]: node for node in corrected.graph.node if node.op_type == "DequantizeLinear"}
    by_name = {node.name: node for node in corrected.graph.node}
    for before in convolutions:
        after = by_name[before.name]
        if len(after.input) < 3 or after.input[1] not in unpacked or after.input[2] not in unpacked:
            continue
        stored, scales = (numpy_helper.to_array(constants[name]) for name in unpacked[after.input[1]].input[:2])
        exact = numpy_helper.to_array(weights[before.input[1]])
        rounding = (stored.astype(np.float32) * scales.reshape(-1, 1, 1, 1) - exact).sum((2, 3))
        groups = next((each.i for each in before.attribute if each.name == "group"), 1)
        inputs = means[before.input[0]].reshape(groups, -1)
        added = np.einsum("gri,gi->gr", rounding.reshape(groups, -1, inputs.shape[1]), inputs).reshape(-1)
        bias, scale = (constants[name] for name in unpacked[after.input[2]].input[:2])
        moved = numpy_helper.to_array(bias) - np.rint(added / numpy_helper.to_array(scale))
        bias.CopyFrom(numpy_helper.from_array(moved.astype(np.int32), bias.name))
    forget_origin(corrected)
    onnx.save(corrected, quantised)


def _mean_inputs(
    model: onnx.ModelProto, names: Sequence[str], batches: Sequence[Batch]
) -> dict[str, NDArray[np.float64]]:
    """By name, the mean of each channel of what convolutions read."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    read = model.graph.input[0].name
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name != read
    )
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    sums = dict.fromkeys(names, np.zeros(1))
    for batch in batches:
        found = dict(zip(names, session.run(list(names), {read: batch}), strict=True))
        sums = {name: total + found[name].mean((0, 2, 3), dtype=np.float64) for name, total in sums.items()}
    return {name: total / len(batches) for name, total in sums.items()}


def store_int8_weights(graph: Path, out: Path) -> None:
    """Write a graph with its weights in 8 bits: of products with a scale for each column, of tables for each row.

    Raises:
        Misconfigured: it has no products.
    """
    model = onnx.load(graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    stored: set[str] = set()
    for node in model.graph.node:
        weights = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        table = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if weights is not None and _is_large(weights):
            if weights.name not in stored:
                stored.add(weights.name)
                nodes += _unpacking(model.graph, weights)
            node.input[1] = f"{weights.name}_unpacked"
        if table is not None and _is_large(table) and not any(each.i for each in node.attribute):
            nodes += _looking_up(model.graph, table, node)
        else:
            nodes.append(node)
    if not stored:
        raise _nothing(graph, "has no matrix products whose weights could be stored in 8 bits")
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    onnx.save(model, out)


def _unpacking(graph: onnx.GraphProto, weights: onnx.TensorProto) -> Iterator[onnx.NodeProto]:
    """Put weights into a graph as bytes and scales, and give the nodes that make floats of them."""
    name = weights.name
    _store(graph, weights, axis=0)
    yield helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{name}_float", f"{name}_scales"], [f"{name}_unpacked"])


def _looking_up(graph: onnx.GraphProto, table: onnx.TensorProto, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Put a table into a graph as bytes and scales, and give the nodes that look rows up in it: no more is unpacked."""
    name, ids, out = table.name, node.input[1], node.output[0]
    if f"{name}_int8" not in {tensor.name for tensor in graph.initializer}:
        _store(graph, table, axis=1)
    yield helper.make_node("Gather", [f"{name}_int8", ids], [f"{out}_row"])
    yield helper.make_node("Cast", [f"{out}_row"], [f"{out}_row_float"], to=TensorProto.FLOAT)
    yield helper.make_node("Gather", [f"{name}_scales", ids], [f"{out}_row_scale"])
    yield helper.make_node("Mul", [f"{out}_row_float", f"{out}_row_scale"], [out])


def _store(graph: onnx.GraphProto, weights: onnx.TensorProto, axis: int) -> None:
    """Put weights into a graph as bytes, with one scale for all along an axis."""
    values = numpy_helper.to_array(weights)
    scales = np.maximum(np.abs(values).max(axis, keepdims=True) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    stored = np.rint(values / scales).astype(np.int8)
    graph.initializer.append(numpy_helper.from_array(stored, f"{weights.name}_int8"))
    graph.initializer.append(numpy_helper.from_array(scales, f"{weights.name}_scales"))


def _is_large(weights: onnx.TensorProto) -> bool:
    of_floats = weights.data_type == TensorProto.FLOAT
    return of_floats and len(weights.dims) == 2 and int(np.prod(weights.dims)) >= LEAST_WEIGHTS


def _nothing(graph: Path, problem: str) -> Misconfigured:
    return Misconfigured(problem, field=str(graph), remedy="export it with --precision fp32", reason="bundle")
