"""How the time of surgery grows with the graph, and what a stock Faster R-CNN takes.

``python tests/benchmarks/surgery_scaling.py [--nodes N ...] [--repeat N] [--out FILE.svg]``. The graphs are those of
``large_graphs.py``: layers, Constants, shape arithmetic and, in every seventh block, a row of the table. The time is
that of `operate` with the proof, in seconds on the wall; of several repetitions the median.
"""

import argparse
import io
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "components" / "surgery"), str(Path(__file__).parents[2])]

import onnx  # noqa: E402
from large_graphs import large_graph  # noqa: E402

from components.core.contracts.job import Runtime  # noqa: E402
from components.core.machine import cpu_model, usable_cores  # noqa: E402
from components.surgery.operate import operate  # noqa: E402

NODES = (500, 1000, 2000, 5000, 10000, 20000)
TARGETS = (Runtime.TENSORRT_RTX, Runtime.OPENVINO)
PLOT = Path(__file__).parents[2] / "components" / "surgery" / "scaling.svg"
LIMIT = 15.0
"""Seconds that the stock detector may take."""
_DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
_PACKAGES = ("onnx", "onnx_graphsurgeon", "onnxruntime", "torchvision")


@dataclass(frozen=True)
class Point:
    """One graph, operated on for one runtime."""

    graph: str
    target: Runtime
    nodes: int
    nodes_after: int
    seconds: float

    @property
    def per_thousand(self) -> float:
        """Seconds for 1000 nodes."""
        return 1000 * self.seconds / self.nodes


def stock_detector() -> onnx.ModelProto:
    """torchvision's Faster R-CNN with its own tail, as TorchScript's exporter writes it."""
    import torch
    from torchvision.models import detection

    torch.manual_seed(0)
    model = getattr(detection, _DETECTOR)(weights=None, weights_backbone=None).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, ([torch.rand(3, 320, 320)],), buffer, dynamo=False, opset_version=17)
    return onnx.load_from_string(buffer.getvalue())


def measure(graph: str, model: onnx.ModelProto, target: Runtime, repeat: int) -> Point:
    """The median time of several operations on one model."""
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        _, report = operate(model, target)
        seconds.append(time.perf_counter() - started)
    return Point(graph, target, len(model.graph.node), report.nodes_after, statistics.median(seconds))


def row(point: Point) -> str:
    """One line of the table."""
    return (
        f"{point.graph:<44} {point.target:<13} {point.nodes:>6} {point.nodes_after:>6} "
        f"{point.seconds:>8.2f} {point.per_thousand:>12.2f}"
    )


def plot(points: Sequence[Point], stock: Sequence[Point], path: Path, words: str) -> None:
    """Draws seconds over nodes, with a line of the first target's least time a node."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "hasten"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for target in TARGETS:
        own = [point for point in points if point.target is target]
        axes.plot([point.nodes for point in own], [point.seconds for point in own], marker="o", label=f"mix, {target}")
    for point in stock:
        axes.plot(point.nodes, point.seconds, marker="*", markersize=11, linestyle="", label=f"stock, {point.target}")
    most = max(point.nodes for point in points)
    slope = max(point.per_thousand for point in points if point.nodes == most) / 1000
    axes.plot([0, most], [0, slope * most], color="gray", linewidth=0.8, linestyle="--", label="linear")
    axes.set(xlabel="nodes", ylabel="seconds, with proof", title=words, xlim=(0, None), ylim=(0, None))
    axes.title.set_fontsize(8)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measures, prints the table and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=PLOT)
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    words = f"{cpu_model()}, {usable_cores()} cores, Python {platform.python_version()}, {packages}"
    print(words)
    print(f"{'graph':<44} {'target':<13} {'nodes':>6} {'after':>6} {'seconds':>8} {'s/1000 nodes':>12}", flush=True)
    operate(large_graph(200), TARGETS[0])  # the first one pays for imports
    points, stock = [], []
    for count in arguments.nodes:
        model = large_graph(count)
        for target in TARGETS:
            points.append(measure("mix", model, target, arguments.repeat))
            print(row(points[-1]), flush=True)
    model = stock_detector()
    for target in TARGETS:
        stock.append(measure(_DETECTOR, model, target, arguments.repeat))
        print(row(stock[-1]), flush=True)
    plot(points, stock, arguments.out, words)
    print(f"plot: {arguments.out}")
    slow = [point for point in stock if point.seconds > LIMIT]
    sys.exit(f"above {LIMIT} s: {', '.join(point.target for point in slow)}" if slow else 0)


if __name__ == "__main__":
    main()
