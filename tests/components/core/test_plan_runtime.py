"""Running a model by a plan: the numbers of the whole, the sizes an engine takes, and honest words about where."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from components.benchmark.rows import model_size
from components.core import machine
from components.core.contracts.job import Runtime
from components.core.contracts.run_plan import RUN_PLAN, Part, PlanProof, PlanTensor, Profile, RunPlan
from components.core.contracts.variant import Variant
from components.core.errors import StepError, UserError
from components.core.files import sha256_file
from components.core.runtimes import plan as plan_module
from components.core.runtimes.interface import load_session
from components.core.runtimes.plan import PlanRunner, places, plan_runtime, read_plan, where_it_runs

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
SHAPES = {"image": ["n", 3, 4, 4], "mean": [], "boxes": [2, 4], "scores": [2], "labels": [2]}


def write_part(path, nodes, inputs, outputs, constants=()):
    def values(names):
        kinds = {"labels": INT64}
        return [helper.make_tensor_value_info(name, kinds.get(name, FLOAT), SHAPES[name]) for name in names]

    graph = helper.make_graph(nodes, "part", values(inputs), values(outputs), list(constants))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def tensors(*names):
    kinds = {"labels": "int64"}
    return [PlanTensor(name=name, type=kinds.get(name, "float"), shape=SHAPES[name]) for name in names]


@pytest.fixture
def folder(tmp_path):
    """A detector in two parts: the image's mean as an engine's work, boxes made of it as the remainder."""
    write_part(
        tmp_path / "a.onnx", [helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0)], ["image"], ["mean"]
    )
    write_part(
        tmp_path / "b.onnx",
        [
            helper.make_node("Mul", ["mean", "sides"], ["boxes"]),
            helper.make_node("Identity", ["some_scores"], ["scores"]),
            helper.make_node("Identity", ["some_labels"], ["labels"]),
        ],
        ["mean"],
        ["boxes", "scores", "labels"],
        [
            helper.make_tensor("sides", FLOAT, [2, 4], [0.0, 0, 20, 20] * 2),
            helper.make_tensor("some_scores", FLOAT, [2], [0.75, -1.0]),
            helper.make_tensor("some_labels", INT64, [2], [2, 0]),
        ],
    )
    (tmp_path / "a.engine").write_bytes(b"an engine for another machine")
    digests = {path.name: sha256_file(path) for path in tmp_path.iterdir()}
    engine = Part(
        id="part-00",
        runtime=Runtime.TENSORRT_RTX,
        file="a.onnx",
        engine="a.engine",
        sha256={name: digests[name] for name in ("a.onnx", "a.engine")},
        inputs=tensors("image"),
        outputs=tensors("mean"),
        nodes=1,
        work={"Conv": 1},
        profiles={"image": Profile(minimum=[1, 3, 4, 4], usual=[1, 3, 4, 4], maximum=[2, 3, 4, 4])},
    )
    rest = Part(
        id="part-01",
        runtime=Runtime.ONNXRUNTIME,
        file="b.onnx",
        sha256={"b.onnx": digests["b.onnx"]},
        inputs=tensors("mean"),
        outputs=tensors("boxes", "scores", "labels"),
        nodes=3,
        work={},
    )
    plan = RunPlan(
        model="m.onnx",
        model_sha256="0" * 64,
        target=Runtime.TENSORRT_RTX,
        asked="tensorrt_rtx 1",
        inputs=tensors("image"),
        outputs=tensors("labels", "boxes", "scores"),
        parts=[engine, rest],
        proof=PlanProof(random_inputs=1, given_inputs=0, max_error=0.0),
    )
    (tmp_path / RUN_PLAN).write_text(plan.model_dump_json())
    return tmp_path


IMAGE = np.random.default_rng(0).random((1, 3, 4, 4), np.float32)


def with_gpu(monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: (machine.Gpu("any", 1, "1", "8.6"),))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)


def session(folder, runtime=Runtime.ONNXRUNTIME):
    variant = Variant(id="x", runtime=runtime, techniques=[], file=RUN_PLAN)
    return load_session(variant, folder, None, None, threads=1)


def test_a_detector_runs_by_its_plan(folder):
    (found,) = session(folder).run(IMAGE)
    side = 20 * IMAGE.mean()
    np.testing.assert_allclose(found.boxes, [[0, 0, side, side]], rtol=1e-5)
    assert found.labels.tolist() == [2]


def test_an_image_without_the_batch_axis_is_taken_too(folder):
    plan = read_plan(folder / RUN_PLAN)
    flat = PlanTensor(name="image", type="float", shape=[3, 4, 4])
    part = plan.parts[0].model_copy(update={"inputs": [flat]})
    model = onnx.load(folder / "a.onnx")
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", FLOAT, [3, 4, 4]))
    onnx.save(model, folder / "a.onnx")
    changed = plan.model_copy(update={"inputs": [flat], "parts": [part, plan.parts[1]]})
    (folder / RUN_PLAN).write_text(changed.model_dump_json())
    assert session(folder).run(IMAGE)[0].boxes.shape == (1, 4)


def test_where_it_ran_is_said(folder, monkeypatch):
    plan = read_plan(folder / RUN_PLAN)
    monkeypatch.setattr(machine, "gpus", tuple)
    words = where_it_runs(plan, folder)
    assert words == "run plan: the engine parts part-00 ran in ONNX Runtime on the CPU (no GPU)"
    assert plan_runtime(plan, folder) is Runtime.ONNXRUNTIME
    with_gpu(monkeypatch)
    assert where_it_runs(plan, folder, "cuda") == (
        "run plan: part-00 ran as TensorRT-RTX engines, the rest in ONNX Runtime"
    )
    assert plan_runtime(plan, folder, "cuda") is Runtime.TENSORRT_RTX
    assert "target.device is cpu" in where_it_runs(plan, folder, "cpu")
    bare = plan.model_copy(update={"parts": [plan.parts[0].model_copy(update={"engine": None}), plan.parts[1]]})
    assert places(bare, folder, "cuda")["part-00"].why == "the plan has no engine file"
    only_rest = plan.model_copy(update={"parts": plan.parts[1:]})
    assert where_it_runs(only_rest, folder) == "run plan without an engine part: all of it ran in ONNX Runtime"


def test_an_engine_runs_the_sizes_it_was_built_for_and_onnx_runtime_the_others(folder, monkeypatch):
    """The engine itself needs a GPU; what decides between the two does not."""
    with_gpu(monkeypatch)
    calls = []

    class Engine:
        def __init__(self, module, engine, device):
            assert device == "cuda"

        def run(self, values):
            calls.append(values["image"].shape)
            return {"mean": np.array(7, np.float32)}

    from components.core.runtimes import engine_part, tensorrt_engine

    monkeypatch.setattr(engine_part, "EnginePart", Engine)
    monkeypatch.setattr(tensorrt_engine, "deserialize", lambda runtime, path: (None, path))
    runner = PlanRunner(read_plan(folder / RUN_PLAN), folder, threads=1, device="cuda")
    assert runner.run({"image": IMAGE})["boxes"].max() == 140
    assert calls == [(1, 3, 4, 4)]
    many = np.repeat(IMAGE, 3, 0)
    np.testing.assert_allclose(runner.run({"image": many})["boxes"].max(), 20 * IMAGE.mean(), rtol=1e-5)
    assert len(calls) == 1


def test_only_the_outputs_are_kept_to_the_end(folder, monkeypatch):
    seen = []
    real = plan_module._OnnxPart.run
    monkeypatch.setattr(
        plan_module._OnnxPart, "run", lambda self, values: seen.append(set(values)) or real(self, values)
    )
    found = PlanRunner(read_plan(folder / RUN_PLAN), folder, threads=1).run({"image": IMAGE})
    assert seen == [{"image"}, {"mean"}]
    assert list(found) == ["labels", "boxes", "scores"]


def test_broken_plans_are_refused_in_one_line(folder):
    (folder / "b.onnx").write_bytes(b"damaged")
    with pytest.raises(StepError, match=r"refuses b\.onnx"):
        session(folder)
    (folder / "b.onnx").unlink()
    with pytest.raises(UserError, match=r"its part b\.onnx is missing; copy the whole folder"):
        session(folder)
    (folder / RUN_PLAN).write_text("{}")
    with pytest.raises(UserError, match="is no run plan"):
        session(folder)
    with pytest.raises(UserError, match="No such file"):
        read_plan(folder / "gone.json")


def test_a_plan_cannot_reach_out_of_its_folder(folder):
    text = (folder / RUN_PLAN).read_text().replace('"b.onnx":', '"../b.onnx":')
    (folder / RUN_PLAN).write_text(text)
    with pytest.raises(UserError, match="climbs out of its folder"):
        read_plan(folder / RUN_PLAN)


def test_a_plan_of_another_kind_of_model_is_no_detector(folder):
    plan = read_plan(folder / RUN_PLAN)
    (folder / RUN_PLAN).write_text(plan.model_copy(update={"outputs": tensors("mean")}).model_dump_json())
    with pytest.raises(StepError, match="1 inputs and 1 outputs; accepted: image, and boxes"):
        session(folder)


def test_the_size_of_a_plan_is_that_of_what_it_runs(folder):
    whole = sum((folder / name).stat().st_size for name in (RUN_PLAN, "a.engine", "b.onnx"))
    assert model_size(folder / RUN_PLAN) == whole
