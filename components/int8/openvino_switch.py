"""The learned part of an OpenVINO model, run alone and with its quantized operations switched on and off."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.feeds import Batch
from components.core.runtimes.openvino_core import feed_of, shared_core
from components.int8.openvino_nncf import tail_operations
from components.int8.openvino_patches import Patch, find_patches, operations_by_name

_SHAPES_ONLY = ("ShapeOf",)
_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
Values = list[npt.NDArray[Any]]


@dataclass(frozen=True)
class Border:
    """Where the learned part begins and ends; an operation's name and which input of it."""

    fed: tuple[tuple[str, int], ...]
    """Inputs of the learned part that the tail computes."""
    heads: tuple[tuple[str, int], ...]
    """Inputs of the tail, or of a Result, that the learned part computes."""


def find_border(model: Any) -> Border:
    """The border, by the same rule that keeps the tail in FP32."""
    tail = set(tail_operations(model))
    for operation in model.get_ordered_ops():  # a head's bias is part of the head
        if operation.get_type_name() in ("Add", "Multiply") and _adds_a_constant(operation, tail):
            tail.discard(operation.get_friendly_name())
    plain = ("Constant", "Parameter")
    fed: list[tuple[str, int]] = []
    heads: list[tuple[str, int]] = []
    seen: set[tuple[str, int]] = set()
    for operation in model.get_ordered_ops():
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        if kind in plain:
            continue
        outside = kind == "Result" or name in tail
        for index, port in enumerate(operation.inputs()):
            source = port.get_source_output()
            maker = source.get_node()
            if maker.get_type_name() in plain:
                continue
            made_by_tail = maker.get_friendly_name() in tail
            if not outside and made_by_tail:
                fed.append((name, index))
            elif outside and not made_by_tail and kind not in _SHAPES_ONLY and source.get_element_type().is_real():
                key = (maker.get_friendly_name(), source.get_index())
                if key not in seen:
                    seen.add(key)
                    heads.append((name, index))
    return Border(tuple(fed), tuple(heads))


def _adds_a_constant(operation: Any, tail: Collection[str]) -> bool:
    """Whether it is a learned result with a constant added or multiplied: a bias, or what Gemm scales by."""
    makers = [port.get_source_output().get_node() for port in operation.inputs()]
    constant = [maker.get_type_name() == "Constant" for maker in makers]
    learned = [maker.get_friendly_name() not in tail and maker.get_type_name() != "Parameter" for maker in makers]
    return len(makers) == 2 and any(constant) and any(a and not b for a, b in zip(learned, constant, strict=True))


class OpenVinoProbe:
    """FP32 heads on a few images, and what every quantized form is fed with.

    Args:
        model: FP32.
        batches: inputs that nothing was calibrated on.
    """

    def __init__(self, model: Any, batches: Sequence[Batch]) -> None:
        import openvino

        self.border = find_border(model)
        copy = model.clone()
        ports = [*self.border.heads, *self.border.fed]
        results = [openvino.opset13.result(_source(copy, port)) for port in ports]
        request = _compiled(openvino.Model(results, copy.get_parameters()))
        self.exact: list[Values] = []
        self.feeds: list[Values] = []
        count = len(self.border.heads)
        for batch in batches:
            fed = feed_of(model, batch)
            found = request.infer(dict(enumerate(fed)))
            values = [np.array(found[index]) for index in range(len(ports))]
            self.exact.append(values[:count])
            self.feeds.append([*fed, *values[count:]])

    def outputs(self, quantized: Any) -> list[Values]:
        """Head outputs of a form of the model, image by image."""
        request = _compiled(self.head_model(quantized.clone(), []))
        return [self._infer(request, feed) for feed in self.feeds]

    def head_model(self, model: Any, more: list[Any]) -> Any:
        """The learned part alone, made of `model` itself; `more` are further parameters that it reads."""
        import openvino

        parameters = list(model.get_parameters())
        operations = operations_by_name(model)
        for place, (name, index) in enumerate(self.border.fed, start=len(parameters)):
            seen = [feed[place] for feed in self.feeds]
            sizes = [
                side if all(one.shape[axis] == side for one in seen) else -1 for axis, side in enumerate(seen[0].shape)
            ]
            parameter = openvino.opset13.parameter(
                openvino.PartialShape(sizes), openvino.Type(seen[0].dtype), name=f"fed/{name}/{index}"
            )
            operations[name].input(index).replace_source_output(parameter.output(0))
            parameters.append(parameter)
        results = [openvino.opset13.result(operations[name].input_value(index)) for name, index in self.border.heads]
        return openvino.Model(results, [*parameters, *more])

    @staticmethod
    def _infer(request: Any, values: Values) -> Values:
        found = request.infer(dict(enumerate(values)))
        return [np.array(found[index]) for index in range(len(found))]


class OpenVinoSwitch:
    """The learned part with ``Select(on, rounded, exact)`` at every input that quantization changed.

    Args:
        original: FP32 model.
        quantized: what NNCF made of it.
        probe: its border and feeds are used.
    """

    def __init__(self, original: Any, quantized: Any, probe: OpenVinoProbe) -> None:
        import openvino

        self._probe = probe
        copy = quantized.clone()
        patches = find_patches(original, copy)
        self.units = list(dict.fromkeys(patch.unit for patch in patches))
        places = {unit: place for place, unit in enumerate(self.units)}
        switch = openvino.opset13.parameter([len(self.units)], openvino.Type.boolean, name="hasten_switch")
        for patch in patches:
            _select(patch, switch, places[patch.unit])
        self._request = _compiled(probe.head_model(copy, [switch]))

    def outputs(self, on: Collection[str], images: int | None = None) -> list[Values]:
        """Head outputs image by image with only these units quantized."""
        lit = set(on)
        switch = np.array([unit in lit for unit in self.units])
        return [self._probe._infer(self._request, [*feed, switch]) for feed in self._probe.feeds[:images]]


def _select(patch: Patch, switch: Any, place: int) -> None:
    from openvino import opset13

    condition = opset13.gather(switch, opset13.constant(np.int64(place)), opset13.constant(np.int64(0)))
    rounded = patch.port.get_source_output()
    patch.port.replace_source_output(opset13.select(condition, rounded, patch.exact).output(0))


def _source(model: Any, port: tuple[str, int]) -> Any:
    return operations_by_name(model)[port[0]].input_value(port[1])


def _compiled(model: Any) -> Any:
    return shared_core().compile_model(model, "CPU", _EXACT).create_infer_request()
