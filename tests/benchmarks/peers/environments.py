"""An environment a peer, made when it is first needed: their pins clash with one another and with hasten's."""

import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "nncf": ["nncf", "openvino"],
    "onnxruntime": ["onnxruntime", "onnx", "sympy"],
    # 2.6 is the last release with the ONNX path; it wants older packages, and six, which it does not ask for.
    "neural-compressor": [
        *("neural-compressor==2.6", "numpy<2", "onnx<1.17", "onnxruntime<1.20", "setuptools<70", "six"),
    ],
    # Its telemetry imports requests, which it does not ask for.
    "olive": ["olive-ai", "onnxruntime", "requests"],
}
ENVIRONMENT_OF = {"nncf-accuracy-control": "nncf"}
_TIME_LIMIT = 1800.0


def python_of(tool: str, root: Path) -> Path:
    """The interpreter of a tool's environment, which is made where it is missing.

    Args:
        tool: of `quantize_with.TOOLS`.
        root: folder of the environments.

    Raises:
        RuntimeError: it cannot be installed; the last words of pip.
    """
    name = ENVIRONMENT_OF.get(tool, tool)
    folder = root / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", *PACKAGES[name]]
        done = subprocess.run(install, capture_output=True, text=True, timeout=_TIME_LIMIT, check=False)
        if done.returncode:
            raise RuntimeError(f"pip install {' '.join(PACKAGES[name])}: {done.stderr.strip()[-300:]}")
        listed = [str(python), "-m", "pip", "list", "--format", "freeze"]
        stamp.write_text(subprocess.run(listed, capture_output=True, text=True, check=True).stdout)
    return python


def versions(root: Path) -> dict[str, str]:
    """Versions of the peers that are installed."""
    wanted = {"nncf", "openvino", "onnxruntime", "neural_compressor", "neural-compressor", "olive-ai"}
    found = {}
    for name in PACKAGES:
        stamp = root / name / "installed"
        lines = stamp.read_text().splitlines() if stamp.exists() else []
        found[name] = ", ".join(line.replace("==", " ") for line in lines if line.partition("==")[0] in wanted)
    return found
