"""Writes the parts of a plan, and proves that they make what the whole model makes."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from components.core.contracts.job import Runtime
from components.core.contracts.run_plan import LeftNode, Part, PlanProof
from components.core.errors import StepError, UserError
from components.core.files import sha256_file
from components.core.onnx_files import load_onnx, save_onnx
from components.surgery.evaluate import EvaluationError, Model
from components.surgery.partition.cut import cut, piece
from components.surgery.partition.flow import Flow
from components.surgery.partition.schedule import Stretch, work_of
from components.surgery.partition.search import Engine, Search
from components.surgery.partition.tensors import Feed, Tensors
from components.surgery.proof import difference
from components.surgery.surgery import TOLERANCE


def write_parts(
    search: Search,
    stretches: Sequence[Stretch],
    small: set[int],
    engines: Mapping[tuple[int, ...], Engine],
    target: Runtime,
    out: Path,
    *,
    keep_engines: bool,
) -> list[Part]:
    """Writes one ONNX file a stretch, and its engine, and lists them in running order."""
    flow, tensors = search.flow, search.tensors
    constants = [name for name in flow.outputs if name in flow.constants]
    stretches = list(stretches)
    if constants and (not stretches or stretches[-1].engine):
        stretches.append(Stretch(engine=False, nodes=()))
    parts = []
    for number, stretch in enumerate(stretches):
        runtime = target if stretch.engine else Runtime.ONNXRUNTIME
        name = f"part-{number:02d}"
        one = piece(flow, stretch.nodes, constants if number == len(stretches) - 1 and not stretch.engine else ())
        files = save_onnx(cut(flow, one, tensors), out / f"{name}-{runtime}.onnx")
        built = engines[stretch.nodes] if stretch.engine else None
        engine = None
        if built is not None and keep_engines:
            engine = f"{name}-{runtime}.engine"
            shutil.copyfile(built.file, out / engine)
            files = [*files, out / engine]
        parts.append(
            Part(
                id=name,
                runtime=runtime,
                file=files[0].name,
                engine=engine,
                sha256={path.name: sha256_file(path) for path in files},
                inputs=[tensors.plan_tensor(tensor) for tensor in one.inputs],
                outputs=[tensors.plan_tensor(tensor) for tensor in one.outputs],
                nodes=len(stretch.nodes),
                work=work_of(flow, stretch.nodes),
                profiles=built.profiles if built is not None else {},
                left=_left(search, stretch.nodes),
                small=len(small.intersection(stretch.nodes)),
            )
        )
    return parts


def _left(search: Search, nodes: Sequence[int]) -> list[LeftNode]:
    proto = search.flow.model.graph.node
    return [
        LeftNode(node=proto[position].name, operator=proto[position].op_type, why=search.refused[position])
        for position in nodes
        if position in search.refused
    ]


def prove_plan(flow: Flow, tensors: Tensors, parts: Sequence[Part], folder: Path) -> PlanProof:
    """Runs whole model and parts in ONNX Runtime, on random inputs and on the user's.

    Raises:
        UserError: a remainder does not run in ONNX Runtime either, or the model does not take the user's inputs.
        StepError: the parts make other numbers, which is a mistake of ours.
    """
    kinds = {"random": tensors.random_feeds(), "given": list(tensors.given)}
    try:
        whole = Model(flow.model)
    except EvaluationError as error:
        _check_remainder(parts, folder)
        return PlanProof(random_inputs=0, given_inputs=0, max_error=None, note=f"the whole model does not run: {error}")
    feeds = [*kinds["random"], *kinds["given"]]
    if not feeds:
        note = f"no random input was found that the model runs on: {tensors.why_no_feed}"
        return PlanProof(random_inputs=0, given_inputs=0, max_error=None, note=note)
    chance = sorted({node.op_type for node in flow.model.graph.node} & _RANDOM)
    worst = 0.0
    for number, feed in enumerate(feeds):
        try:
            expected = whole(feed)
        except EvaluationError as error:
            raise UserError(f"the model does not run on input {number - len(kinds['random'])}: {error}") from error
        found = _run_parts(parts, folder, feed)
        worst = max(worst, *(_error(expected[name], found[name]) for name in flow.outputs))
    if chance:
        note = f"the model is random by itself: {', '.join(chance)}"
        return PlanProof(random_inputs=0, given_inputs=0, max_error=None, note=note)
    if worst > TOLERANCE:
        raise StepError(
            f"the parts make other numbers than the whole model (relative error {worst:.1e}); nothing written"
        )
    return PlanProof(random_inputs=len(kinds["random"]), given_inputs=len(kinds["given"]), max_error=worst)


_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


def _check_remainder(parts: Sequence[Part], folder: Path) -> None:
    for part in parts:
        if part.runtime is Runtime.ONNXRUNTIME:
            try:
                Model(load_onnx(folder / part.file))
            except EvaluationError as error:
                names = ", ".join(f"{left.operator} {left.node!r}" for left in part.left[:5]) or "what no engine takes"
                raise UserError(
                    f"{names}: runs neither in TensorRT nor in ONNX Runtime ({error}); export the model without it"
                ) from error


def _run_parts(parts: Sequence[Part], folder: Path, feed: Feed) -> Feed:
    values = dict(feed)
    for part in parts:
        model: onnx.ModelProto = load_onnx(folder / part.file)
        values |= Model(model)({tensor.name: values[tensor.name] for tensor in part.inputs})
    return values


def _error(expected: object, found: object) -> float:
    if isinstance(expected, list) and isinstance(found, list):  # a sequence
        same = len(expected) == len(found)
        return max((_error(*pair) for pair in zip(expected, found, strict=True)), default=0.0) if same else np.inf
    return difference(np.asarray(expected), np.asarray(found))
