from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from components.core.errors import UserError
from components.core.onnx_wire import TensorInfo, external_data_files, signature


def external(name: str, location: str | None) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    if location is not None:
        entries = {"location": location, "offset": "0", "length": "16"}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    return tensor


def save(path: Path, *initializers: TensorProto, nodes: list[onnx.NodeProto] | None = None) -> Path:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "height", None])
    weight = helper.make_tensor_value_info("inside", TensorProto.FLOAT, [4])
    labels = helper.make_tensor_value_info("labels", TensorProto.INT64, [100])
    nodes = [helper.make_node("Identity", ["image"], ["labels"]), *(nodes or [])]
    inside = numpy_helper.from_array(np.zeros(4, np.float32), "inside")
    graph = helper.make_graph(nodes, "g", [image, weight], [labels], [inside, *initializers])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_signature(tmp_path: Path) -> None:
    assert signature(save(tmp_path / "m.onnx")) == (
        [TensorInfo("image", TensorProto.FLOAT, (1, 3, -1, -1))],
        [TensorInfo("labels", TensorProto.INT64, (100,))],
    )


def test_external_data_wherever_a_tensor_can_be(tmp_path: Path) -> None:
    then = helper.make_graph([], "then", [], [], [external("a", "then.bin")])
    nodes = [
        helper.make_node("If", ["x"], ["y"], then_branch=then),
        helper.make_node("Constant", [], ["c"], value=external("c", "constant.bin")),
        helper.make_node("Many", [], ["d"], graphs=[then], tensors=[external("e", "deep/list.bin")]),
    ]
    path = save(tmp_path / "m.onnx", external("w", "w.bin"), external("v", "w.bin"), nodes=nodes)
    assert set(external_data_files(path)) == {"w.bin", "then.bin", "constant.bin", "deep/list.bin"}
    assert len(external_data_files(path)) == 4
    assert external_data_files(save(tmp_path / "plain.onnx")) == []


def test_external_data_in_functions_and_sparse_tensors(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx")
    model = onnx.load(path)
    constant = helper.make_node("Constant", [], ["c"], value=external("c", "function.bin"))
    model.functions.append(helper.make_function("d", "f", [], ["c"], [constant], []))
    sparse = onnx.SparseTensorProto(values=external("s", "values.bin"), indices=external("i", "indices.bin"))
    model.graph.sparse_initializer.append(sparse)
    path.write_bytes(model.SerializeToString())
    assert set(external_data_files(path)) == {"function.bin", "values.bin", "indices.bin"}


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "..", "C:\\w.bin", ""])
def test_external_data_that_leaves_the_folder(tmp_path: Path, location: str) -> None:
    with pytest.raises(UserError, match=r"m.onnx: external data: the path '.*' (climbs|is)"):
        external_data_files(save(tmp_path / "m.onnx", external("w", location)))


def test_external_data_without_a_location(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tensor 'w' is external and says not where"):
        external_data_files(save(tmp_path / "m.onnx", external("w", None)))


def test_truncated_at_any_byte(tmp_path: Path) -> None:
    whole = save(tmp_path / "m.onnx", external("w", "w.bin")).read_bytes()
    cut = tmp_path / "cut.onnx"
    # The fields after the graph are a few bytes: without them the wire format is sound, and onnx's checker must judge.
    graph_end = whole.rindex(b"labels") + 40
    for length in range(min(graph_end, len(whole) - 8)):
        cut.write_bytes(whole[:length])
        for read in (external_data_files, signature):
            with pytest.raises(UserError, match="is truncated or no ONNX file"):
                read(cut)


def test_other_files(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04" + b"\0" * 100, b"{}", b"\x80\x02}q\x00.", b"<html></html>", b"\x08" * 100):
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(UserError, match="is truncated or no ONNX file"):
            external_data_files(tmp_path / "x.onnx")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(save(tmp_path / "m.onnx", external("w", "w.bin")).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    for read in (external_data_files, signature):
        try:
            read(path)
        except UserError as error:
            assert str(error).isprintable()  # noqa: PT017


def test_agrees_with_onnx_on_a_model_that_it_saved(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = onnx.load(save(path))
    model.graph.initializer.append(numpy_helper.from_array(np.arange(5000, dtype=np.float32), "large"))
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=1024)
    assert external_data_files(path) == ["weights.data"]
