"""Reads an ONNX graph of a bundle and refuses what a graph may not be, before the runtime sees any of it.

A graph is code. It may name files to read its weights from, operators of libraries that are not there, and more nodes
than a process has memory for; and one that takes or gives something else than its manifest says would fail, or give
nonsense, only when the first item comes. What is handed to the runtime is serialised anew from what was checked, so
that nothing which two parsers could read in two ways is left.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from nearkin.core.errors import Misconfigured
from nearkin.encoders.manifest import ElementType, Graph, Tensor

#: The versions of ONNX's own operators that a graph may be of.
OPSETS = range(13, 24)

#: The most nodes of a graph, those of its branches and loops included: the largest text models have some thousands.
MAX_NODES = 50_000

#: ONNX's own operators, and those that the runtime brings and its optimiser makes.
DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})

#: Operators of these domains that load code or files from elsewhere.
_LOADING = frozenset({"EPContext"})

_REBUILD = "export the graph anew, or take the whole bundle anew"
_INSIDE = "export the graph with its weights inside (onnx.save without external data)"

_TYPES: dict[int, ElementType] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.BOOL: "bool",
}


def read_graph(content: bytes, declared: Graph, where: str, *, max_nodes: int = MAX_NODES) -> onnx.ModelProto:
    """Parse a graph, and hold it against what its manifest says.

    Args:
        content: the file's bytes, proved whole.
        declared: what the manifest says of it.
        where: the file, to name it to a person.
        max_nodes: a graph with more is refused.

    Raises:
        Misconfigured: it is no graph, is another one than declared, or holds what no bundle may.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's own exceptions have no common base that says more
        raise _refused(where, "is not an ONNX graph", _REBUILD) from error
    model.DiscardUnknownFields()
    if not model.HasField("graph") or not model.graph.node:
        raise _refused(where, "is not an ONNX graph: it has no nodes", _REBUILD)
    _check_opset(model, declared, where)
    _check_nodes(model, where, max_nodes)
    for tensor in _tensors(model):
        _check_weights_inside(tensor, where)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    _check_values("inputs", inputs, declared.inputs, where)
    _check_values("outputs", model.graph.output, declared.outputs, where)
    return model


def describe_graph(model: onnx.ModelProto) -> Graph:
    """What a manifest has to say of a graph.

    Raises:
        Misconfigured: it takes or gives what no bundle can say.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    return Graph(opset, tuple(map(_describe, inputs)), tuple(map(_describe, model.graph.output)))


def _describe(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    of_type = _TYPES.get(kind.elem_type)
    if of_type is None or not kind.HasField("shape"):
        raise _refused(value.name, "is of a type that no bundle can say, or of no shape", _REBUILD)
    axes = (
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"axis_{place}"
        for place, dim in enumerate(kind.shape.dim)
    )
    return Tensor(value.name, of_type, tuple(axes))


def _check_opset(model: onnx.ModelProto, declared: Graph, where: str) -> None:
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if versions != [declared.opset]:
        found = " and ".join(map(str, versions)) or "none"
        raise _refused(where, f"is of opset {found}, the manifest says {declared.opset}", _REBUILD)
    if declared.opset not in OPSETS:
        remedy = f"export the graph with an opset from {OPSETS[0]} to {OPSETS[-1]}"
        raise _refused(where, f"is of opset {declared.opset}, which this version of Nearkin does not run", remedy)


def _check_nodes(model: onnx.ModelProto, where: str, max_nodes: int) -> None:
    if model.functions:
        remedy = "export it with its functions written out (onnx.inliner.inline_local_functions)"
        raise _refused(where, "defines functions of its own", remedy)
    if model.training_info:
        raise _refused(where, "holds graphs to train it with", "export it for inference")
    nodes = 0
    for graph in _graphs(model):
        nodes += len(graph.node)
        if nodes > max_nodes:
            remedy = "simplify it, or use a smaller model"
            raise _refused(where, f"has more than {max_nodes} nodes", remedy)
        for node in graph.node:
            if node.domain not in DOMAINS or node.op_type in _LOADING:
                name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
                remedy = "export it with operators of ONNX alone, or of ONNX Runtime's own domain com.microsoft"
                raise _refused(where, f"uses the operator {_quoted(name)}, which no bundle may", remedy)


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph, and those in its branches and loops."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant, wherever a graph may hold one."""
    for graph in _graphs(model):
        yield from graph.initializer
        sparse = list(graph.sparse_initializer)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
                sparse += attribute.sparse_tensors
        for tensor in sparse:
            yield tensor.values
            yield tensor.indices


def _check_weights_inside(tensor: onnx.TensorProto, where: str) -> None:
    """Refuse weights in another file: the runtime would read whatever path the graph names, or memory by address."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        problem = f"keeps the weights {_quoted(tensor.name)} outside of it, in {_quoted(location)}"
        raise _refused(where, problem, _INSIDE)


def _check_values(which: str, found: Sequence[onnx.ValueInfoProto], declared: Sequence[Tensor], where: str) -> None:
    names, wanted = [value.name for value in found], [tensor.name for tensor in declared]
    if names != wanted:
        raise _refused(where, f"has the {which} {_listed(names)}, the manifest says {_listed(wanted)}", _REBUILD)
    for value, tensor in zip(found, declared, strict=True):
        kind = value.type.tensor_type
        of_type = _TYPES.get(kind.elem_type, f"of type {kind.elem_type}")
        if of_type != tensor.type:
            problem = f"has {tensor.name!r} as {of_type}, the manifest says {tensor.type}"
            raise _refused(where, problem, _REBUILD)
        shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        expected = [dim if isinstance(dim, int) else None for dim in tensor.shape]
        if not kind.HasField("shape") or shape != expected:
            problem = f"has {tensor.name!r} of shape {_shape(shape)}, the manifest says {_shape(expected)}"
            raise _refused(where, problem, _REBUILD)


def _shape(dims: Sequence[int | None]) -> str:
    return f"({', '.join('any' if dim is None else str(dim) for dim in dims)})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_quoted, names)) or "none"


def _quoted(name: str) -> str:
    """A name that a graph chose, short enough for a line."""
    return repr(name if len(name) <= 100 else f"{name[:100]}...")


def try_out(encode: Callable[[], NDArray[np.float32]], sample: str, where: str) -> None:
    """Encode one sample, so that what only a run shows is told at the start and not of the first item.

    Args:
        encode: encodes it.
        sample: what it is: "text" or "picture".
        where: the graph's place, for errors.

    Raises:
        Misconfigured: the graph cannot, or gives nothing that has a direction.
    """
    model = "image" if sample == "picture" else sample
    try:
        vector = encode()
    except Exception as error:
        raise unusable(where, f"the {model} model cannot encode a {sample} ({error})") from error
    if not np.isfinite(vector).all():
        raise unusable(where, f"the {model} model gives no finite vector")


def unusable(where: str, problem: str) -> Misconfigured:
    """The refusal of a graph that is whole, and no encoder."""
    return _refused(where, problem, "export the bundle anew, or install it again")


def _refused(where: str, problem: str, remedy: str) -> Misconfigured:
    return Misconfigured(problem, field=where, remedy=remedy, reason="bundle")
