"""The door that ONNX files come in by: what is refused, and in which words."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.core import onnx_files
from components.core.errors import UserError
from components.core.onnx_files import external_bytes, load_graph, load_onnx, save_onnx, save_streamed


def model(op="Add", domain=""):
    nodes = [helper.make_node(op, ["x", "w"], ["y"], name="layer", domain=domain)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64]) for name in "xy"]
    weights = numpy_helper.from_array(np.arange(64, dtype=np.float32), "w")
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], [weights])
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def external(folder, location="weights.bin"):
    """A model whose weights are in a file of their own."""
    path = folder / "model.onnx"
    onnx.save_model(model(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    loaded = onnx.load(str(path), load_external_data=False)
    for entry in loaded.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(loaded.SerializeToString())
    return path


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        load_onnx(path, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def test_a_whole_file_comes_back_with_its_weights(tmp_path):
    path = tmp_path / "model.onnx"
    assert save_onnx(model(), path) == [path]
    assert load_onnx(path) == model()


def test_external_data_is_loaded_and_is_inside_afterwards(tmp_path):
    loaded = load_onnx(external(tmp_path))
    (tmp_path / "weights.bin").unlink()
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), np.arange(64))
    assert loaded.graph.initializer[0].data_location == TensorProto.DEFAULT


def test_external_data_can_stay_where_it_is(tmp_path):
    path = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(256))
    loaded = load_graph(path)
    assert external_bytes(loaded) == 256
    assert loaded.graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert not loaded.graph.initializer[0].raw_data
    path.write_bytes(model().SerializeToString())
    assert load_graph(path) == model()
    assert external_bytes(load_graph(path)) == 0


def test_external_data_behind_a_link_is_refused_without_loading_it(tmp_path):
    path = external(tmp_path, "linked.bin")
    (tmp_path / "linked.bin").symlink_to(tmp_path / "weights.bin")
    for load in (load_graph, load_onnx):
        with pytest.raises(UserError, match="cannot be read"):
            load(path)


def test_streamed_data_is_aligned_and_shared_where_the_values_are(tmp_path):
    loaded = load_graph(external(tmp_path))
    for name in ("v", "u"):
        loaded.graph.initializer.add().CopyFrom(loaded.graph.initializer[0])
        loaded.graph.initializer[-1].name = name
    arrays = {name: np.arange(64, dtype=np.float32) for name in ("w", "v")}
    written = save_streamed(loaded, tmp_path / "out.onnx", lambda tensor: arrays[tensor.name.replace("u", "v")])
    offsets = {
        tensor.name: entry.value
        for tensor in load_graph(written[0]).graph.initializer
        for entry in tensor.external_data
        if entry.key == "offset"
    }
    assert offsets == {"w": "0", "v": "4096", "u": "4096"}
    for tensor in load_onnx(written[0]).graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), np.arange(64))


def test_a_model_above_the_limit_of_protobuf_keeps_its_weights_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "_PROTOBUF_LIMIT", 100)
    large = model()
    large.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.arange(1024, dtype=np.float32), "w"))
    path = tmp_path / "model.onnx"
    assert save_onnx(large, path) == [path, tmp_path / "model.onnx.data"]
    np.testing.assert_array_equal(numpy_helper.to_array(load_onnx(path).graph.initializer[0]), np.arange(1024))


def test_a_missing_file_is_named(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.onnx")


@pytest.mark.parametrize("part", [0, 1, 0.3, 0.9])
def test_a_truncated_file_is_refused(tmp_path, part):
    path, whole = tmp_path / "model.onnx", model().SerializeToString()
    path.write_bytes(whole[: int(part * len(whole)) if part < 1 else 1])
    assert "truncated or no ONNX model" in refusal(path)


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "photo.onnx"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    assert "truncated or no ONNX model" in refusal(path)


def test_an_unknown_operator_is_named_with_its_node(tmp_path):
    path = tmp_path / "model.onnx"
    save_onnx(model("FancyAttention"), path)
    text = refusal(path)
    assert "node 'layer' has the unknown operator 'FancyAttention' (opset 17)" in text


def test_an_unknown_domain_is_named_with_those_accepted(tmp_path):
    path = tmp_path / "model.onnx"
    save_onnx(model("Add", "my.company"), path)
    text = refusal(path)
    assert "unknown domain 'my.company'" in text
    assert "'com.microsoft'" in text
    load_onnx(path, known_domains={"", "my.company"})


def test_an_unknown_operator_in_a_branch_is_found(tmp_path):
    branch = helper.make_graph(
        [helper.make_node("Nonsense", ["x"], ["b"])], "b", [], [helper.make_tensor_value_info("b", 1, [64])]
    )
    whole = model()
    whole.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    whole.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    path = tmp_path / "model.onnx"
    save_onnx(whole, path)
    assert "'Nonsense'" in refusal(path)


def test_plugins_and_local_functions_are_known(tmp_path):
    path = tmp_path / "model.onnx"
    save_onnx(model("EfficientNMS_TRT"), path)
    load_onnx(path)
    local = model("Scale", "mine")
    body = [helper.make_node("Mul", ["a", "b"], ["p"])]
    local.functions.append(
        helper.make_function("mine", "Scale", ["a", "b"], ["p"], body, [helper.make_opsetid("", 17)])
    )
    save_onnx(local, path)
    load_onnx(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", ""])
def test_external_data_that_leaves_the_folder_is_refused(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    text = refusal(external(folder, location))
    assert "must be a file in the model's own folder" in text


def test_external_data_behind_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    path = external(folder, "linked.bin")
    (folder / "linked.bin").symlink_to(tmp_path / "secret.bin")
    assert "through a link" in refusal(path)


def test_missing_and_truncated_external_data_are_named(tmp_path):
    path = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    assert "256 bytes needed, 100 there" in refusal(path)
    (tmp_path / "weights.bin").unlink()
    assert "'weights.bin' is missing" in refusal(path)


def test_a_location_that_is_no_text_is_refused(tmp_path):
    path = external(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"weights.bin", b"weig\xffts.bin"))
    assert "its location is no text" in refusal(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda m: setattr(m, "ir_version", 99), "IR version 99"),
        (lambda m: setattr(m.opset_import[0], "version", 900), "opset 900"),
        (lambda m: m.opset_import.pop(), "no opset"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, -5), "impossible shape [-5]"),
        (lambda m: m.graph.initializer[0].dims.append(2**50), "impossible shape"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 63), "has 64 elements and not 63"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 77), "unknown data type 77"),
    ],
)
def test_damage_is_named(tmp_path, damage, words):
    damaged = model()
    damage(damaged)
    path = tmp_path / "model.onnx"
    path.write_bytes(damaged.SerializeToString())
    assert words in refusal(path)


def chained(*edges):
    """Relu nodes, one for each pair of a tensor that is read and one that is made."""
    nodes = [helper.make_node("Relu", [read], [made], name=f"to_{made}") for read, made in edges]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", edges[-1][1])]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_cycle_is_refused_with_its_nodes(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(chained(("d", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "y")).SerializeToString())
    text = refusal(path)
    assert "form a cycle" in text
    assert all(f"Relu 'to_{name}'" in text for name in "bcd")
    assert "to_e" not in text
    with pytest.raises(UserError, match="form a cycle"):
        load_graph(path)


@pytest.mark.parametrize(("read", "cyclic"), [("in_y", True), ("y", True), ("x", False)])
def test_a_cycle_in_a_branch_or_through_one_is_refused(tmp_path, read, cyclic):
    path, bool_ = tmp_path / "model.onnx", TensorProto.BOOL
    result = helper.make_tensor_value_info("in_y", TensorProto.FLOAT, [4])
    branch = helper.make_graph([helper.make_node("Relu", [read], ["in_y"], name="inner")], "branch", [], [result])
    node = helper.make_node("If", ["c"], ["y"], "choice", then_branch=branch, else_branch=branch)
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]), helper.make_tensor_value_info("c", bool_, [])]
    graph = helper.make_graph([node], "graph", given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    if cyclic:
        assert "form a cycle" in refusal(path)
    else:
        assert load_onnx(path).graph.node[0].name == "choice"


def test_nodes_out_of_order_are_no_cycle(tmp_path):
    path = tmp_path / "model.onnx"
    edges = [(f"t{number}", f"t{number + 1}") for number in range(1, 3000)][::-1]
    path.write_bytes(chained(*edges, ("x", "t1"), ("t3000", "y")).SerializeToString())
    assert len(load_onnx(path).graph.node) == len(edges) + 2


def test_names_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model().SerializeToString().replace(b"layer", b"lay\xff\xfe"))
    assert "names that are no text" in refusal(path)
