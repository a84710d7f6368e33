"""Row 46: LSTM with projection (torch.nn.LSTM(proj_size=...)). ONNX's LSTM has none.

What was found of its exports:

* torch's TorchScript exporter refuses it.
* torch's dynamo exporter (2.14) writes an LSTM of the *projected* size: it cuts the weights of the gates and drops the
  projection. No runtime loads that, and what was dropped cannot be put back: it is named here.
* Files that work have the cell in plain operators: traced, which TensorRT takes, or scripted as a Loop with a list of
  outputs, which row 34 unrolls or turns into a loop that collects.

The way out is exact: an LSTM without projection, whose recurrent weights are W_hh W_hr, gives the hidden state m before
its projection, and m W_hr^T behind it is the output.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.graphs import optional_input
from components.surgery.surgery import EVERY_TARGET, Change, Options, Surgery, label, refusal

_WAY_OUT = (
    "before the export, replace nn.LSTM(proj_size=p) by nn.LSTM without it, weight_hh @ weight_hr as weight_hh, and "
    "a Linear of weight_hr behind it (h_0 = 0), layer by layer; that is the same function"
)


def matches(graph: gs.Graph) -> bool:
    """Whether an LSTM's weights do not fit its hidden size."""
    return any(_misfit(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Names each."""
    found = [(node, _misfit(node)) for node in graph.nodes if label(node) not in options.skip]
    return [refusal(node, why, _WAY_OUT) for node, why in found if why]


def _misfit(node: gs.Node) -> str:
    """What does not fit; empty when everything does."""
    if node.op != "LSTM" or "hidden_size" not in node.attrs:
        return ""
    hidden = int(node.attrs["hidden_size"])
    for position, axis, expected, name in (
        (1, 1, 4 * hidden, "input weights"),
        (2, 1, 4 * hidden, "recurrent weights"),
        (3, 1, 8 * hidden, "biases"),
        (6, -1, hidden, "first cell state"),
    ):
        tensor = optional_input(node, position)
        size = None if tensor is None or tensor.shape is None or not tensor.shape else tensor.shape[axis]
        if isinstance(size, int | np.integer) and size != expected:
            return (
                f"it is an LSTM with projection, cut by torch's exporter: its {name} have {size} rows where "
                f"hidden_size {hidden} wants {expected}, and the projection's weights are not in the file"
            )
    return ""


SURGERY = Surgery(
    row=46,
    name="LSTM with projection",
    thread="torch 'Unsupported: ONNX export of operator LSTM, LSTMs with projections'",
    matches=matches,
    apply=apply,
    targets=EVERY_TARGET,
)
