"""Runs a model in parts, as a run plan says: engines on the GPU where there is one, all else in ONNX Runtime.

A part meant for an engine runs in ONNX Runtime on the CPU, from its ONNX file, where there is no GPU, no TensorRT or no
engine file, and for a call whose sizes the engine was not built for.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from components.core.contracts.job import Job, Runtime
from components.core.contracts.run_plan import Part, RunPlan
from components.core.contracts.variant import Variant
from components.core.errors import StepError, UserError
from components.core.feeds import Batch, feed, size_of
from components.core.files import confined
from components.core.formats import runtime_name
from components.core.runtimes.interface import adapter_for, availability, output_names
from components.core.tasks.adapter import TaskAdapter

Values = dict[str, npt.NDArray[Any]]
_ERRORS_ONLY = 3


class Place(NamedTuple):
    """Where a part runs."""

    runtime: Runtime
    why: str
    """Why an engine part does not run as an engine; else empty."""


class PartSession(Protocol):
    """A part that was loaded."""

    def run(self, values: Mapping[str, npt.NDArray[Any]]) -> Values:
        """Its outputs by name."""


def read_plan(path: Path) -> RunPlan:
    """Reads a plan and looks for its files.

    Raises:
        UserError: it is no plan, or a file of it is missing.
    """
    try:
        plan = RunPlan.read(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give the run_plan.json of `hasten partition`") from error
    except (ValidationError, ValueError) as error:
        raise UserError(f"{path} is no run plan; give the run_plan.json that `hasten partition` wrote") from error
    for name in plan.files():
        if not confined(path.parent, name, str(path)).is_file():
            raise UserError(f"{path}: its part {name} is missing; copy the whole folder")
    return plan


def places(plan: RunPlan, folder: Path, device: str | None = None) -> dict[str, Place]:
    """Where each part runs on this machine.

    Args:
        plan: the plan.
        folder: that it is in.
        device: `Target.device`; None: whatever the machine has.
    """
    reason = availability(plan.target, device)
    found = {}
    for part in plan.parts:
        why = ""
        if part.runtime is not Runtime.ONNXRUNTIME:
            why = reason or ("" if part.engine and (folder / part.engine).is_file() else "the plan has no engine file")
        found[part.id] = Place(Runtime.ONNXRUNTIME if why else part.runtime, why)
    return found


def plan_runtime(plan: RunPlan, folder: Path, device: str | None = None) -> Runtime:
    """The runtime that the plan is measured as: its target where an engine runs, else ONNX Runtime."""
    found = {place.runtime for place in places(plan, folder, device).values()}
    return plan.target if plan.target in found else Runtime.ONNXRUNTIME


def where_it_runs(plan: RunPlan, folder: Path, device: str | None = None) -> str:
    """One line for a report: which parts ran as engines, which did not, and why."""
    engines = [part.id for part in plan.engine_parts]
    if not engines:
        return "run plan without an engine part: all of it ran in ONNX Runtime"
    found = places(plan, folder, device)
    instead = [name for name in engines if found[name].why]
    if not instead:
        return f"run plan: {', '.join(engines)} ran as {runtime_name(plan.target)} engines, the rest in ONNX Runtime"
    why = found[instead[0]].why
    return f"run plan: the engine parts {', '.join(instead)} ran in ONNX Runtime on the CPU ({why})"


class PlanRunner:
    """A plan that was loaded; runs its parts one after the other.

    Args:
        plan: the plan.
        folder: that it is in.
        threads: CPU threads of ONNX Runtime.
        device: for the engines; None: the first GPU where there is one.

    Raises:
        StepError: a part does not load.
    """

    def __init__(self, plan: RunPlan, folder: Path, threads: int, device: str | None = None) -> None:
        self.plan = plan
        self._parts: list[tuple[Part, PartSession]] = []
        for part in plan.parts:
            place = places(plan, folder, device)[part.id]
            if place.runtime is Runtime.ONNXRUNTIME:
                session: PartSession = _OnnxPart(part, folder, threads)
            else:
                session = _EnginePart(plan.target, part, folder, threads, device or "cuda")
            self._parts.append((part, session))
        self._dead = _last_uses(plan)

    def run(self, feed: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str] | None = None) -> Values:
        """Outputs of the model by name.

        Args:
            feed: inputs of the model by name.
            outputs: names; default: all.
        """
        values = dict(feed)
        for number, (part, session) in enumerate(self._parts):
            values |= session.run({tensor.name: values[tensor.name] for tensor in part.inputs})
            for name in self._dead[number]:
                del values[name]
        names = [tensor.name for tensor in self.plan.outputs] if outputs is None else outputs
        return {name: values[name] for name in names}


def _last_uses(plan: RunPlan) -> list[list[str]]:
    """Tensors that nobody needs after each part."""
    kept = {tensor.name for tensor in plan.outputs}
    last: dict[str, int] = {}
    for number, part in enumerate(plan.parts):
        last |= {tensor.name: number for tensor in (*part.inputs, *part.outputs) if tensor.name not in kept}
    return [[name for name, at in last.items() if at == number] for number in range(len(plan.parts))]


class _OnnxPart:
    """A part in ONNX Runtime on the CPU."""

    def __init__(self, part: Part, folder: Path, threads: int) -> None:
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = _ERRORS_ONLY
        try:
            self._session = ort.InferenceSession(str(folder / part.file), settings, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise StepError(f"ONNX Runtime refuses {part.file}: {' '.join(str(error).split())}") from error
        self._outputs = [tensor.name for tensor in part.outputs]

    def run(self, values: Mapping[str, npt.NDArray[Any]]) -> Values:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(values)), strict=True))


class _EnginePart:
    """A part as an engine; ONNX Runtime takes the calls whose sizes the engine was not built for."""

    def __init__(self, target: Runtime, part: Part, folder: Path, threads: int, device: str) -> None:
        from components.core.runtimes.engine_part import EnginePart
        from components.core.runtimes.tensorrt_engine import deserialize

        self._part = part
        self._engine = EnginePart(*deserialize(target, folder / str(part.engine)), device)
        self._instead = _OnnxPart(part, folder, threads)

    def run(self, values: Mapping[str, npt.NDArray[Any]]) -> Values:
        return self._engine.run(values) if self._fits(values) else self._instead.run(values)

    def _fits(self, values: Mapping[str, npt.NDArray[Any]]) -> bool:
        return all(
            one.minimum[axis] <= size <= one.maximum[axis]
            for name, one in self._part.profiles.items()
            for axis, size in enumerate(np.shape(values[name]))
        )


class PlanSession:
    """A model of some task that runs by a plan."""

    def __init__(self, runner: PlanRunner, adapter: TaskAdapter) -> None:
        self._runner = runner
        self._adapter = adapter
        plan = runner.plan
        if not 1 <= len(plan.inputs) <= len(adapter.inputs) or len(plan.outputs) < len(adapter.outputs):
            raise StepError(
                f"the plan is of a model with {len(plan.inputs)} inputs and {len(plan.outputs)} outputs; "
                f"accepted: {', '.join(adapter.inputs)}, and {', '.join(adapter.outputs)}"
            )
        self._inputs = plan.inputs
        self._outputs = output_names(adapter, [tensor.name for tensor in plan.outputs])

    def run(self, batch: Batch) -> list[Any]:
        """See `Session.run`. Copies between the parts are in the call."""
        values = feed(batch, [tensor.name for tensor in self._inputs])
        for tensor in self._inputs:
            # Torchvision's own exports take one image without the batch axis.
            if tensor.shape is not None and len(tensor.shape) == values[tensor.name].ndim - 1:
                values[tensor.name] = values[tensor.name][0]
        found = self._runner.run(values, self._outputs)
        return self._adapter.predictions(size_of(batch), [found[name] for name in self._outputs])


def load(variant: Variant, folder: Path, job: Job | None, bundle: Path | None, threads: int) -> PlanSession:
    """See `load_session`. `variant.file` is the plan; its parts lie beside it.

    Raises:
        StepError: a part does not load.
    """
    path = folder / str(variant.file)
    device = job.target.device if job else None
    if variant.runtime is Runtime.ONNXRUNTIME:
        device = "cpu"
    return PlanSession(PlanRunner(read_plan(path), path.parent, threads, device), adapter_for(job, bundle))
