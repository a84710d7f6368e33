"""Every graph of the acceptance table that TensorRT-RTX refuses is diagnosed with its row, node and way out."""

import onnx
import pytest
from surgery_cases import cases
from surgery_graphs import RTX, needs_rtx

from components.surgery.diagnosis import tensorrt_probe
from components.surgery.diagnosis.diagnose import finding_of
from components.surgery.diagnosis.nodes import label, places

REFUSED = [
    pytest.param(row, case, id=f"row{row:02}-{case.name}")
    for row, listed in cases().items()
    for case in listed
    if case.before != "ok"
]


@needs_rtx
@pytest.mark.parametrize(("row", "case"), REFUSED)
def test_a_refused_graph_is_diagnosed_with_its_row(tmp_path, row, case):
    model = case.model()
    onnx.save(model, tmp_path / "model.onnx")
    path, trace = tmp_path / "model.onnx", tmp_path / "trace.txt"
    answer = tensorrt_probe.examine("tensorrt_rtx", path, True, {}, trace, lambda answer: None)
    found = [finding_of(failure, RTX) for failure in answer["failures"]]
    # Nobody refuses an open dimension (row 40) as such, and some cases are another row's to repair: any row will do.
    other = row == 40 or case.by is not None
    mine = [finding for finding in found if finding.refused and (finding.row == row or (other and finding.row))]
    assert mine, f"no rule of components/core/tensorrt_tools/rules.py leads to row {row}: " + "; ".join(
        f"{finding.node}: row {finding.row}, {finding.words}" for finding in found
    )
    names = {label(place.node) for place in places(model)}
    names |= {f"input {value.name}" for value in model.graph.input}
    names |= {f"initializer {tensor.name}" for tensor in model.graph.initializer}
    assert {finding.node for finding in mine} <= names
    assert all(finding.way_out for finding in mine)
