"""What NVIDIA's parser and builder say of a model; runs in the worker, where a crash costs nothing else."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from components.core.tensorrt_tools.session import Parsed, Session, add_profile, failed_layer, open_inputs
from components.core.tensorrt_tools.words import plain
from components.surgery.diagnosis.nodes import Place, attributes, constants, inside, label, places
from components.surgery.diagnosis.search import Complaint, Failure, failures
from components.surgery.diagnosis.verdict import WHOLE_MODEL, Seen, Stage
from components.surgery.plain_form import without_functions

_SIDES = (64, 224, 16)
"""Sizes tried for dimensions that are left open, when the user gives none."""
_MAX_K = 3840
_INITIALIZER = re.compile(r"Failed to import initializer: (\S+)$")
_LOOP_LAYERS = frozenset({"RECURRENCE", "TRIP_LIMIT", "LOOP_OUTPUT", "ITERATOR"})
Answer = dict[str, Any]


def examine(
    module: str,
    path: Path,
    build: bool,
    shapes: Mapping[str, Sequence[int]],
    trace: Path,
    tell: Callable[[Answer], None],
) -> Answer:
    """Parses, and builds what parses.

    Args:
        module: `tensorrt` or `tensorrt_rtx`.
        path: the ONNX file.
        build: whether to build.
        shapes: of inputs with open dimensions, by name; "" for every other one of that many dimensions.
        trace: file that names the node being parsed.
        tell: takes what is known so far, in case that this process does not live to say more.

    Returns:
        ``version``, ``parses``, ``builds`` (None: not tried), ``failures`` and ``note``.
    """
    session = Session(module, trace)
    answer: Answer = {"version": session.trt.__version__, "parses": None, "builds": None, "failures": [], "note": ""}
    tell(answer)
    parsed = session.parse(path)
    if parsed.ok and not parsed.network.num_outputs:  # such as an empty file
        words = "there is no graph in it"
        return answer | {"parses": False, "failures": [Failure(WHOLE_MODEL, "", words).to_json()]}
    answer["parses"] = parsed.ok
    if parsed.ok:
        trace.unlink(missing_ok=True)
        tell(answer)
        if build:
            return answer | _build(session, parsed, path, shapes)
        known = _known_of_the_builder(onnx.load(path, load_external_data=False), module)
        return answer | {"failures": [failure.to_json() for failure in known]}
    model = onnx.load(path, load_external_data=False)

    def ask(part: onnx.ModelProto) -> list[Complaint]:
        return _complaints(session.parse(part.SerializeToString(), str(path)))

    first = _complaints(parsed)
    if (written := without_functions(model)) is not model:  # the parser names the call, and not the node in it
        model, first = written, ask(written) or first
    for failure in failures(model, first, ask):
        answer["failures"].append(failure.to_json())
        tell(answer)
    named = {failure["node"] for failure in answer["failures"]}
    answer["failures"] += [one.to_json() for one in _known_of_the_builder(model, module) if one.node not in named]
    return answer


def _complaints(parsed: Parsed) -> list[Complaint]:
    return [] if parsed.ok else [_complaint(error) for error in parsed.errors]


def _complaint(error: Any) -> Complaint:
    function, file = str(error.func()), str(error.file())
    if function == "importInput":  # whose "file" is the input
        return Complaint(plain(error.desc()), source=function, tensor=file)
    if function == "importInitializers" and (named := _INITIALIZER.search(error.desc())):
        return Complaint("there is no such type of weights in TensorRT", source=function, tensor=named.group(1))
    operator = error.node_operator() or _operator_of(function)
    source = f"{Path(file).name}:{error.line()} {function}"
    return Complaint(plain(error.desc()), operator, error.node_name(), error.node(), source)


def _operator_of(function: str) -> str:
    """``importScatterElements`` -> ScatterElements; some errors name neither node nor operator."""
    for prefix in ("import", "check"):
        if function.startswith(prefix) and onnx.defs.has(function.removeprefix(prefix)):
            return function.removeprefix(prefix)
    return ""


def _build(session: Session, parsed: Parsed, path: Path, shapes: Mapping[str, Sequence[int]]) -> Answer:
    started, tried, first = time.monotonic(), [], None
    for fixed in _shapes_to_try(open_inputs(parsed.network), shapes):
        network = parsed.network if first is None else session.parse(path).network
        config = session.builder.create_builder_config()
        add_profile(session.builder, config, network, fixed, values=True)
        if session.build(network, config) is not None:
            seconds = time.monotonic() - started
            return {"builds": True, "build_seconds": seconds, "note": _at(fixed)}
        tried.append(_at(fixed))
        if first is None:
            first = failed_layer(network, session.log)
    kind, layer, words = first or ("", "", "")
    model = onnx.load(path, load_external_data=False)
    found = _builder_failure(model, kind, layer, plain(words) or "the builder gave no reason")
    named = {found.node}
    known = [one for one in _known_of_the_builder(model, session.trt.__name__) if one.node not in named]
    return {
        "builds": False,
        "failures": [failure.to_json() for failure in (found, *known)],
        "note": "; ".join(note for note in tried if note),
    }


def _shapes_to_try(
    inputs: Mapping[str, tuple[int, ...]], given: Mapping[str, Sequence[int]]
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes for the open inputs: the given ones; else with 1 for a first axis and a few sizes for the others."""
    wanted = {name: given.get(name, given.get("", ())) for name in inputs}
    wanted = {name: sizes for name, sizes in wanted.items() if len(sizes) == len(inputs[name])}
    for side in _SIDES if len(wanted) < len(inputs) else _SIDES[:1]:
        fixed = {}
        for name, shape in inputs.items():
            sizes = wanted.get(name, [1 if axis == 0 else side for axis in range(len(shape))])
            fixed[name] = tuple(size if size != -1 else new for size, new in zip(shape, sizes, strict=True))
        yield fixed


def _at(shapes: Mapping[str, Sequence[int]]) -> str:
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    return f"open dimensions at {listed}" if listed else ""


def _builder_failure(model: onnx.ModelProto, kind: str, layer: str, words: str) -> Failure:
    place = _node_of(model, kind, layer, words)
    if place is None:
        return Failure(layer or WHOLE_MODEL, kind, words, stage=Stage.BUILD)
    node = place.node
    return Failure(label(node), node.op_type, words, stage=Stage.BUILD, attributes=attributes(node))


def _node_of(model: onnx.ModelProto, kind: str, layer: str, words: str) -> Place | None:
    """The node that a layer came of: by its name, with a suffix or two; a loop's layers have no names."""
    named = [place for place in places(model) if place.node.name and place.node.name in layer]
    outputs = [place for place in places(model) if any(name and name in layer for name in place.node.output)]
    if named or outputs:
        return max(named or outputs, key=lambda place: len(place.node.name))
    if kind in _LOOP_LAYERS or (not kind and "NodeOrder" in words):  # what the builder says of a graph with a loop
        loops = [place for place in places(model) if place.node.op_type in ("Loop", "Scan")]
        said = [place for place in loops if any(name in words.split() for name in _tensors_of(place.node))]
        return next(iter(said or loops), None)
    return None


def _tensors_of(node: onnx.NodeProto) -> set[str]:
    own = {*node.input, *node.output}
    return own | {name for inner in inside(node) for name in (*inner.input, *inner.output)} - {""}


def _known_of_the_builder(model: onnx.ModelProto, module: str) -> Iterator[Failure]:
    """What the builder would refuse, had it been asked: it stops at its first refusal, and the parser before it."""
    values = constants(model)
    for node, _, _ in places(model):
        if node.op_type == "NonMaxSuppression" and module == "tensorrt_rtx":
            words = "no runner of TensorRT-RTX implements it"
        elif node.op_type == "TopK" and (count := _count(node, values)) is not None and count > _MAX_K:
            words = f"K is {count} and exceeds the maximum value allowed ({_MAX_K})"
        else:
            continue
        yield Failure(label(node), node.op_type, words, stage=Stage.BUILD, seen=Seen.KNOWN)


def _count(node: onnx.NodeProto, values: Mapping[str, onnx.TensorProto]) -> int | None:
    tensor = values.get(node.input[1]) if len(node.input) > 1 else None
    if tensor is None or tensor.external_data:
        return None
    numbers = np.asarray(onnx.numpy_helper.to_array(tensor)).reshape(-1)
    return int(numbers[0]) if numbers.size == 1 else None
