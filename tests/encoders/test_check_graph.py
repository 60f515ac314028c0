"""A graph is held against its manifest, and refused with the reason where it holds what no bundle may."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nearkin.core.errors import Misconfigured
from nearkin.encoders.check_graph import OPSETS, read_graph
from nearkin.encoders.manifest import Graph, Tensor

DECLARED = Graph(17, (Tensor("x", "float32", ("texts", 4)),), (Tensor("y", "float32", ("texts", 4)),))

WEIGHTS = numpy_helper.from_array(np.ones(4, np.float32), "weights")


def add(right: str = "weights", out: str = "y", left: str = "x") -> NodeProto:
    return helper.make_node("Add", [left, right], [out])


@dataclass
class Made:
    """A small graph, y = x + 1 where nothing else is said."""

    nodes: Sequence[NodeProto] = field(default_factory=lambda: [add()])
    weights: Sequence[TensorProto] = (WEIGHTS,)
    x: tuple[int, Sequence[int | str | None]] = (TensorProto.FLOAT, ["texts", 4])
    y: tuple[int, Sequence[int | str | None]] = (TensorProto.FLOAT, ["texts", 4])
    names: tuple[str, str] = ("x", "y")
    opset: int = 17

    def model(self) -> onnx.ModelProto:
        values = [
            helper.make_tensor_value_info(name, *of) for name, of in zip(self.names, (self.x, self.y), strict=True)
        ]
        graph = helper.make_graph(list(self.nodes), "made", values[:1], values[1:], list(self.weights))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)


def refusal(model: onnx.ModelProto | bytes, declared: Graph = DECLARED, **limits: int) -> str:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(Misconfigured) as refused:
        read_graph(content, declared, "bundle/model.onnx", **limits)
    assert refused.value.field == "bundle/model.onnx"
    assert refused.value.remedy
    assert refused.value.reason == "bundle"
    return refused.value.problem


def test_a_graph_that_is_as_its_manifest_says_runs() -> None:
    model = read_graph(Made().model().SerializeToString(), DECLARED, "model.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((2, 4), np.float32)})[0].tolist() == [[1] * 4] * 2


@pytest.mark.parametrize("content", [b"", b"x", b"\x08\x0a", b"PK\x03\x04", b"\xff" * 1000], ids=repr)
def test_bytes_that_are_no_graph_are_refused(content: bytes) -> None:
    assert "is not an ONNX graph" in refusal(content)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_broken_graph_raises_nothing_else(at: int, byte: int) -> None:
    content = bytearray(Made().model().SerializeToString())
    content[at % len(content)] = byte
    with contextlib.suppress(Misconfigured):
        read_graph(bytes(content), DECLARED, "model.onnx")


@given(st.integers(0, 10_000))
def test_a_graph_that_was_cut_off_is_refused(at: int) -> None:
    content = Made().model().SerializeToString()
    refusal(content[: at % len(content)])


def test_another_opset_than_the_manifest_says_is_refused() -> None:
    assert refusal(Made(opset=16).model()) == "is of opset 16, the manifest says 17"


def test_a_graph_without_an_opset_is_refused() -> None:
    model = Made().model()
    del model.opset_import[:]
    assert "is of opset none" in refusal(model)


def test_a_graph_of_two_opsets_is_refused() -> None:
    model = Made().model()
    model.opset_import.append(helper.make_opsetid("ai.onnx", 17))
    assert "is of opset 17 and 17" in refusal(model)


@pytest.mark.parametrize("opset", [OPSETS[0] - 1, OPSETS[-1] + 1])
def test_an_opset_that_is_not_run_here_is_refused_though_the_manifest_names_it(opset: int) -> None:
    declared = Graph(opset, DECLARED.inputs, DECLARED.outputs)
    assert "does not run" in refusal(Made(opset=opset).model(), declared)


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (Made(names=("z", "y"), nodes=[add(left="z")]), "has the inputs 'z', the manifest says 'x'"),
        (Made(names=("x", "z"), nodes=[add(out="z")]), "has the outputs 'z', the manifest says 'y'"),
        (Made(x=(TensorProto.INT64, ["texts", 4])), "has 'x' as int64, the manifest says float32"),
        (Made(y=(TensorProto.FLOAT16, ["texts", 4])), "has 'y' as float16, the manifest says float32"),
        (Made(x=(TensorProto.STRING, ["texts", 4])), "has 'x' as of type 8, the manifest says float32"),
        (Made(x=(TensorProto.FLOAT, ["texts", 5])), "has 'x' of shape (any, 5), the manifest says (any, 4)"),
        (Made(y=(TensorProto.FLOAT, ["texts", 4, 1])), "has 'y' of shape (any, 4, 1), the manifest says (any, 4)"),
        (Made(y=(TensorProto.FLOAT, [1, 4])), "has 'y' of shape (1, 4), the manifest says (any, 4)"),
        (Made(y=(TensorProto.FLOAT, ["texts", "any"])), "has 'y' of shape (any, any), the manifest says (any, 4)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_inputs_and_outputs_that_are_not_as_the_manifest_says_are_refused(made: Made, problem: str) -> None:
    assert refusal(made.model()) == problem


def test_an_axis_without_a_name_is_free_as_well() -> None:
    made = Made(x=(TensorProto.FLOAT, [None, 4]), y=(TensorProto.FLOAT, ["n", 4]))
    read_graph(made.model().SerializeToString(), DECLARED, "model.onnx")


def test_an_output_without_a_shape_is_refused() -> None:
    model = Made().model()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert "has 'y' of shape" in refusal(model)


def test_an_input_that_is_no_tensor_is_refused() -> None:
    model = Made().model()
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["texts", 4]))
    model.graph.input[0].type.CopyFrom(kind)
    assert "has 'x' as of type 0" in refusal(model)


def test_another_input_beside_those_of_the_manifest_is_refused() -> None:
    model = Made().model()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    assert refusal(model) == "has the inputs 'x', 'more', the manifest says 'x'"


def test_weights_that_are_named_among_the_inputs_as_well_are_none() -> None:
    model = Made().model()
    model.graph.input.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, [4]))
    read_graph(model.SerializeToString(), DECLARED, "model.onnx")


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


@pytest.mark.parametrize(
    "location",
    ["weights.bin", "../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "*/_ORT_MEM_ADDR_/*", "a/../../b", ""],
)
def test_weights_in_another_file_are_refused_wherever_that_lies(location: str) -> None:
    assert refusal(Made(weights=[outside(location)]).model()) == (
        f"keeps the weights 'weights' outside of it, in {location!r}"
    )


def test_weights_that_name_a_file_and_say_that_they_do_not_are_refused() -> None:
    tensor = outside("../weights.bin")
    tensor.data_location = TensorProto.DEFAULT
    assert "outside of it" in refusal(Made(weights=[tensor]).model())


def constant(**attribute: object) -> NodeProto:
    return helper.make_node("Constant", [], ["weights"], **attribute)


def branches(tensor: TensorProto) -> NodeProto:
    """A node with a graph for each branch, in which the weights are."""
    out = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [4])
    branch = helper.make_graph([helper.make_node("Identity", ["weights"], ["chosen"])], "branch", [], [out], [tensor])
    return helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)


@pytest.mark.parametrize(
    "made",
    [
        Made(nodes=[constant(value=outside("../a")), add()], weights=[]),
        Made(nodes=[branches(outside("../a"))], weights=[]),
        Made(nodes=[helper.make_node("Loop", ["", "", "x"], ["y"], body=helper.make_graph(
            [branches(outside("../a"))], "body", [], []))], weights=[]),
        Made(nodes=[helper.make_node("Odd", ["x"], ["y"], tensors=[outside("../a")])], weights=[]),
    ],
    ids=["a constant", "a branch", "a branch in a loop", "a list of constants"],
)  # fmt: skip
def test_weights_in_another_file_are_found_wherever_a_graph_hides_them(made: Made) -> None:
    assert "outside of it, in '../a'" in refusal(made.model())


@pytest.mark.parametrize("part", ["values", "indices"])
def test_sparse_weights_in_another_file_are_refused(part: str) -> None:
    model = Made().model()
    sparse = model.graph.sparse_initializer.add()
    getattr(sparse, part).CopyFrom(outside("../a"))
    assert "outside of it" in refusal(model)
    attribute = Made(nodes=[constant(sparse_value=sparse), add()], weights=[]).model()
    assert "outside of it" in refusal(attribute)


@pytest.mark.parametrize(
    "domain", ["com.example", "ai.onnx.contrib", "com.microsoft.extensions", "ai.onnx.ml", "AI.ONNX"]
)
def test_operators_of_another_domain_are_refused(domain: str) -> None:
    node = helper.make_node("Add", ["x", "weights"], ["y"], domain=domain)
    assert f"uses the operator '{domain}::Add'" in refusal(Made(nodes=[node]).model())


def test_an_operator_of_another_domain_is_found_in_a_branch() -> None:
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    odd = helper.make_node("Open", ["x"], ["y"], domain="com.example")
    branch = helper.make_graph([odd], "branch", [], [out])
    node = helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)
    assert "com.example::Open" in refusal(Made(nodes=[node]).model())


def test_an_operator_that_loads_a_compiled_model_from_a_file_is_refused() -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="../x", embed_mode=0)
    assert "com.microsoft::EPContext" in refusal(Made(nodes=[node]).model())


def test_functions_of_its_own_are_refused() -> None:
    model = Made().model()
    model.functions.append(
        helper.make_function("com.example", "F", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], [])
    )
    assert "defines functions of its own" in refusal(model)


def test_a_graph_to_train_is_refused() -> None:
    model = Made().model()
    model.training_info.add()
    assert "to train it" in refusal(model)


def test_more_nodes_than_a_bundle_may_have_are_refused_those_in_branches_counted() -> None:
    chain = [helper.make_node("Abs", ["x" if not at else f"a{at}"], [f"a{at + 1}"]) for at in range(8)]
    nodes = [*chain, add(left="a8")]
    read_graph(Made(nodes=nodes).model().SerializeToString(), DECLARED, "model.onnx", max_nodes=9)
    assert refusal(Made(nodes=nodes).model(), max_nodes=8) == "has more than 8 nodes"
    assert "more than 2 nodes" in refusal(Made(nodes=[branches(WEIGHTS)]).model(), max_nodes=2)


def test_what_the_format_does_not_know_is_not_handed_on() -> None:
    content = Made().model().SerializeToString() + b"\xfa\x3f\x03odd"  # field 1023, of text
    assert b"odd" not in read_graph(content, DECLARED, "model.onnx").SerializeToString()
