"""The forms that INT8 takes: what TensorRT is given, how large files get, what is switched and corrected."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.core.contracts.job import Runtime
from components.core.quantizable import constant_value, name_nodes
from components.engine.build import build_engine
from components.int8.bias_correction import channel_shifts, with_corrected_biases
from components.int8.calibration import CalibrationSet
from components.int8.heads import HeadProbe
from components.int8.histograms import Histogram, collect_histograms
from components.int8.onnx_backend import OnnxBackend
from components.int8.onnx_qdq import asymmetric_tensors, quantize_asymmetric
from components.int8.onnx_switch import OnnxSwitch
from components.int8.openvino_nncf import is_transformer, quantize_nncf
from components.int8.openvino_switch import OpenVinoProbe, OpenVinoSwitch
from components.int8.range_rules import RULES, entropy, mean_squared_error, min_max, percentile
from components.int8.sensitivity import rank
from components.int8.sqnr import SILENT, sqnr_db
from components.int8.symmetric_qdq import in_groups, quantize_symmetric, residual_sums, symmetric_tensors

CHANNELS, SIDE = 32, 16


def residual_net(*, bias=0.0, outlier=1.0, seed=0):
    """stem -> (expand -> depthwise -> project) + shortcut -> head; `outlier` scales one channel of the expansion."""
    rng = np.random.default_rng(seed)
    weights = {
        "stem": rng.normal(0, 0.3, (CHANNELS, 3, 3, 3)),
        "expand": rng.normal(0, 0.2, (4 * CHANNELS, CHANNELS, 1, 1)),
        "depthwise": rng.normal(0, 0.3, (4 * CHANNELS, 1, 3, 3)),
        "project": rng.normal(0, 0.1, (CHANNELS, 4 * CHANNELS, 1, 1)),
        "head": rng.normal(0, 0.1, (8, CHANNELS, 3, 3)),
    }
    weights["expand"][5] *= outlier
    weights["depthwise"][5] /= outlier
    node, nodes, initializers = helper.make_node, [], []
    for name, value in weights.items():
        initializers.append(numpy_helper.from_array(value.astype(np.float32), f"{name}_w"))
        initializers.append(numpy_helper.from_array(np.full(len(value), bias, np.float32), f"{name}_b"))

    def conv(name, source, pad, **attributes):
        nodes.append(
            node("Conv", [source, f"{name}_w", f"{name}_b"], [f"{name}_c"], name=name, pads=[pad] * 4, **attributes)
        )
        return f"{name}_c"

    def relu(source):
        nodes.append(node("Relu", [source], [f"{source}_r"], name=f"{source}_relu"))
        return f"{source}_r"

    stem = relu(conv("stem", "x", 1))
    inner = conv("project", relu(conv("depthwise", relu(conv("expand", stem, 0)), 1, group=4 * CHANNELS)), 0)
    nodes.append(node("Add", [stem, inner], ["sum"], name="shortcut"))
    out = conv("head", relu("sum"), 1)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [value(out, TensorProto.FLOAT, [1, 8, SIDE, SIDE])],
        initializer=initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(count=8, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.random((1, 3, SIDE, SIDE), np.float32) for _ in range(count)]


def calibration(count=8):
    batches = images(count)
    return CalibrationSet(batches, [str(n) for n in range(count)], "", held_out=images(2, seed=2))


def ranges_of(model, tensors, rule=min_max):
    return {name: rule(seen) for name, seen in collect_histograms(model, tensors, images()).items()}


def run(model, batch):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def test_a_residual_sum_is_quantized_on_the_branch_that_is_no_layer():
    model = residual_net()
    assert residual_sums(model) == {"shortcut": 0}
    quantized, units = quantize_symmetric(model, ranges_of(model, symmetric_tensors(model)))
    producers = {name: node for node in quantized.graph.node for name in node.output}
    (shortcut,) = [node for node in quantized.graph.node if node.op_type == "Add"]
    assert [producers[name].op_type for name in shortcut.input] == ["DequantizeLinear", "Conv"]
    assert units == ["stem", "expand", "depthwise", "project", "shortcut", "head"]
    onnx.checker.check_model(quantized, full_check=True)


def test_of_two_layers_that_are_added_the_earlier_one_gets_the_pair():
    node = helper.make_node
    nodes = [node("Conv", ["x", "w"], [name], name=name) for name in ("early", "late")]
    nodes += [node("Add", ["late", "early"], ["sum"], name="sum"), node("Conv", ["sum", "w"], ["y"], name="last")]
    weights = [numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, [1, 3, 4, 4])], [value("y", 1, [1, 3, 4, 4])], initializer=weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert residual_sums(model) == {"sum": 1}


def test_depthwise_in_groups_of_four_are_the_same_numbers_and_spare_the_engine_its_zeros(tmp_path):
    model = residual_net()
    ranges = ranges_of(model, symmetric_tensors(model))
    sizes = {}
    results = []
    for grouped in (False, True):
        quantized, _ = quantize_symmetric(model, ranges, group_depthwise=grouped)
        onnx.save(quantized, tmp_path / "m.onnx")
        card = build_engine(Runtime.TENSORRT_RTX, tmp_path / "m.onnx", tmp_path / f"{grouped}.engine")
        assert card.precisions == {"INT8": 5}
        sizes[grouped] = card.size_bytes
        results.append(run(quantized, images()[0]))
    np.testing.assert_array_equal(*results)
    zeros = 3 * 4 * CHANNELS * SIDE * SIDE
    assert sizes[False] - sizes[True] > 0.8 * zeros


def test_groups_read_only_their_own_channel():
    wide = in_groups(np.arange(1, 9, dtype=np.int8).reshape(8, 1, 1, 1))[..., 0, 0]
    np.testing.assert_array_equal(wide.sum(axis=1), np.arange(1, 9))
    np.testing.assert_array_equal(np.flatnonzero(wide[6]), [2])


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.TENSORRT_RTX])
def test_int8_weights_take_at_most_27_percent(tmp_path, runtime):
    model = residual_net()
    onnx.save(model, tmp_path / "m.onnx")
    backend = OnnxBackend(tmp_path / "m.onnx", runtime, calibration(), vnni=True)
    backend.calibrate(30)
    backend.write(tmp_path / "q.onnx")

    def weight_bytes(path):
        constants = onnx.load(path).graph.initializer
        return sum(
            numpy_helper.to_array(one).nbytes
            for one in constants
            if one.name.split("/")[0].endswith("_w") or "_w_" in one.name
        )

    depthwise = 4 * CHANNELS * 9
    exact = weight_bytes(tmp_path / "m.onnx")
    wide = 3 * depthwise if runtime is Runtime.TENSORRT_RTX else 0
    scales = 5 * (9 * CHANNELS + CHANNELS + 8)
    assert weight_bytes(tmp_path / "q.onnx") <= 0.25 * exact + wide + scales


def test_every_switch_off_is_fp32_and_every_switch_on_is_the_quantized_model():
    model = residual_net()
    name_nodes(model.graph)
    probe = HeadProbe(model, images(2, seed=2))
    for symmetric in (True, False):
        ranges = ranges_of(model, symmetric_tensors(model) if symmetric else asymmetric_tensors(model))
        quantize = quantize_symmetric if symmetric else lambda m, r: quantize_asymmetric(m, r, vnni=True)
        quantized, units = quantize(model, ranges)
        switch = OnnxSwitch(model, quantized, units, probe, shared_pairs=not symmetric)
        assert sqnr_db(probe.exact, switch.outputs([])) > 90
        assert sqnr_db(probe.outputs(quantized), switch.outputs(units)) > 60
        restored, _ = (
            quantize_symmetric(model, ranges, ["head"])
            if symmetric
            else quantize_asymmetric(model, ranges, ["head"], vnni=True)
        )
        without = switch.outputs(set(units) - {"head"})
        agreement = sqnr_db(probe.outputs(restored), without)
        assert agreement > sqnr_db(probe.outputs(restored), switch.outputs(units)) + 6, "a switch is a restoration"


def test_openvinos_switches_do_the_same(tmp_path):
    import openvino

    onnx.save(residual_net(), tmp_path / "m.onnx")
    model = openvino.Core().read_model(tmp_path / "m.onnx")
    probe = OpenVinoProbe(model, images(2, seed=2))
    quantized = quantize_nncf(model, images())
    switch = OpenVinoSwitch(model, quantized, probe)
    assert sqnr_db(probe.exact, switch.outputs([])) > 90
    assert 10 < sqnr_db(probe.exact, switch.outputs(switch.units)) < 60
    assert sqnr_db(probe.outputs(quantized), switch.outputs(switch.units)) > 30


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.TENSORRT_RTX])
def test_the_layers_around_an_outlier_channel_are_named_and_restoring_them_helps(tmp_path, runtime):
    onnx.save(residual_net(outlier=2000.0), tmp_path / "m.onnx")
    backend = OnnxBackend(tmp_path / "m.onnx", runtime, calibration(), vnni=True)
    backend.calibrate(0.001)
    ranking = backend.rank(60)
    worst = " ".join(blame.unit for blame in ranking[:3])
    assert "depthwise" in worst
    others = [blame.sqnr_db for blame in ranking if "stem" in blame.unit or "head" in blame.unit]
    assert ranking[0].sqnr_db < min(others) - 6


def test_bias_correction_takes_the_mean_error_out():
    model = residual_net(bias=0.1)
    name_nodes(model.graph)
    (head,) = [one for one in model.graph.initializer if one.name == "head_w"]
    # One large weight makes the steps so wide that all the others, just below half a step, round to 0.
    weights = np.full((8, CHANNELS, 3, 3), 0.0049, np.float32)
    weights[:, 0, 0, 0] = 1.27
    head.CopyFrom(numpy_helper.from_array(weights, "head_w"))
    probe = HeadProbe(model, images(4, seed=2))
    ranges = ranges_of(model, symmetric_tensors(model))
    quantized, _ = quantize_symmetric(model, ranges)
    shifts = channel_shifts(model, quantized, [{"x": batch} for batch in images()])
    assert set(shifts) == {"stem", "expand", "depthwise", "project", "head"}
    corrected, _ = quantize_symmetric(with_corrected_biases(model, shifts), ranges)
    before, after = (sqnr_db(probe.exact, probe.outputs(one)) for one in (quantized, corrected))
    assert after > before + 6


def test_the_calibrators_treat_an_outlier_as_they_are_known_to():
    seen = Histogram()
    rng = np.random.default_rng(0)
    for _ in range(20):
        seen.add(rng.normal(0, 1, 10_000))
    seen.add(np.array([400.0]))
    assert min_max(seen)[1] == 400
    assert percentile(seen)[1] < 8
    assert mean_squared_error(seen)[1] < 400
    assert entropy(seen)[1] < 400
    assert set(RULES) == {"min-max", "percentile", "mse", "entropy"}


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.TENSORRT_RTX])
def test_the_calibrator_whose_heads_are_nearest_to_fp32_is_taken(tmp_path, runtime):
    onnx.save(residual_net(), tmp_path / "m.onnx")
    facts = OnnxBackend(tmp_path / "m.onnx", runtime, calibration(), vnni=True).calibrate(60)
    tried = facts["tried"]
    assert len(set(tried.values())) > 1, "they differ, so that there is something to choose"
    assert tried[facts["chosen"]] == max(tried.values()) > min(tried.values())
    assert facts["sqnr_db"] >= max(tried.values())


def test_a_histogram_forgets_nothing_while_it_grows():
    seen = Histogram()
    for scale in (1.0, 3.0, 100.0):
        seen.add(np.linspace(-scale, scale, 1001))
    assert seen.counts.sum() == 3003
    assert (seen.low, seen.high, seen.reach) == (-100, 100, 128)
    assert seen.counts[np.abs(seen.centers) < 1.1].sum() == pytest.approx(1001 + 1001 / 3 + 11, rel=0.05)
    with pytest.raises(ValueError, match="NaN or infinite"):
        seen.add(np.array([np.nan]))


def test_sqnr_is_that_of_the_worst_head():
    exact = [[np.ones(10), np.ones(10)]]
    assert sqnr_db(exact, exact) == SILENT
    assert sqnr_db(exact, [[np.ones(10) * 1.1, np.ones(10) * 1.01]]) == pytest.approx(20)
    assert sqnr_db(exact, [[np.full(10, np.nan), np.ones(10)]]) == -np.inf


def test_ranking_stops_when_its_time_is_over():
    class Slow:
        def __init__(self):
            self.units = ["a", "b", "c"]

        def outputs(self, on, images=None):
            return [[np.full(4, 1.0 - 0.1 * len(on))]]

    ranking = rank(Slow(), [[np.ones(4)]], 0.0)
    assert [blame.sqnr_db for blame in ranking] == [pytest.approx(20), np.inf, np.inf]


def test_constants_behind_other_nodes_are_computed():
    node = helper.make_node
    nodes = [node("Transpose", ["w"], ["t"], perm=[1, 0]), node("Identity", ["t"], ["i"])]
    weights = [numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")]
    graph = helper.make_graph(nodes, "g", [], [], initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    np.testing.assert_array_equal(constant_value(model, "i"), np.arange(6).reshape(2, 3).T)


def test_attention_is_told_from_convolutions(tmp_path):
    import openvino
    import torch

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = torch.nn.Linear(16, 48)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            return torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v

    torch.onnx.export(Attention(), (torch.rand(1, 8, 16),), tmp_path / "a.onnx", dynamo=False, opset_version=17)
    onnx.save(residual_net(), tmp_path / "m.onnx")
    core = openvino.Core()
    assert is_transformer(core.read_model(tmp_path / "a.onnx"))
    assert not is_transformer(core.read_model(tmp_path / "m.onnx"))
