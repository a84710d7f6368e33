"""Types and shapes of a model's tensors, and the values they take: what a border between two parts must declare."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime

from components.core.contracts.run_plan import PlanTensor, Profile
from components.surgery.evaluate import EvaluationError, Model
from components.surgery.feeds import DIMENSIONS, feed, inputs_of
from components.surgery.graphs import infer_shapes

Feed = dict[str, np.ndarray]
ENGINE_TYPES = frozenset(
    getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "INT32", "INT64", "INT8", "BOOL")
)
"""Element types that an engine takes and gives, and NumPy has."""
INNER_TYPES = ENGINE_TYPES | {
    getattr(onnx.TensorProto, name)
    for name in ("BFLOAT16", "FLOAT8E4M3FN", "INT4", "FLOAT4E2M1")
    if hasattr(onnx.TensorProto, name)
}
"""Element types that may occur inside an engine, between QuantizeLinear and DequantizeLinear."""
_RANDOM_SEEDS = (0, 1)
_OBSERVED = 4
"""Inputs that the model is run on to see sizes."""
_MOST_ROWS, _MOST_ELEMENTS = 1024, 2**26
_WORDS = ("tree", "Apple", "b", "", "an owl")


class UnseenError(Exception):
    """Nothing is known of the sizes of a tensor.

    Args:
        name: the tensor.
        why: in words.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


@dataclass
class Tensors:
    """What is known of the tensors of one model.

    Args:
        model: the model.
        given: inputs of the user's; without any, random ones are made.
    """

    model: onnx.ModelProto
    given: Sequence[Feed] = ()
    _values: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    _shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    _tried: set[str] = field(default_factory=set)
    _feeds: list[Feed] | None = None
    why_no_feed: str = ""
    """Why the model could not be run here."""

    def __post_init__(self) -> None:
        graph = self.model.graph
        inferred = infer_shapes(self.model).graph
        known = (*graph.value_info, *graph.input, *graph.output, *inferred.value_info, *inferred.output)
        for value in known:
            if value.name not in self._values or value.type.tensor_type.HasField("shape"):
                self._values[value.name] = value
        for tensor in graph.initializer:
            self._values[tensor.name] = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)

    def learn_types(self, names: Collection[str]) -> None:
        """Asks ONNX Runtime for the types that shape inference does not know."""
        unknown = [name for name in names if not self._element_type(name) and not self.is_no_tensor(name)]
        if not unknown:
            return
        widened = onnx.ModelProto()
        widened.CopyFrom(self.model)
        outputs = {value.name for value in widened.graph.output}
        widened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in unknown if name not in outputs)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                widened.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception:  # too large, or an operator that ONNX Runtime does not know: the types stay unknown
            return
        for output in session.get_outputs():
            if output.name in unknown:
                self._learn(output.name, output.type)

    def _learn(self, name: str, words: str) -> None:
        value = onnx.ValueInfoProto(name=name)
        kind = words.removeprefix("tensor(").removesuffix(")")
        number = _ORT_NAMES.get(kind)
        if number is not None:
            value.type.tensor_type.elem_type = number
        elif words.startswith("seq"):
            value.type.sequence_type.elem_type.tensor_type.elem_type = 0
        else:
            value.type.optional_type.elem_type.tensor_type.elem_type = 0
        self._values[name] = value

    def _element_type(self, name: str) -> int:
        value = self._values.get(name)
        return value.type.tensor_type.elem_type if value is not None and value.type.HasField("tensor_type") else 0

    def is_no_tensor(self, name: str) -> bool:
        """Whether it is a sequence, an optional or a map."""
        value = self._values.get(name)
        return value is not None and value.type.WhichOneof("value") not in (None, "tensor_type")

    def unfit(self, name: str, types: Collection[int] = INNER_TYPES) -> str:
        """Why an engine cannot have this tensor; empty where it can."""
        if self.is_no_tensor(name):
            kind = str(self._values[name].type.WhichOneof("value")).removesuffix("_type")
            return f"{name!r} is a {kind}, and TensorRT has tensors only"
        number = self._element_type(name)
        if not number:
            return f"the type of {name!r} is not known"
        return "" if number in types else f"{name!r} is of type {type_name(number)}, which TensorRT does not have"

    def value(self, name: str) -> onnx.ValueInfoProto:
        """The tensor's type, and its shape as far as it is known; a rank that was only seen in a run is declared."""
        value = onnx.ValueInfoProto(name=name)
        if name in self._values:
            value.CopyFrom(self._values[name])
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and not kind.HasField("shape") and name in self._shapes:
            kind.shape.CopyFrom(onnx.TensorShapeProto())
            for axis in range(len(self._shapes[name][0])):
                kind.shape.dim.add(dim_param=f"{name}_{axis}")
        return value

    def plan_tensor(self, name: str) -> PlanTensor:
        """The tensor as the plan lists it."""
        value = self.value(name)
        if not value.type.HasField("tensor_type"):
            return PlanTensor(name=name, type=str(value.type.WhichOneof("value") or "unknown"), shape=None)
        kind = value.type.tensor_type
        shape = [_size(dimension) for dimension in kind.shape.dim] if kind.HasField("shape") else None
        return PlanTensor(name=name, type=type_name(kind.elem_type), shape=shape)

    def feeds(self) -> list[Feed]:
        """Inputs that the model runs on: the user's, else random ones; none where it does not run here."""
        if self._feeds is None:
            self._feeds = list(self.given) or self._random_feeds()
        return self._feeds

    def random_feeds(self) -> list[Feed]:
        """Random inputs, in the sizes that the model was found to take."""
        return self._random_feeds() if self.given else self.feeds()

    def _random_feeds(self) -> list[Feed]:
        try:
            model = Model(self.model)
            values = inputs_of(self.model)
        except EvaluationError as error:
            self.why_no_feed = str(error)
            return []
        fixed = {name: value.shape for name, value in (self.given[0] if self.given else {}).items()}
        for dimension in DIMENSIONS:
            try:
                feeds = [_random(values, seed, dimension, fixed) for seed in _RANDOM_SEEDS]
                for one in feeds:
                    model(one)
            except (EvaluationError, ValueError, KeyError, TypeError) as error:
                self.why_no_feed = " ".join(str(error).split())[:300]
            else:
                return feeds
        return []

    def observe(self, names: Collection[str]) -> None:
        """Runs the model to see the shapes of these tensors."""
        wanted = [name for name in names if name not in self._tried and not self.is_no_tensor(name)]
        self._tried |= set(wanted)
        if not wanted or not self.feeds():
            return
        try:
            model = Model(self.model, wanted)
            for feed in self.feeds()[:_OBSERVED]:
                found = {**feed, **model(feed)}
                for name in wanted:
                    self._shapes.setdefault(name, []).append(np.shape(found[name]))
        except EvaluationError:
            return

    def was_empty(self, name: str) -> bool:
        """Whether the tensor had no elements in a run that `observe` saw."""
        return any(0 in shape for shape in self._shapes.get(name, ()))

    def open_inputs(self, names: Sequence[str]) -> list[str]:
        """Those whose rank or sizes are not all known."""
        return [name for name in names if any(isinstance(size, str) for size in self.plan_tensor(name).shape or ["?"])]

    def profiles(self, names: Sequence[str], *, fixed: bool = False) -> dict[str, Profile]:
        """Sizes to build an engine for, at inputs with open ones.

        Args:
            names: the engine's inputs.
            fixed: only the sizes that were seen in a run.

        Raises:
            UnseenError: the sizes of an input could not be seen.
        """
        found: dict[str, Profile] = {}
        for name in self.open_inputs(names):
            shape = self.plan_tensor(name).shape
            if name not in self._shapes or shape is None or len(shape) != len(self._shapes[name][0]):
                raise UnseenError(name, f"the sizes of {name!r} are open and could not be seen in a run")
            usual = [
                max(*sizes, 1) for sizes in zip(*self._shapes[name], strict=True)
            ]  # an engine takes no empty tensor
            least, most = (usual, usual) if fixed else _range(shape, usual)
            found[name] = Profile(minimum=least, usual=usual, maximum=most)
        return found


def _range(shape: Sequence[int | str], usual: Sequence[int]) -> tuple[list[int], list[int]]:
    """Least and most of each size: up to 1024 rows, or four times the sides seen, while that is a usable tensor."""
    open_axes = [axis for axis, size in enumerate(shape) if isinstance(size, str)]
    least = [1 if axis in open_axes else size for axis, size in enumerate(usual)]
    most = list(usual)
    for axis in open_axes:
        most[axis] = max(usual[axis], _MOST_ROWS if axis == 0 else 4 * usual[axis])
    while np.prod(most, dtype=np.float64) > _MOST_ELEMENTS and any(most[axis] > usual[axis] for axis in open_axes):
        for axis in open_axes:
            most[axis] = max(usual[axis], most[axis] // 2)
    return least, most


def _random(
    values: Sequence[onnx.ValueInfoProto], seed: int, dimension: int, fixed: Mapping[str, Sequence[int]]
) -> Feed:
    plain = []
    words: Feed = {}
    for value in values:
        one = onnx.ValueInfoProto()
        one.CopyFrom(value)
        for axis, size in enumerate(fixed.get(value.name, ())):
            one.type.tensor_type.shape.dim[axis].dim_value = size
        kind = one.type.tensor_type
        if kind.elem_type == onnx.TensorProto.STRING:
            shape = [size.dim_value if size.HasField("dim_value") else dimension for size in kind.shape.dim]
            words[value.name] = np.random.default_rng(seed).choice(np.array(_WORDS, object), shape)
        else:
            plain.append(one)
    return feed(plain, seed, dimension) | words


def _size(dimension: onnx.TensorShapeProto.Dimension) -> int | str:
    if dimension.HasField("dim_value") and dimension.dim_value >= 0:
        return dimension.dim_value
    return dimension.dim_param or "?"


def type_name(number: int) -> str:
    """``float``, ``int64``, ``uint8`` ... as ONNX calls them."""
    return str(onnx.TensorProto.DataType.Name(number)).lower()


_ORT_NAMES = {type_name(number): number for number in onnx.TensorProto.DataType.values() if number}
"""What ONNX Runtime calls the types."""
