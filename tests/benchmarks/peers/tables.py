"""The comparison as Markdown."""

from typing import Any

_UNITS = {"sqnr": "SQNR dB", "map": "mAP"}


def markdown(document: dict[str, Any]) -> str:
    """A table a model, and under it who is ahead."""
    machine = document["machine"]
    peers = "; ".join(f"{name}: {words}" for name, words in machine["peers"].items() if words)
    own = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    loads = [row["load_before"] for one in document["models"].values() for row in one.get("rows", [])]
    parts = [
        "# INT8 beside other tools\n",
        "Written by `make bench-peers`. `p50` is milliseconds of a call by the clock, `processor` its processor time; "
        "ratios are of processor time, round by round, with their 95% interval. Seconds, processor seconds and memory "
        "are those of the quantization. Files of all tools run in hasten's runtimes. Random weights are judged by SQNR "
        "against FP32, trained detectors by mAP (IoU 0.50 to 0.95) on 32 test images at most.\n",
        f"{machine['cores']} cores {machine['cpu']}, {machine['threads']} thread a competitor, "
        f"{machine['rounds']} to {2 * machine['rounds']} rounds of {machine['round_time']:g} s; {own}, "
        f"Python {machine['python']}. Peers: {peers}.\n",
    ]
    if loads and max(loads) > machine["cores"]:
        parts.append(
            f"**The machine was shared**: its load was {min(loads):.0f} to {max(loads):.0f} on {machine['cores']} "
            "cores. Times by the clock are several times what they are on a quiet machine; processor time is less "
            "disturbed, not undisturbed.\n"
        )
    for name, one in document["models"].items():
        parts.append(_model(name, one))
    return "\n".join(parts)


def _model(name: str, one: dict[str, Any]) -> str:
    if "error" in one:
        return f"## {name}\n\nfailed: {one['error']}\n"
    heads = (
        *("", "p50 ms", "processor ms", "over ONNX Runtime FP32", "hasten over it", _UNITS[one["metric"]]),
        *("quantized in s", "processor s", "peak MB", "file MB", "of FP32"),
    )
    lines = [f"## {name}\n", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [_line(row, len(heads)) for row in one["rows"]]
    return "\n".join([*lines, "", verdict(one["rows"]), ""])


def _line(row: dict[str, Any], count: int) -> str:
    label = f"{row['competitor']} (`{row['form']}`)" if row["form"] else row["competitor"]
    if "error" in row:
        return f"| {label} | failed: {row['error'].replace('|', '/')} " + "| " * (count - 2) + "|"
    cells = (
        label,
        f"{row['p50_ms']:.2f}",
        f"{row['processor_ms']:.2f}",
        _ratio(row["over_onnxruntime"]),
        _ratio(row.get("hasten_over_it")),
        _accuracy(row["accuracy"]),
        _number(row["seconds"], 0),
        _number(row["processor_seconds"], 0),
        _number(row["peak_bytes"] and row["peak_bytes"] / 1e6, 0),
        _number(row.get("bytes") and row["bytes"] / 1e6, 1),
        f"{row['share_of_fp32']:.1%}" if row.get("share_of_fp32") else "-",
    )
    return "| " + " | ".join(cells) + " |"


def verdict(rows: list[dict[str, Any]]) -> str:
    """How hasten's pick stands beside the fastest INT8 of the others."""
    ran = [row for row in rows if "error" not in row]
    hasten = next((row for row in ran if row["competitor"] == "hasten"), None)
    others = [row for row in ran if row["seconds"] and row is not hasten]
    if hasten is None or not others:
        return "No comparison: " + ("hasten failed." if hasten is None else "no other tool made a model that runs.")
    best = max(others, key=lambda row: row["over_onnxruntime"]["ratio"])
    ratio = best["hasten_over_it"]
    faster = "at least as fast as" if ratio["ci_high"] >= 0.98 and ratio["ratio"] >= 0.98 else "slower than"
    accuracy = "not less" if hasten["accuracy"] >= best["accuracy"] else "less"
    return (
        f"hasten's pick is {faster} the fastest of the others, {best['competitor']} ({_ratio(ratio)}), "
        f"with {accuracy} accuracy ({_accuracy(hasten['accuracy'])} and {_accuracy(best['accuracy'])})."
    )


def _ratio(ratio: dict[str, float] | None) -> str:
    return f"{ratio['ratio']:.2f} ({ratio['ci_low']:.2f} to {ratio['ci_high']:.2f})" if ratio else "-"


def _accuracy(value: float) -> str:
    """Decibels have one digit, a precision three; a precision is at most 1, decibels of a usable model are more."""
    if value >= 200:
        return "same bits"
    return f"{value:.1f}" if value > 1 or value < 0 else f"{value:.3f}"


def _number(value: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" if value else "-"
