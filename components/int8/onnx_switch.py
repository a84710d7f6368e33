"""One ONNX model in which every quantized node can be switched to FP32 and back by an input, without a new session."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from components.core.quantizable import constant_value
from components.int8.heads import HeadProbe, port_tensors, session_for

_SWITCH = "hasten_switch"


class OnnxSwitch:
    """The learned part, with ``Where(on, rounded, exact)`` behind every DequantizeLinear.

    Args:
        exact: FP32 model with named nodes.
        quantized: made from it, names kept.
        units: names of the quantized nodes.
        probe: its heads and feeds are used.
        shared_pairs: whether a pair serves the producer and all consumers of a tensor (ONNX Runtime's placement), so
            that it is there as long as one of them is quantized; else it belongs to its consumer alone.
    """

    def __init__(
        self,
        exact: onnx.ModelProto,
        quantized: onnx.ModelProto,
        units: Sequence[str],
        probe: HeadProbe,
        *,
        shared_pairs: bool,
    ) -> None:
        self.units = list(units)
        self._probe = probe
        self._touching: list[frozenset[str]] = []
        """For every switch, the units any of which turns it on."""
        model = self._switched(exact, probe.head_model(quantized), shared_pairs)
        self._names = port_tensors(quantized.graph, probe.heads)
        self._names = [self._renamed.get(name, name) for name in self._names]
        self._session = session_for(model, exact=True)
        self._needed = {value.name for value in self._session.get_inputs()}

    def outputs(self, on: Collection[str], images: int | None = None) -> list[list[npt.NDArray[Any]]]:
        """Head outputs image by image with only these units quantized."""
        lit = set(on)
        switch = np.array([bool(touching & lit) for touching in self._touching])
        found = []
        for feed in self._probe.feeds[:images]:
            given = {name: value for name, value in feed.items() if name in self._needed}
            if _SWITCH in self._needed:
                given[_SWITCH] = switch
            found.append(self._session.run(self._names, given))
        return found

    def _switched(self, exact: onnx.ModelProto, model: onnx.ModelProto, shared_pairs: bool) -> onnx.ModelProto:
        graph = model.graph
        units = set(self.units)
        producers = {name: node for node in graph.node for name in node.output}
        consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            for index, name in enumerate(node.input):
                consumers.setdefault(name, []).append((node, index))
        originals = {node.name: node for node in exact.graph.node}
        self._renamed: dict[str, str] = {}
        constants: list[onnx.TensorProto] = []
        result: list[onnx.NodeProto] = []
        for node in graph.node:
            result.append(node)
            if node.op_type != "DequantizeLinear":
                continue
            readers = consumers.get(node.output[0], [])
            source = producers.get(node.input[0])
            if (
                source is not None
                and source.op_type == "QuantizeLinear"
                and source.input[0] in producers | {value.name: None for value in graph.input}
            ):
                touching = {reader.name for reader, _ in readers} & units
                maker = producers.get(source.input[0])
                if shared_pairs and maker is not None:
                    touching |= {maker.name} & units
                self._add(result, node.output[0], source.input[0], touching, readers, self._renamed)
            else:
                for reader, index in readers:
                    original = originals.get(reader.name)
                    if original is None or index >= len(original.input):
                        continue
                    value = constant_value(exact, original.input[index])
                    name = f"{reader.name}/{index}/exact"
                    constants.append(numpy_helper.from_array(np.asarray(value), name))
                    self._add(result, node.output[0], name, {reader.name} & units, [(reader, index)], None)
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in result]
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(constants)
        for value in graph.output:
            value.name = self._renamed.get(value.name, value.name)
        if self._touching:
            kind = onnx.TensorProto.BOOL
            graph.input.append(helper.make_tensor_value_info(_SWITCH, kind, [len(self._touching)]))
            graph.initializer.extend(
                numpy_helper.from_array(np.asarray(number, np.int64), f"{_SWITCH}/{number}")
                for number in range(len(self._touching))
            )
        return model

    def _add(
        self,
        result: list[onnx.NodeProto],
        rounded: str,
        exact: str,
        touching: Collection[str],
        readers: Sequence[tuple[onnx.NodeProto, int]],
        renamed: dict[str, str] | None,
    ) -> None:
        number = len(self._touching)
        self._touching.append(frozenset(touching))
        chosen, condition = f"{_SWITCH}/{number}/chosen", f"{_SWITCH}/{number}/on"
        result.append(helper.make_node("Gather", [_SWITCH, f"{_SWITCH}/{number}"], [condition], name=condition))
        result.append(helper.make_node("Where", [condition, rounded, exact], [chosen], name=chosen))
        for reader, index in readers:
            reader.input[index] = chosen
        if renamed is not None:
            renamed[rounded] = chosen
