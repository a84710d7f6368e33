"""A run plan as a page for people."""

from components.core.contracts.run_plan import LeftNode, Part, PlanTensor, RunPlan
from components.core.formats import markdown, runtime_name

_SHOWN = 50


def to_markdown(plan: RunPlan) -> str:
    """The plan: parts in running order, what crosses their borders, and why the remainder is no engine."""
    lines = [
        f"# Run plan of {markdown(plan.model)}",
        "",
        f"For {runtime_name(plan.target)}: {plan.summary()}. Decided by {markdown(plan.asked)}.",
        "",
        _proof(plan),
        "",
        *([f"Note: {markdown(plan.note)}.", ""] if plan.note else []),
        "| part | runs in | nodes | work | reads | makes | file |",
        "|---|---|---|---|---|---|---|",
        *map(_part, plan.parts),
        "",
    ]
    if any(part.profiles for part in plan.parts):
        lines += [
            "## Sizes that the engines take",
            "",
            "| part | input | least | usual | most |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {part.id} | {markdown(name)} | {one.minimum} | {one.usual} | {one.maximum} |"
            for part in plan.parts
            for name, one in part.profiles.items()
        ]
        lines.append("")
    if plan.left:
        lines += ["## What no engine takes", "", "| part | node | operator | why |", "|---|---|---|---|"]
        left = [(part, node) for part in plan.parts for node in part.left]
        lines += [_left(part, node) for part, node in left[:_SHOWN]]
        lines += [f"| | and {len(left) - _SHOWN} more, see run_plan.json | | |"] if len(left) > _SHOWN else []
        lines.append("")
    return "\n".join(lines)


def _proof(plan: RunPlan) -> str:
    proof = plan.proof
    if proof.max_error is None:
        return f"The parts were not compared with the whole model: {markdown(proof.note)}."
    given = f" and {proof.given_inputs} given" if proof.given_inputs else ""
    return (
        f"Run part by part in ONNX Runtime on the CPU, {proof.random_inputs} random{given} inputs gave what the whole "
        f"model gives; largest relative error {proof.max_error:.1e}."
    )


def _part(part: Part) -> str:
    work = ", ".join(f"{count} {operator}" for operator, count in part.work.items()) or "-"
    if part.small:
        work += f"; {part.small} nodes too little for an engine"
    cells = (
        part.id,
        runtime_name(part.runtime),
        part.nodes,
        work,
        _names(part.inputs),
        _names(part.outputs),
        part.file,
    )
    return "| " + " | ".join(markdown(cell) for cell in cells) + " |"


def _names(tensors: list[PlanTensor]) -> str:
    shown = ", ".join(f"{one.name} {one.type} {one.shape if one.shape is not None else '?'}" for one in tensors[:8])
    return f"{shown} and {len(tensors) - 8} more" if len(tensors) > 8 else shown or "-"


def _left(part: Part, left: LeftNode) -> str:
    return "| " + " | ".join(markdown(cell) for cell in (part.id, left.node, left.operator, left.why)) + " |"
