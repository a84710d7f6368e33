"""Numbers and names as a person reads them; the leaderboard's words and the report's tables say a number alike."""

import math
import re
import unicodedata
from collections.abc import Callable

from components.core.contracts.job import Metric, Runtime
from components.core.contracts.leaderboard import Candidate, Leaderboard

_METRICS = {Metric.MAP50: "mAP50", Metric.MAP: "mAP", Metric.ACCURACY: "accuracy", Metric.MACRO_F1: "macro F1"}
_RUNTIMES = {
    Runtime.TORCH: "PyTorch eager",
    Runtime.ONNXRUNTIME: "ONNX Runtime",
    Runtime.OPENVINO: "OpenVINO",
    Runtime.TENSORRT: "TensorRT",
    Runtime.TENSORRT_RTX: "TensorRT-RTX",
}
Form = Callable[[float, int], str]
"""A number and its significant digits -> text with the unit."""

_ACTIVE = re.compile(r"([\\`*_\[\]|~$])")
_HEADING_OR_BULLET = re.compile(r"^(?=[#+=-])")
_NUMBERED = re.compile(r"^(\d{1,9})(?=[.)](\s|$))")


def metric_name(metric: Metric) -> str:
    """``map50`` -> ``mAP50``."""
    return _METRICS.get(metric, str(metric))


def runtime_name(runtime: Runtime) -> str:
    """``onnxruntime`` -> ``ONNX Runtime``."""
    return _RUNTIMES.get(runtime, str(runtime))


def number(value: float, digits: int = 3) -> str:
    """`value` with that many significant digits; an exponent only below a millionth: ``23.3``, ``0.412``, ``1250``."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) < 1e-6:
        return f"{value:.{digits}g}"
    rounded_value = float(f"{value:.{digits - 1}e}")
    decimals = digits - 1 - math.floor(math.log10(abs(rounded_value)))
    return f"{rounded_value:.{max(decimals, 0)}f}"


def milliseconds(value: float, digits: int = 3) -> str:
    """``23.3 ms``."""
    return f"{number(value, digits)} ms"


def times(value: float, digits: int = 3) -> str:
    """``2.63x``."""
    return f"{number(value, digits)}x"


def per_second(value: float, digits: int = 3) -> str:
    """``42.9/s``."""
    return f"{number(value, digits)}/s"


def fraction(value: float, digits: int = 3) -> str:
    """An accuracy between 0 and 1 with that many decimals: ``0.421``."""
    # Adding 0.0 turns the -0.0 that a loss of -0.0001 rounds to into 0.0.
    return f"{round(value, digits) + 0.0:.{digits}f}" if math.isfinite(value) else str(value)


def size(value: float, digits: int = 3) -> str:
    """Bytes in decimal units: ``3.10 MB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{number(value / factor, digits)} {unit}"
    return f"{value:g} B"


def duration(seconds: float) -> str:
    """``3.2 s``, ``4 min 05 s``, ``2 h 10 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def apart(value: float, limit: float, form: Form) -> tuple[str, str]:
    """Both numbers with as many digits as tell them apart, so that no miss reads ``2.00x, 2.00x wanted``."""
    for digits in range(3, 10):
        texts = form(value, digits), form(limit, digits)
        if texts[0] != texts[1]:
            break
    return texts


def rounded(value: float, form: Form, *, up: bool) -> str:
    """`value` rounded up or down to three significant digits: a limit that `value` itself would meet."""
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 2) if value else 1.0
    # The small allowance keeps 3.11 at 3.11 although 3.11 / 0.01 is 310.99999999999994.
    steps = math.ceil(value / step - 1e-6) if up else math.floor(value / step + 1e-6)
    return form(steps * step, 3)


def as_limit(value: float, form: Form) -> str:
    """A limit that a person set, without the zeros of a measurement: ``2x``, ``20 ms``, ``16.8 MB``."""
    return re.sub(r"\.(?=\D|$)", "", re.sub(r"(\.\d*?)0+(?=\D|$)", r"\1", form(value, 3)))


def plain(text: object) -> str:
    """One printable line: control, direction-changing and unpaired characters become spaces."""
    kept = (" " if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char for char in str(text))
    return " ".join("".join(kept).split())


def markdown(text: object) -> str:
    """Text from outside as literal Markdown: one line, what would be markup, HTML or a link escaped; safe in a cell."""
    line = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _ACTIVE.sub(r"\\\1", line).replace("://", ":\\//")
    return _NUMBERED.sub(r"\1\\", _HEADING_OR_BULLET.sub(r"\\", line))


def mark(row: Candidate, board: Leaderboard) -> str:
    """What the row is, in one word; empty for a plain candidate."""
    if row.id == board.winner:
        return "winner"
    if row.id == board.baseline:
        return "baseline"
    if row.reference:
        return "yardstick"
    return "meets the goal" if row.meets_goal else ""
