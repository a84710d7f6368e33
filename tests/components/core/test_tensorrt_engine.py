"""TensorRT-RTX engines: refused in one line where they cannot load, run where there is a GPU."""

import shutil

import numpy as np
import pytest
from test_runtimes import BATCH, variant, write_onnx

from components.core.contracts.job import Runtime
from components.core.errors import StepError
from components.core.runtimes.interface import load_session
from components.core.runtimes.tensorrt_engine import deserialize

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
NO_GPU = shutil.which("nvidia-smi") is None


def build(folder):
    write_onnx(folder / "d.onnx", ["boxes", "scores", "labels"])
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    assert trt.OnnxParser(network, logger).parse((folder / "d.onnx").read_bytes())
    (folder / "d.engine").write_bytes(builder.build_serialized_network(network, builder.create_builder_config()))


def test_a_file_that_is_no_engine_is_refused(tmp_path):
    (tmp_path / "d.engine").write_bytes(b"no engine at all")
    with pytest.raises(StepError, match=r"refuses the engine d\.engine"):
        deserialize(Runtime.TENSORRT_RTX, tmp_path / "d.engine")


@pytest.mark.skipif(not NO_GPU, reason="there may be a GPU here")
def test_without_a_gpu_the_session_says_so(tmp_path):
    build(tmp_path)
    with pytest.raises(StepError, match=r"^no GPU$"):
        load_session(variant(Runtime.TENSORRT_RTX, "d.engine"), tmp_path, None, None, threads=1)


@pytest.mark.gpu
@pytest.mark.skipif(NO_GPU, reason="running an engine needs a GPU")
def test_an_engine_gives_the_detections_of_the_other_runtimes(tmp_path):
    build(tmp_path)
    (found,) = load_session(variant(Runtime.TENSORRT_RTX, "d.engine"), tmp_path, None, None, threads=1).run(BATCH)
    side = 20 * BATCH.mean()
    np.testing.assert_allclose(found.boxes, [[0, 0, 0, 0], [0, 0, side, side]], rtol=1e-3)
    assert found.scores.tolist() == [0.75, 0.5]
    assert found.labels.tolist() == [2, 1]
