"""A run plan: one model as parts that run one after the other, as TensorRT engines and in ONNX Runtime."""

from pathlib import Path

from pydantic import Field

from components.core.contracts.base import Contract
from components.core.contracts.job import Runtime

RUN_PLAN = "run_plan.json"
"""Name of the file; by it, other steps know that a model is a plan and not one file."""


class PlanTensor(Contract):
    """A tensor at the border of a part, or of the whole model."""

    name: str
    type: str = Field(description="ONNX's name of the element type, for instance `float` or `int64`")
    shape: list[int | str] | None = Field(description="a text where the size is open; null: even the rank is unknown")


class LeftNode(Contract):
    """A node that no engine takes, and why."""

    node: str
    operator: str
    why: str


class Profile(Contract):
    """Sizes that an engine was built for at one of its inputs whose dimensions are open."""

    minimum: list[int]
    usual: list[int]
    maximum: list[int]


class Part(Contract):
    """A part of the model: one ONNX file, and its engine where one was built."""

    id: str = Field(description="`part-00`, `part-01`, ... in the order of running")
    runtime: Runtime = Field(description="the plan's target for an engine part, `onnxruntime` for the remainder")
    file: str = Field(description="ONNX file, relative to the plan")
    engine: str | None = Field(default=None, description="engine file, relative to the plan")
    sha256: dict[str, str] = Field(description="file -> hex sha256: ONNX file, its external data, engine")
    inputs: list[PlanTensor]
    outputs: list[PlanTensor]
    nodes: int
    work: dict[str, int] = Field(description="operator -> how many, of those that are worth an engine")
    profiles: dict[str, Profile] = Field(default_factory=dict, description="of the engine's inputs with open sizes")
    left: list[LeftNode] = Field(default_factory=list, description="of a remainder: what no engine takes, and why")
    small: int = Field(
        default=0, description="of a remainder: nodes that the parser takes, too little work for an engine"
    )


class PlanProof(Contract):
    """How the plan, run part by part in ONNX Runtime on the CPU, compares with the whole model."""

    random_inputs: int = Field(description="how many random inputs were compared")
    given_inputs: int = Field(description="how many inputs of the user's were compared")
    max_error: float | None = Field(
        description="largest relative error of a float output; integers and booleans were equal. None: not compared"
    )
    note: str = Field(default="", description="why it was not compared")


class RunPlan(Contract):
    """How to run one model in parts. `run_plan.json`, with the parts beside it."""

    model: str = Field(description="file name of the model that was cut")
    model_sha256: str
    target: Runtime = Field(description="runtime of the engine parts")
    asked: str = Field(description="parser and builder that decided, with the version")
    inputs: list[PlanTensor]
    outputs: list[PlanTensor]
    parts: list[Part] = Field(description="in the order of running")
    proof: PlanProof
    note: str = Field(default="", description="what is worth knowing of how the plan was found")

    @property
    def engine_parts(self) -> list[Part]:
        """The parts meant for TensorRT."""
        return [part for part in self.parts if part.runtime is not Runtime.ONNXRUNTIME]

    @property
    def remainder(self) -> list[Part]:
        """The parts that stay in ONNX Runtime."""
        return [part for part in self.parts if part.runtime is Runtime.ONNXRUNTIME]

    @property
    def left(self) -> list[LeftNode]:
        """Every node that no engine takes."""
        return [node for part in self.parts for node in part.left]

    def files(self) -> dict[str, str]:
        """Every file of the plan but itself -> hex sha256."""
        return {name: digest for part in self.parts for name, digest in part.sha256.items()}

    def summary(self) -> str:
        """One line: how many engine parts, and what is left for ONNX Runtime."""
        engines, rest = len(self.engine_parts), sum(part.nodes for part in self.remainder)
        inside = sum(part.nodes for part in self.engine_parts)
        if not engines:
            return f"no engine part: all {rest} nodes run in ONNX Runtime"
        parts = f"{engines} engine part{'s' if engines > 1 else ''} with {inside} of {inside + rest} nodes"
        return f"{parts}, the rest in ONNX Runtime" if rest else parts

    @staticmethod
    def read(path: Path) -> "RunPlan":
        """Reads a plan's file."""
        return RunPlan.model_validate_json(path.read_text())
