"""Arrays from an .npz file become calls, and what does not fit is said in one line."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from components.core.errors import UserError
from components.core.feeds import read_feeds


@pytest.fixture
def model(tmp_path):
    def write(*inputs):
        values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
        result = helper.make_tensor_value_info("y", inputs[0][1], None)
        graph = helper.make_graph([helper.make_node("Identity", [inputs[0][0]], ["y"])], "g", values, [result])
        path = tmp_path / "model.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    return write


TEXT = (("ids", TensorProto.INT64, [2, 8]), ("mask", TensorProto.INT64, [2, 8]))


def test_arrays_become_calls_of_the_models_batch(model, tmp_path):
    ids = np.arange(40).reshape(5, 8).astype(np.int32)
    np.savez(tmp_path / "x.npz", ids=ids, mask=np.ones((5, 8), np.int64), labels=np.arange(5))
    feeds, labels = read_feeds(tmp_path / "x.npz", model(*TEXT))
    assert len(feeds) == 2
    assert feeds[1]["ids"].tolist() == ids[2:4].tolist()
    assert feeds[0]["ids"].dtype == np.int64
    assert labels.tolist() == [0, 1, 2, 3]


def test_the_only_array_may_have_any_name(model, tmp_path):
    np.savez(tmp_path / "x.npz", np.zeros((3, 4), np.float32))
    feeds, labels = read_feeds(tmp_path / "x.npz", model(("image", TensorProto.FLOAT, ["batch", 4])))
    assert [list(feed) for feed in feeds] == [["image"]] * 3
    assert labels is None


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"ids": np.zeros((2, 8), np.int64)}, "has the inputs ids, mask"),
        ({"ids": np.zeros((2, 8), np.int64), "mask": np.zeros((3, 8), np.int64)}, "as many in every array"),
        ({"ids": np.zeros((2, 9), np.int64), "mask": np.zeros((2, 8), np.int64)}, "samples of shape [9]"),
        ({"ids": np.zeros((2, 8), np.float32), "mask": np.zeros((2, 8), np.int64)}, "accepted: int64"),
        ({"ids": np.zeros((1, 8), np.int64), "mask": np.zeros((1, 8), np.int64)}, "takes 2 at once"),
        ({"ids": np.zeros((2, 8), object), "mask": np.zeros((2, 8), np.int64)}, "plain arrays"),
    ],
)
def test_what_does_not_fit_is_said(model, tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError) as caught:
        read_feeds(tmp_path / "x.npz", model(*TEXT))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"plain text"])
def test_a_file_that_holds_no_arrays(model, tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"numpy\.savez"):
        read_feeds(tmp_path / "x.npz", model(*TEXT))
