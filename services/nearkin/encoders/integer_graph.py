"""Makes a graph with int8 weights compute with them: its matrix products run in integers instead of unpacked floats.

A graph may store int8 weights only to be small: each is cast to float and scaled before its product, so the product is
as slow as any other in fp32, and the runtime keeps the unpacked weights in memory. Here the activations of each token
are quantised to 8 bits by the largest of them (dynamic quantisation by token), multiplied as integers, and scaled back.
A scale for each token keeps a text's vector independent of the texts that are encoded with it, as one scale for a whole
batch would not. Measured: docs/decisions/0006-integer-products.md.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nearkin.core.errors import Misconfigured

#: The largest activation of a token becomes this, and zero becomes the zero point: unsigned, because processors
#: multiply unsigned with signed bytes fastest.
_LARGEST, _ZERO_POINT = 127, 128

#: From 13 on a cast and a product are what they are here.
_OPSETS = range(13, 24)

#: From here on ReduceMax takes its axes as an input.
_AXES_AS_INPUT = 18

#: Constants of the rewritten graph.
_SHRINK, _ONE, _ZERO, _LAST = "nearkin_shrink", "nearkin_one", "nearkin_zero", "nearkin_last"


def with_integer_products(model: onnx.ModelProto, where: str) -> bytes:
    """Rewrite a graph's products with int8 weights.

    Args:
        model: the graph, with weights inside; it is changed.
        where: its file, to name it to a person.

    Returns:
        The rewritten graph, serialised.

    Raises:
        Misconfigured: it is of an opset that is not known here, or holds no product with int8 weights.
    """
    graph = model.graph
    opset = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)
    rewriting = _Rewriting(graph, opset)
    nodes = [new for node in graph.node for new in rewriting.of(node)]
    if not rewriting.products:
        raise _refused(where, "the text model holds no matrix product with int8 weights")
    if opset not in _OPSETS:
        raise _refused(where, f"the text model is of opset {opset}; {_OPSETS[0]} to {_OPSETS[-1]} can be rewritten")
    _replace(graph, nodes)
    serialised: bytes = model.SerializeToString()
    return serialised


class _Rewriting:
    """Rewrites products one after the other; products of the same activations share their quantised form.

    Attributes:
        products: how many were rewritten.
    """

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self._graph, self._opset = graph, opset
        self._constants: Mapping[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self._made_by = {output: node for node in graph.node for output in node.output}
        self._quantised: set[str] = set()
        self.products = 0
        for name, value in ((_SHRINK, np.float32(1 / _LARGEST)), (_ONE, np.float32(1)), (_ZERO, np.uint8(_ZERO_POINT))):
            graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        if opset >= _AXES_AS_INPUT:
            graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), _LAST))

    def of(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """What stands in the place of a node: itself, or the integer form of MatMul(x, Mul(Cast(int8), scales))."""
        scaled = self._made_by.get(node.input[1]) if node.op_type == "MatMul" else None
        cast = self._made_by.get(scaled.input[0]) if scaled is not None and scaled.op_type == "Mul" else None
        if scaled is None or cast is None or cast.op_type != "Cast":
            return [node]
        weights, scale = self._constants.get(cast.input[0]), self._constants.get(scaled.input[1])
        if weights is None or scale is None or weights.data_type != onnx.TensorProto.INT8:
            return [node]
        scales = numpy_helper.to_array(scale).reshape(-1)
        if len(weights.dims) != 2 or scales.size != weights.dims[1]:
            return [node]
        self.products += 1
        x, out = node.input[0], node.output[0]
        column_scales = f"{weights.name}_by_column"
        self._graph.initializer.append(numpy_helper.from_array(scales, column_scales))
        return [
            *self._quantise(x),
            helper.make_node("MatMulInteger", [f"{x}_int8", weights.name, _ZERO], [f"{out}_int32"]),
            helper.make_node("Cast", [f"{out}_int32"], [f"{out}_sum"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}_sum", f"{x}_scale"], [f"{out}_by_token"]),
            helper.make_node("Mul", [f"{out}_by_token", column_scales], [out]),
        ]

    def _quantise(self, x: str) -> list[onnx.NodeProto]:
        """Activations (texts, tokens, features) as bytes, and the scale of each token; nothing where that is done."""
        if x in self._quantised:
            return []
        self._quantised.add(x)
        if self._opset >= _AXES_AS_INPUT:
            largest = helper.make_node("ReduceMax", [f"{x}_abs", _LAST], [f"{x}_max"], keepdims=1)
        else:
            largest = helper.make_node("ReduceMax", [f"{x}_abs"], [f"{x}_max"], axes=[-1], keepdims=1)
        return [
            helper.make_node("Abs", [x], [f"{x}_abs"]),
            largest,
            helper.make_node("Mul", [f"{x}_max", _SHRINK], [f"{x}_scale"]),
            helper.make_node("Div", [x, f"{x}_scale"], [f"{x}_scaled"]),
            helper.make_node("QuantizeLinear", [f"{x}_scaled", _ONE, _ZERO], [f"{x}_int8"]),
        ]


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


def _refused(where: str, problem: str) -> Misconfigured:
    return Misconfigured(
        problem,
        field=where,
        remedy="install the bundle again, or set products to 'as_stored' in its manifest and give it a new id",
        reason="bundle",
    )
