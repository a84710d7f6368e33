"""How a classifier's torch module is called: with the inputs that it takes, and logits out of whatever it returns."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.core.errors import StepError

if TYPE_CHECKING:
    import torch


def inputs_taken(module: "torch.nn.Module", names: Sequence[str]) -> tuple[str, ...]:
    """Which of a task's inputs the module takes: those that its `forward` names, else as many as it needs, in order.

    Args:
        module: the user's.
        names: of the task's inputs.

    Raises:
        StepError: it needs more than the task gives.
    """
    parameters = list(inspect.signature(module.forward).parameters.values())
    # Programs of torch.export take anything and say in their graph what they want.
    graph = getattr(module, "graph", None)
    if graph is not None and any(one.kind is one.VAR_POSITIONAL for one in parameters):
        needed = sum(node.op == "placeholder" for node in graph.nodes)
    else:
        known = tuple(name for name in names if any(one.name == name for one in parameters))
        if known:
            return known
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = sum(one.kind in plain and one.default is one.empty for one in parameters)
    if needed > len(names):
        raise StepError(f"the model takes {needed} inputs; accepted: {', '.join(names)}, or some of these")
    return tuple(names[: max(needed, 1)])


def logits_of(output: Any) -> "torch.Tensor":
    """The logits [N, classes] in what a classifier returned: a tensor, something with `logits`, a tuple's first.

    Raises:
        StepError: there are none.
    """
    import torch

    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    elif not isinstance(output, torch.Tensor) and hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        shape = f" of shape {list(output.shape)}" if isinstance(output, torch.Tensor) else ""
        raise StepError(f"the model returned a {type(output).__name__}{shape}; expected logits [N, classes]")
    return output


def call(module: "torch.nn.Module", inputs: "Mapping[str, torch.Tensor]", taken: Sequence[str]) -> "torch.Tensor":
    """Logits [N, classes] of a batch.

    Args:
        module: the user's, perhaps wrapped.
        inputs: by the task's names.
        taken: of `inputs_taken`.
    """
    unwrapped = getattr(module, "module", module)
    named = inspect.signature(unwrapped.forward).parameters
    if all(name in named for name in taken):
        return logits_of(module(**{name: inputs[name] for name in taken}))
    return logits_of(module(*(inputs[name] for name in taken)))
