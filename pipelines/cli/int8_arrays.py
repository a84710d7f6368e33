"""`hasten int8 --calibration`: what is checked before, and how the result is shown."""

import json
from pathlib import Path
from typing import Any

from components.core.errors import UserError
from pipelines.int8_file import METRICS, Wishes, quantize_file
from pipelines.single_step import output_folder

RESULT = "int8_result.json"


def quantize_with_arrays(model: Path, calibration: Path, out: Path, wishes: Wishes) -> dict[str, Any]:
    """Writes the INT8 file and `RESULT` to `out`, or nothing.

    Raises:
        UserError: a wish that makes no sense, or a file that cannot be used.
        StepError: FP32 does not run, or nothing could be written.
    """
    if wishes.metric not in METRICS:
        raise UserError(f"--metric: given {wishes.metric!r}, accepted: {', '.join(METRICS)}")
    if wishes.max_accuracy_drop is not None and wishes.metric != "top1":
        raise UserError("--max-accuracy-drop: needs --metric top1; with sqnr give --min-sqnr")
    if model.suffix != ".onnx":
        raise UserError(f"{model}: given {model.suffix or 'no suffix'}, accepted: .onnx")
    with output_folder(out) as folder:
        result = quantize_file(model, calibration, folder, wishes, lambda path: _moved(path, folder, out))
        (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n")
    return result


def _moved(path: Path, folder: Path, out: Path) -> Path:
    return out / path.relative_to(folder) if path.is_relative_to(folder) else path


def table(result: dict[str, Any]) -> str:
    """A line a row, and the pick."""
    lines = []
    for row in result["rows"]:
        over = f"{row['over_fp32']['ratio']:.2f}x" if row["over_fp32"] else "-"
        time = f"{row['p50_ms']:.2f} ms" if row["p50_ms"] is not None else "-"
        noise = f"{row['sqnr_db']:.1f} dB" if row["sqnr_db"] is not None else "-"
        size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else ""
        lines.append(
            f"{row['id']:<34} {time:>10} {over:>7} {noise:>9} {size:>9}  {row['status']}  {row['reason']}".rstrip()
        )
    pick = result["pick"]
    options = "".join(f" {key}={value}" for key, value in pick["options"].items())
    verdict = "pick" if result["met"] else "no INT8 form wins; the best is"
    return "\n".join([*lines, f"{verdict}: {pick['id']}  {pick['file']}{options}"])
