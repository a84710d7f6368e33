"""Ways to damage an ONNX file; a case is a number, and the same number always makes the same damage."""

from typing import NamedTuple

import numpy as np
import onnx
from fuzz_seeds import SEEDS, content
from google.protobuf.message import DecodeError, Message

_EXTREMES = (0, -1, 1, 2, 7, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63), 1 << 40)
_NAMES = ("", "x", "y", "a", "\x00", "gone", "s" * 300)


class Damaged(NamedTuple):
    """One case."""

    seed: str
    way: str
    model: bytes
    data: bytes


def damaged(number: int) -> Damaged:
    """Case `number`: a seed and a way, both in turn, and the rest by chance."""
    rng = np.random.default_rng(number)
    way, seed = _TURNS[number % len(_TURNS)], SEEDS[(number // len(_TURNS)) % len(SEEDS)].__name__
    model, data = content(seed)
    return Damaged(seed, way, _WAYS[way](model, rng), data if rng.random() < 0.8 else data[: rng.integers(0, 64)])


def _flipped(model: bytes, rng: np.random.Generator) -> bytes:
    values = np.frombuffer(model, np.uint8).copy()
    for position in rng.integers(0, len(values), rng.integers(1, 6)):
        values[position] ^= np.uint8(1 << rng.integers(0, 8))
    return values.tobytes()


def _truncated(model: bytes, rng: np.random.Generator) -> bytes:
    return model[: rng.integers(0, len(model))]


def _spliced(model: bytes, rng: np.random.Generator) -> bytes:
    """The beginning of one file and the end of another, or of itself."""
    other, _ = content(SEEDS[rng.integers(0, len(SEEDS))].__name__)
    return model[: rng.integers(0, len(model))] + other[rng.integers(0, len(other)) :]


def _shifted(model: bytes, rng: np.random.Generator) -> bytes:
    """A stretch taken out, or put in a second time somewhere else."""
    start, end = sorted(rng.integers(0, len(model), 2))
    if rng.random() < 0.5:
        return model[:start] + model[end:]
    at = rng.integers(0, len(model))
    return model[:at] + model[start:end] + model[at:]


def _changed(model: bytes, rng: np.random.Generator) -> bytes:
    """Sound protobuf with one to three fields that make no sense: numbers, names, operators, left-out parts."""
    proto = onnx.load_from_string(model)
    for _ in range(rng.integers(1, 4)):
        messages = list(_messages(proto))
        message = messages[rng.integers(0, len(messages))]
        fields = [field for field, _ in message.ListFields()]
        if fields:
            _change(message, fields[rng.integers(0, len(fields))], rng)
    try:
        return bytes(proto.SerializeToString())
    except (DecodeError, ValueError):
        return model


def _grafted(model: bytes, rng: np.random.Generator) -> bytes:
    """Sound protobuf: nodes and weights of another seed among those of this one, some of them joined to it."""
    proto = onnx.load_from_string(model)
    other = SEEDS[rng.integers(0, len(SEEDS))]().graph
    names = [name for node in proto.graph.node for name in (*node.input, *node.output)]
    for node in other.node:
        if rng.random() < 0.6:
            graft = proto.graph.node.add()
            graft.CopyFrom(node)
            for at in range(len(graft.input)):
                if rng.random() < 0.3:
                    graft.input[at] = names[rng.integers(0, len(names))]
    proto.graph.initializer.extend(tensor for tensor in other.initializer if rng.random() < 0.7)
    proto.graph.output.extend(value for value in other.output if rng.random() < 0.5)
    order = rng.permutation(len(proto.graph.node)) if rng.random() < 0.3 else range(len(proto.graph.node))
    nodes = [proto.graph.node[at] for at in order]
    mixed = onnx.ModelProto()
    mixed.CopyFrom(proto)
    del mixed.graph.node[:]
    mixed.graph.node.extend(nodes)
    return bytes(mixed.SerializeToString())


def _messages(message: Message):
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if field.is_repeated else [value]:
                yield from _messages(one)


def _change(message: Message, field, rng: np.random.Generator) -> None:
    value = getattr(message, field.name)
    kind = field.cpp_type
    fresh: object = None
    if kind == field.CPPTYPE_STRING and field.type == field.TYPE_STRING:
        operators = [node.op_type for make in SEEDS for node in make().graph.node]
        fresh = operators[rng.integers(0, len(operators))] if field.name == "op_type" else _NAMES[rng.integers(0, 7)]
    elif kind in (field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_UINT64):
        fresh = _EXTREMES[rng.integers(0, len(_EXTREMES))]
        fresh = fresh if kind != field.CPPTYPE_INT32 else int(np.clip(fresh, -(2**31), 2**31 - 1))
        fresh = fresh if kind != field.CPPTYPE_UINT64 else abs(fresh)
    elif kind == field.CPPTYPE_FLOAT:
        fresh = float(rng.choice([np.nan, np.inf, -np.inf, 0, -1, 1e38]))
    if field.is_repeated:
        at = rng.integers(0, len(value))
        if fresh is None or rng.random() < 0.3:
            del value[at]
        else:
            value[at] = fresh
    elif fresh is None or rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, fresh)


_WAYS = {
    "bits flipped": _flipped,
    "fields changed": _changed,
    "truncated": _truncated,
    "spliced": _spliced,
    "shifted": _shifted,
    "grafted": _grafted,
}
# Sound protobuf with senseless content gets further than damaged bytes do.
_TURNS = (*_WAYS, "fields changed", "grafted", "fields changed", "grafted")
