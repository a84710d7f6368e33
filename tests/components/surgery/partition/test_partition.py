"""Partition with the real parser and builder: what goes into an engine, what stays and why, and equal numbers."""

import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import partition_models as models
import pytest
from onnx import helper

from components.core.apart import DiedError, End
from components.core.contracts.job import Runtime
from components.core.contracts.run_plan import RUN_PLAN, RunPlan
from components.core.errors import StepError, UserError
from components.core.files import sha256_file
from components.core.runtimes.plan import PlanRunner
from components.surgery.partition import run as partition_run
from components.surgery.partition.oracle import ASKING
from components.surgery.partition.run import partition

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra tensorrt-rtx)")
RTX = Runtime.TENSORRT_RTX


def planned(model: onnx.ModelProto, folder: Path, **options) -> RunPlan:
    return partition(models.saved(model, folder / "in"), RTX, folder / "plan", **options)


def shape_of(plan: RunPlan) -> list[tuple[str, int]]:
    return [("engine" if part.runtime is RTX else "rest", part.nodes) for part in plan.parts]


def reasons(plan: RunPlan) -> dict[str, str]:
    return {left.node: left.why for left in plan.left}


def assert_equal_to_the_whole(model: onnx.ModelProto, plan: RunPlan, folder: Path) -> None:
    """By another road than the proof takes: the runtime's own runner, with ONNX Runtime's optimizations on."""
    rng = np.random.default_rng(5)
    feed = {}
    for value in model.graph.input:
        shape = [size.dim_value or 2 for size in value.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if dtype.kind == "O":
            feed[value.name] = np.full(shape, "word", object)
        else:
            feed[value.name] = np.asarray(rng.standard_normal(shape) * 3).astype(dtype)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = dict(zip([value.name for value in model.graph.output], session.run(None, feed), strict=True))
    found = PlanRunner(plan, folder / "plan", threads=1).run(feed)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.dtype.kind == "O":
            assert found[name].tolist() == value.tolist()
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


ENGINE_AND_REST = [
    (models.det_in_the_middle, [("engine", 1), ("rest", 1), ("engine", 3)], {"det": "no importer"}),
    (models.two_branches, [("engine", 5), ("rest", 1), ("engine", 3)], {"det": "no importer"}),
    (models.unique_at_the_end, [("engine", 1), ("rest", 1)], {"unique": "no importer"}),
    (models.non_zero_output, [("engine", 3), ("rest", 1)], {"non_zero": "NonZero plugin creator"}),
    (models.strings_beside, [("engine", 1), ("rest", 1)], {"normalizer": "'s' is of type string"}),
    (models.bytes_first, [("rest", 1), ("engine", 1)], {"cast": "'x' is of type uint8"}),
    (
        models.double_in_the_middle,
        [("engine", 1), ("rest", 3), ("engine", 1)],
        dict.fromkeys(("to_double", "exp", "to_float"), "is of type double"),
    ),
    (models.sequences, [("engine", 1), ("rest", 2), ("engine", 1)], {"split": "sequence", "join": "sequence"}),
    (models.all_supported, [("engine", 3)], {}),
    (models.nothing_supported, [("rest", 2)], {"Det_0": "no importer", "Unique_1": "no importer"}),
    (models.nothing_to_do, [("rest", 1)], {}),
    (models.captured_by_a_body, [("engine", 1), ("rest", 1), ("engine", 2)], {"if": "no importer"}),
    (models.constants_and_inputs_leave, [("engine", 1), ("rest", 0)], {}),
]


@pytest.mark.parametrize(("make", "shape", "left"), ENGINE_AND_REST, ids=lambda value: getattr(value, "__name__", ""))
def test_what_goes_where_and_why(make, shape, left, tmp_path):
    model = make()
    plan = planned(model, tmp_path)
    assert shape_of(plan) == shape
    assert reasons(plan).keys() == left.keys()
    for node, words in left.items():
        assert any(word in reasons(plan)[node] for word in words.split("|")), reasons(plan)[node]
    assert plan.proof.max_error == 0
    assert plan.proof.random_inputs == 2
    assert_equal_to_the_whole(model, plan, tmp_path)


def test_the_folder_holds_what_the_plan_lists(tmp_path):
    plan = planned(models.det_in_the_middle(), tmp_path)
    out = tmp_path / "plan"
    assert plan == RunPlan.read(out / RUN_PLAN)
    assert {path.name for path in out.iterdir()} == {RUN_PLAN, "run_plan.md", *plan.files()}
    assert {name: sha256_file(out / name) for name in plan.files()} == plan.files()
    assert [part.file for part in plan.parts] == [
        "part-00-tensorrt-rtx.onnx",
        "part-01-onnxruntime.onnx",
        "part-02-tensorrt-rtx.onnx",
    ]
    assert [part.engine for part in plan.parts] == ["part-00-tensorrt-rtx.engine", None, "part-02-tensorrt-rtx.engine"]
    assert plan.model_sha256 == sha256_file(tmp_path / "in" / "model.onnx")
    assert plan.asked.startswith("tensorrt_rtx 1.")
    for part in plan.parts:
        model = onnx.load(out / part.file)
        onnx.checker.check_model(model, full_check=True)
        assert (model.ir_version, model.opset_import[0].version) == (8, 18)
        assert [value.name for value in model.graph.input] == [tensor.name for tensor in part.inputs]
    # Weights go with the part that reads them.
    weights = [{tensor.name for tensor in onnx.load(out / part.file).graph.initializer} for part in plan.parts]
    assert weights == [{"w"}, set(), {"shape", "w"}]
    page = (out / "run_plan.md").read_text()
    assert "| part-01 | det | Det |" in page
    assert "2 engine parts with 4 of 5 nodes" in page


def test_engines_are_left_out_when_not_wanted(tmp_path):
    plan = planned(models.all_supported(), tmp_path, keep_engines=False)
    assert [part.engine for part in plan.parts] == [None]
    assert not list((tmp_path / "plan").glob("*.engine"))


def test_what_parses_and_does_not_build_is_found(tmp_path):
    model = models.parses_and_does_not_build()
    plan = planned(model, tmp_path)
    assert shape_of(plan) == [("engine", 4), ("rest", 1), ("engine", 2)]
    assert "does not build" in reasons(plan)["nms"]
    assert plan.proof.max_error == 0
    # The rows that are kept are not known when the engine is built.
    last = plan.parts[2]
    assert last.profiles["kept"].maximum == [1024, 3]
    assert_equal_to_the_whole(model, plan, tmp_path)


def test_a_part_that_no_word_explains_is_bisected(tmp_path, monkeypatch):
    """The builder's words are taken away, in the process itself, which is then this one."""
    from components.surgery.partition import native, worker

    monkeypatch.setattr(native, "_named", lambda words, names: "")
    answers, out = tmp_path / "answers", tmp_path / "plan"
    answers.mkdir()
    out.mkdir()
    path = models.saved(models.parses_and_does_not_build(), tmp_path / "in")
    plan = worker.make_plan(path, RTX, out, module="tensorrt_rtx", answers=answers, inputs=[], keep_engines=False)
    assert list(reasons(plan)) == ["nms"]
    assert reasons(plan)["nms"].startswith("with it, the part does not build: ")


def test_the_search_has_a_limit(tmp_path, monkeypatch):
    from components.surgery.partition import native, search, worker

    monkeypatch.setattr(native, "_named", lambda words, names: "")
    monkeypatch.setattr(search, "MAX_BUILDS", 1)
    answers, out = tmp_path / "answers", tmp_path / "plan"
    answers.mkdir()
    out.mkdir()
    path = models.saved(models.parses_and_does_not_build(), tmp_path / "in")
    plan = worker.make_plan(path, RTX, out, module="tensorrt_rtx", answers=answers, inputs=[], keep_engines=False)
    assert not plan.engine_parts
    assert "no single node was found to blame" in reasons(plan)["c1"]
    assert plan.proof.max_error == 0


def test_a_crash_is_an_answer_and_the_search_goes_on(tmp_path, monkeypatch):
    """The process dies of the first question; the second process knows that answer."""
    real, deaths = partition_run.run_apart, []

    def dies_once(module, request, time_limit, memory_limit):
        if deaths:
            return real(module, request, time_limit, memory_limit)
        deaths.append(1)
        Path(request["answers"], ASKING).write_text("0" * 64)
        raise DiedError("its process crashed with SIGSEGV")

    monkeypatch.setattr(partition_run, "run_apart", dies_once)
    assert shape_of(planned(models.all_supported(), tmp_path)) == [("engine", 3)]
    assert deaths == [1]


def test_a_question_that_always_kills_gives_the_part_to_onnx_runtime(tmp_path, monkeypatch):
    """A parser that dies of every Sigmoid, as seen by a process that is told of the deaths."""
    from components.surgery.partition import worker
    from components.surgery.partition.native import Native
    from components.surgery.partition.oracle import note_death

    class Died(BaseException):
        pass

    real, asked = Native.engine, []

    def engine(self, path, names, profiles):
        if any(node.op_type == "Sigmoid" for node in onnx.load(path).graph.node):
            asked.append((path.parent / ASKING).read_text())
            raise Died
        return real(self, path, names, profiles)

    monkeypatch.setattr(Native, "engine", engine)
    answers, out = tmp_path / "answers", tmp_path / "plan"
    answers.mkdir()
    out.mkdir()
    path = models.saved(models.two_branches(), tmp_path / "in")
    for deaths in range(20):  # noqa: B007
        try:
            plan = worker.make_plan(
                path, RTX, out, module="tensorrt_rtx", answers=answers, inputs=[], keep_engines=True
            )
            break
        except Died:
            # An exception passes through the question's own end, a dead process would not have.
            (answers / ASKING).write_text(asked[-1])
            assert note_death(answers, "its process crashed with SIGSEGV")
    assert 0 < deaths < 10
    assert "asked about it, its process crashed with SIGSEGV" in reasons(plan)["sigmoid"]
    assert plan.proof.max_error == 0


def test_a_death_that_is_not_the_parsers_is_a_failure(tmp_path, monkeypatch):
    def dies(module, request, time_limit, memory_limit):
        raise DiedError("its process crashed with SIGABRT")

    monkeypatch.setattr(partition_run, "run_apart", dies)
    with pytest.raises(StepError, match="could not be partitioned: its process crashed with SIGABRT"):
        planned(models.all_supported(), tmp_path)


def test_the_time_is_for_all_attempts_together(tmp_path, monkeypatch):
    def hangs(module, request, time_limit, memory_limit):
        assert time_limit <= 0.2 or time_limit == 1.0
        time.sleep(0.15)
        Path(request["answers"], ASKING).write_text("0" * 64)
        raise DiedError("it took longer", End.TIME)

    monkeypatch.setattr(partition_run, "run_apart", hangs)
    with pytest.raises(StepError, match=r"could not be partitioned in 0\.2 s"):
        planned(models.all_supported(), tmp_path, time_limit=0.2)


def test_real_inputs_take_part_in_the_proof(tmp_path):
    nodes = [
        models.conv("x", "c1"),
        helper.make_node("Reshape", ["c1", "s"], ["y"], name="reshape"),
    ]
    model = models.model_of(nodes, models.IMAGE | {"s": (models.INT64, [2])}, {"y": models.FLOAT})
    np.savez(tmp_path / "real.npz", x=np.ones((1, 3, 8, 8), np.float32), s=np.array([3, 64]))
    plan = planned(model, tmp_path, inputs=[tmp_path / "real.npz"])
    assert plan.proof.given_inputs == 1
    assert plan.proof.max_error == 0
    assert "'s', which is only known" in reasons(plan)["reshape"]
    np.savez(tmp_path / "other.npz", z=np.ones(1))
    with pytest.raises(UserError, match=r"has the arrays z; the model takes x, s"):
        planned(model, tmp_path / "again", inputs=[tmp_path / "other.npz"])
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match=r"give an \.npz file"):
        planned(model, tmp_path / "text", inputs=[tmp_path / "text.npz"])


def test_other_runtimes_and_damaged_files_are_refused_in_one_line(tmp_path):
    path = models.saved(models.all_supported(), tmp_path / "in")
    with pytest.raises(UserError, match="given the runtime openvino, accepted: tensorrt, tensorrt-rtx"):
        partition(path, Runtime.OPENVINO, tmp_path / "plan")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged"):
        partition(path, RTX, tmp_path / "plan")


def test_what_runs_nowhere_is_named(tmp_path):
    nodes = [
        models.conv("x", "c1"),
        helper.make_node("EfficientNMS_TRT", ["c1", "c1"], ["n", "y", "s", "l"], domain="TRT", name="efficient"),
    ]
    model = models.model_of(nodes, models.IMAGE, {"y": models.FLOAT})
    model.opset_import.append(helper.make_opsetid("TRT", 1))
    with pytest.raises(UserError, match="EfficientNMS_TRT 'efficient': runs neither in TensorRT nor in ONNX Runtime"):
        planned(model, tmp_path)
