"""How large the values of a model's tensors get on real inputs: what FP16 must hold."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from components.core.feeds import Batch, feed
from components.core.machine import usable_cores
from components.core.quantizable import float_tensors, learned_nodes

if TYPE_CHECKING:
    import onnx

_ERRORS_ONLY = 3


def largest_values(model: "onnx.ModelProto", batches: Sequence[Batch]) -> dict[str, float]:
    """Largest magnitude of every float tensor of the learned part.

    Args:
        model: FP32, with named nodes; at most 2 GiB.
        batches: real inputs.

    Returns:
        Tensor -> largest ``abs(value)`` over all batches; infinite where a value is NaN or infinite.
    """
    import onnx
    import onnxruntime

    learned, floats = learned_nodes(model.graph), float_tensors(model)
    names = [name for node in model.graph.node if node.name in learned for name in node.output if name in floats]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    settings.intra_op_num_threads = usable_cores()
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(copy.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    given = [value.name for value in session.get_inputs()]
    found = dict.fromkeys([*(name for name in given if name in floats), *names], 0.0)
    for batch in batches:
        fed = feed(batch, given)
        values = [*fed.items(), *zip(names, session.run(names, fed), strict=True)]
        for name, value in values:
            if name not in found:
                continue
            largest = float(np.abs(value).max(initial=0))
            found[name] = max(found[name], largest if np.isfinite(largest) else np.inf)
    return found
