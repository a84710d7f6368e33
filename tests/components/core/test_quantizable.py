import onnx
import pytest
import torch

from components.core.quantizable import constant_tensors, learned_nodes, name_nodes, tail_nodes, weighted_nodes
from components.export.canonical_faster_rcnn import CanonicalFasterRCNN
from components.export.onnx_export import export_onnx
from fixtures.detectors import tiny_faster_rcnn


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "canonical.onnx"
    export_onnx(CanonicalFasterRCNN(tiny_faster_rcnn(), 96, 96), torch.rand(1, 3, 96, 96), path)
    graph = onnx.load(path).graph
    name_nodes(graph)
    return graph


def by_name(graph):
    return {node.name: node for node in graph.node}


def test_every_layer_with_weights_is_found(graph):
    kinds = [by_name(graph)[name].op_type for name in weighted_nodes(graph)]
    assert kinds.count("Conv") == 3 + 6 + 3 * 3  # body, FPN, the RPN head once a level
    assert kinds.count("Gemm") == 4  # box head and predictor


def test_the_tail_holds_what_computes_with_boxes(graph):
    kinds = {by_name(graph)[name].op_type for name in tail_nodes(graph)}
    assert {"TopK", "NonMaxSuppression", "ScatterElements", "Exp", "Softmax", "Sigmoid"} <= kinds
    assert not {"Conv", "Gemm", "Relu"} & kinds


def test_learned_and_tail_part_the_graph(graph):
    learned, tail = learned_nodes(graph), set(tail_nodes(graph))
    assert not learned & tail
    assert learned | tail == {node.name for node in graph.node}


def test_names_are_unique_and_given_ones_are_kept():
    node = onnx.helper.make_node
    nodes = [
        node("Relu", ["x"], ["a"], name="mine"),
        node("Relu", ["a"], ["b"], name="mine"),
        node("Relu", ["b"], ["c"]),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [], [])
    name_nodes(graph)
    names = [entry.name for entry in graph.node]
    assert names[0] == "mine"
    assert len(set(names)) == 3


def test_a_product_of_two_activations_has_no_weights():
    node = onnx.helper.make_node
    nodes = [node("MatMul", ["x", "y"], ["z"], name="attention"), node("MatMul", ["z", "w"], ["out"], name="layer")]
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1, 1], [1.0])
    graph = onnx.helper.make_graph(nodes, "g", [], [], initializer=[weight])
    assert weighted_nodes(graph) == ["layer"]
    assert constant_tensors(graph) == {"w"}
