"""Writes a PyTorch network as an ONNX graph that any number of pictures or texts may be put through at once.

The runtime's plain optimisations are applied once, here: constants are computed, normalisations become part of the
convolutions before them. What depends on a processor it still does when it loads the graph. What the exporter notes
about where the network came from is taken out, because it names files of the machine that it ran on.
"""

import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnxruntime

from nearkin.core.errors import Misconfigured

if TYPE_CHECKING:
    import torch

#: The version of ONNX's operators that graphs are written in: the oldest that the exporter writes without a detour.
OPSET = 18


def trace_network(
    network: "torch.nn.Module",
    examples: "Mapping[str, torch.Tensor]",
    free: Mapping[int, str],
    output: str,
    out: Path,
) -> None:
    """Write a network as a graph in fp32.

    Args:
        network: takes the examples in their order and gives one tensor.
        examples: by name inputs of the right types and shapes, with at least two in each free axis.
        free: names of the axes that may have any length, by their place in every input.
        output: the name of what the graph gives.
        out: where it is written.

    Raises:
        Misconfigured: it cannot be traced.
    """
    import torch

    axes = {place: torch.export.Dim(name, min=1, max=1 << 16) for place, name in free.items()}
    # The exporter tells of libraries that it could also export from, and of steps that it took.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = Path(folder) / "traced.onnx"
        try:
            torch.onnx.export(
                network.eval(),
                tuple(examples.values()),
                traced,
                input_names=list(examples),
                output_names=[output],
                dynamic_shapes=tuple(axes for _ in examples),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                optimize=True,
                verbose=False,
            )
        except Exception as error:  # the exporter raises whatever the network's own code does
            raise Misconfigured(
                f"cannot be traced to ONNX ({str(error).partition(chr(10))[0]})",
                field="the network",
                remedy="let it take what it is given here, and use operations that torch.onnx.export knows",
                reason="model",
            ) from error
        optimise(traced, out)


def optimise(graph: Path, out: Path) -> None:
    """Write a graph as the runtime optimises it for any processor, without what tells of its making."""
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimised)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        model = onnx.load(optimised)
    forget_origin(model)
    onnx.save(model, out)


def forget_origin(model: onnx.ModelProto) -> None:
    """Take out of a graph what no run needs: who made it from what, names of code, domains that nothing uses."""
    graph = model.graph
    used = {node.domain for node in graph.node} | {"", "ai.onnx"}
    opsets = [each for each in model.opset_import if each.domain in used]
    del model.opset_import[:], model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    model.opset_import.extend(opsets)
    model.producer_name, model.producer_version, model.doc_string, graph.doc_string = "nearkin", "", "", ""
    for node in graph.node:
        _forget(node)
    for value in (*graph.input, *graph.output):
        _forget(value)
    for tensor in graph.initializer:
        _forget(tensor)


def _forget(part: onnx.NodeProto | onnx.ValueInfoProto | onnx.TensorProto) -> None:
    del part.metadata_props[:]
    part.doc_string = ""
