"""Makes a graph with int8 weights compute with them: its matrix products run in integers instead of unpacked floats.

A graph may store int8 weights only to be small: each is cast to float and scaled before its product, so the product is
as slow as any other in fp32, and the runtime keeps the unpacked weights in memory. Here such a product becomes one
`MatMulNBits` of ONNX Runtime (8 bits, symmetric, blocks of 128 inputs), whose kernels quantise each block of the
activations as it is read. A scale for so few numbers keeps an outlier from blurring the rest, as one scale for a whole
batch would. Measured: docs/decisions/0006-integer-products.md.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nearkin.core.errors import Misconfigured

#: Inputs that share one scale; the rows of a weight must be a multiple of it.
BLOCK = 128

#: ONNX Runtime's word for "quantise the activations to int8".
_INT8_ACTIVATIONS = 4

_DOMAIN = "com.microsoft"


def with_integer_products(path: Path) -> bytes:
    """Read a graph and rewrite its products with int8 weights.

    Args:
        path: the graph, with weights inside.

    Returns:
        The rewritten graph, serialised.

    Raises:
        Misconfigured: it is no graph, or holds no product with int8 weights.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # protobuf's own exceptions have no common base that says more
        raise _refused(path, "the text model cannot be loaded: it is not an ONNX graph") from error
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    nodes = [_integer_product(node, constants, made_by, graph) or node for node in graph.node]
    if not any(node.op_type == "MatMulNBits" for node in nodes):
        raise _refused(path, "the text model holds no matrix product with int8 weights")
    _replace(graph, nodes)
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    serialised: bytes = model.SerializeToString()
    return serialised


def _integer_product(
    node: onnx.NodeProto,
    constants: Mapping[str, onnx.TensorProto],
    made_by: Mapping[str, onnx.NodeProto],
    graph: onnx.GraphProto,
) -> onnx.NodeProto | None:
    """The integer form of MatMul(x, Mul(Cast(int8 weights), scales)); None for every other node."""
    scaled = made_by.get(node.input[1]) if node.op_type == "MatMul" else None
    cast = made_by.get(scaled.input[0]) if scaled is not None and scaled.op_type == "Mul" else None
    if scaled is None or cast is None or cast.op_type != "Cast":
        return None
    stored, scale = constants.get(cast.input[0]), constants.get(scaled.input[1])
    if stored is None or scale is None or stored.data_type != onnx.TensorProto.INT8:
        return None
    weights, scales = numpy_helper.to_array(stored), numpy_helper.to_array(scale).reshape(-1)
    rows, columns = weights.shape
    if rows % BLOCK or scales.size != columns:
        return None
    blocks = rows // BLOCK
    packed = (weights.T.astype(np.int16) + 128).astype(np.uint8).reshape(columns, blocks, BLOCK)
    names = f"{stored.name}_blocks", f"{stored.name}_scales"
    graph.initializer.append(numpy_helper.from_array(packed, names[0]))
    graph.initializer.append(numpy_helper.from_array(np.repeat(scales[:, None], blocks, 1), names[1]))
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], *names],
        list(node.output),
        domain=_DOMAIN,
        K=rows,
        N=columns,
        bits=8,
        block_size=BLOCK,
        accuracy_level=_INT8_ACTIVATIONS,
    )


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Put nodes in the place of a graph's own, without those and the constants that nothing uses any more."""
    outputs = {output.name for output in graph.output}
    while True:
        used = {name for node in nodes for name in node.input} | outputs
        kept = [node for node in nodes if used.intersection(node.output)]
        if len(kept) == len(nodes):
            break
        nodes = kept
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _refused(path: Path, problem: str) -> Misconfigured:
    return Misconfigured(
        problem,
        field=str(path),
        remedy="install the bundle again, or set integer_products to false in its manifest and give it a new id",
        reason="bundle",
    )
