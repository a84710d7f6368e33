"""The Job: what a user asks for. A YAML file on a laptop, pipeline parameters on a cluster."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from components.core.contracts.base import Contract
from components.core.contracts.units import Bytes, Milliseconds, PerSecond, Seconds, Speedup

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
"""Lower case letters, digits, dot, dash and underscore; safe in paths, S3 keys and Kubernetes names."""


class Task(StrEnum):
    """What the model does."""

    DETECTION = "detection"


class Runtime(StrEnum):
    """What executes a model."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class Rung(StrEnum):
    """A step of the ladder, cheapest first."""

    INT8 = "int8"
    FP16 = "fp16"
    AMP = "amp"
    BACKBONE = "backbone"

    @property
    def trains(self) -> bool:
        """Whether it makes a new model by training; the others compress the one that there is."""
        return self not in (Rung.INT8, Rung.FP16)


class Mode(StrEnum):
    """How far to climb."""

    STOP_WHEN_MET = "stop-when-met"
    EXHAUSTIVE = "exhaustive"


class Precision(StrEnum):
    """What a training step computes in; weights and their update stay FP32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Metric(StrEnum):
    """Accuracy on the test split, 0..1."""

    MAP50 = "map50"
    MAP = "map"


class ModelSource(Contract):
    """The trained model: a factory with weights, a ``.pt2`` or an ``.onnx`` file. Objects are never unpickled."""

    factory: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="`package.module:function` that returns the torch module, importable where the step runs",
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the factory")
    weights: str | None = Field(
        default=None, description="path or URI of a `.safetensors` file or a plain state dict (`.pt`, `.pth`)"
    )
    program: str | None = Field(default=None, description="path or URI of a `.pt2` file (torch.export)")
    onnx: str | None = Field(default=None, description="path or URI of an `.onnx` file")

    @model_validator(mode="after")
    def _exactly_one_entry(self) -> Self:
        given = [name for name in ("factory", "program", "onnx") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of factory, program, onnx; given: {', '.join(given) or 'none'}")
        if self.factory and not self.weights:
            raise ValueError("factory needs weights: the path of a .safetensors file or a plain state dict")
        if self.weights and not self.factory:
            raise ValueError("weights go with factory; a .pt2 or .onnx file holds its own")
        return self


class Split(Contract):
    """One detection split."""

    annotations: str = Field(description="path or URI of a COCO JSON file")
    images: str = Field(description="path or URI prefix of the folder that its `file_name`s are relative to")


class Data(Contract):
    """The data set. Accuracy is only ever reported on `test`; nothing is tuned on it."""

    train: Split = Field(description="calibration, tuning and, in the training rungs, training")
    test: Split = Field(description="accuracy is measured here")
    max_download: Bytes = Field(default=20e9, description="refuse to fetch more than this; for instance `20 GB`")


class Target(Contract):
    """Where the fast model will run."""

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="`cpu` or `cuda[:N]`")
    runtimes: list[Runtime] = Field(
        min_length=1, description="runtimes to try; each makes candidates of its own and the best is picked"
    )
    input_shape: tuple[int, int, int, int] = Field(description="[N, 3, H, W] in pixels; images are fitted into it")
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads; default: all cores")
    compute_capabilities: list[Annotated[str, StringConstraints(pattern=r"^\d{1,2}\.\d$")]] = Field(
        default_factory=list, description="GPUs an engine is built for, for instance `8.6`; default: the builder's own"
    )

    @model_validator(mode="after")
    def _sane_shape(self) -> Self:
        batch, channels, height, width = self.input_shape
        if batch < 1 or channels != 3 or not (32 <= height <= 8192 and 32 <= width <= 8192):
            raise ValueError(f"input_shape {list(self.input_shape)} is not [N >= 1, 3, 32..8192, 32..8192]")
        if len(set(self.runtimes)) != len(self.runtimes):
            raise ValueError("runtimes names the same runtime twice")
        return self

    @property
    def gpus(self) -> int:
        """How many an engine build or a benchmark uses."""
        return int(self.device != "cpu")


class Goal(Contract):
    """When the ladder may stop. Every limit that is given must hold at once."""

    min_speedup: Speedup | None = Field(
        default=None, description="p50 speed-up over the baseline as the user runs it, for instance `2x`"
    )
    max_p50: Milliseconds | None = Field(
        default=None, description="end-to-end p50 latency a batch, for instance `20 ms`"
    )
    max_p99: Milliseconds | None = Field(
        default=None, description="end-to-end p99 latency a batch, for instance `40 ms`"
    )
    min_throughput: PerSecond | None = Field(default=None, description="images a second, for instance `30/s`")
    max_size: Bytes | None = Field(default=None, description="size of the model file, for instance `16 MiB`")
    metric: Metric = Field(default=Metric.MAP50, description="accuracy that `max_accuracy_drop` is about")
    max_accuracy_drop: float = Field(
        ge=0, le=1, description="absolute drop of the metric (0..1) that may be paid; two points of mAP are 0.02"
    )

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        limits = ("min_speedup", "max_p50", "max_p99", "min_throughput", "max_size")
        if all(getattr(self, limit) is None for limit in limits):
            raise ValueError(f"give at least one of {', '.join(limits)}")
        if self.min_speedup is not None and self.min_speedup <= 1 and all(getattr(self, x) is None for x in limits[1:]):
            raise ValueError(f"min_speedup {self.min_speedup:g}x is met by the baseline itself; give more than 1x")
        if self.max_p50 and self.max_p99 and self.max_p99 < self.max_p50:
            raise ValueError(f"max_p99 ({self.max_p99:g} ms) is below max_p50 ({self.max_p50:g} ms)")
        return self

    def of_models(self) -> "Goal":
        """The goal as far as it decides how a model is made: its limits on speed and size are one fixed value."""
        return Goal(min_speedup=2.0, metric=self.metric, max_accuracy_drop=self.max_accuracy_drop)


class Ladder(Contract):
    """Which rungs to climb and how far."""

    rungs: list[Rung] = Field(default_factory=lambda: list(Rung), min_length=1, description="in the ladder's own order")
    mode: Mode = Mode.STOP_WHEN_MET


class Budget(Contract):
    """How much the run may cost. A limit that is used up, or would be, leaves the rungs above out."""

    max_time: Seconds | None = Field(
        default=None, description="wall clock of the whole run up to its last rung, for instance `4 h`"
    )
    max_core_time: Seconds | None = Field(
        default=None, description="processor time of all steps, summed over cores, for instance `8 h`"
    )
    max_gpu_time: Seconds | None = Field(
        default=None, description="time of all steps by the GPUs that they use, for instance `2 h`"
    )
    calibration_images: int = Field(
        default=128, ge=1, le=100_000, description="images of `train` used to calibrate INT8"
    )
    calibration_time: Seconds = Field(
        default=120.0, description="time to try other calibrators of INT8 in, a model; the first one always runs"
    )
    control_images: int = Field(
        default=100,
        ge=0,
        le=100_000,
        description="images of `train` that INT8 accuracy is controlled on; 0: no control",
    )
    control_time: Seconds = Field(
        default=300.0, description="time to look for the layers that INT8 loses accuracy in, a model"
    )
    rounds: int = Field(default=12, ge=3, le=1000, description="benchmark rounds, each alternating with the baseline")
    round_time: Seconds = Field(default=0.4, description="time that one process runs in a round, for instance `0.5 s`")
    seed: int = 7


class Training(Contract):
    """How the training rungs train. Part of `train` is held back to judge by; `test` is never touched."""

    epochs: int = Field(default=10, ge=1, le=10_000, description="passes over the part of `train` that is trained on")
    batch: int = Field(default=8, ge=1, le=65_536, description="samples a step, over all processes together")
    learning_rate: float = Field(default=1e-4, gt=0, le=10, description="of AdamW, after the warm-up")
    weight_decay: float = Field(default=0.05, ge=0, le=1, description="of AdamW")
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="share of the steps in which the learning rate rises; then a cosine"
    )
    clip: float | None = Field(default=5.0, gt=0, description="largest norm of all gradients together; null: any")
    ema: bool = Field(default=True, description="hand on a moving average of the weights, not the last ones")
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="of that average; default: it looks back over a tenth of the steps"
    )
    precision: Precision = Field(
        default=Precision.AUTO,
        description="`bf16`, `fp16` (with loss scaling), `fp32`, or `auto`: what the device computes in natively",
    )
    processes: int = Field(default=1, ge=1, le=64, description="processes that train together, one a GPU")
    workers: int = Field(default=0, ge=0, le=64, description="processes that read data, for each that trains")
    flip: bool = Field(default=True, description="mirror half of the images, where left and right mean the same")
    validation: float = Field(default=0.1, gt=0, le=0.5, description="share of `train` that is held back")
    max_time: Seconds | None = Field(default=None, description="stop training after this time, for instance `2 h`")
    max_core_time: Seconds | None = Field(
        default=None, description="stop after this much processor time, summed over cores, for instance `8 h`"
    )
    checkpoint_every: Seconds = Field(default=60.0, description="pause between two checkpoints, for instance `5 min`")


class Search(Contract):
    """What every rung that searches is told: probe untrained candidates, drop, train the rest by halves."""

    keep: int = Field(default=3, ge=1, le=64, description="candidates that are trained, at most")
    halving_rounds: int = Field(
        default=3, ge=1, le=8, description="rounds of successive halving; each trains twice as far as the one before"
    )
    probe_int8: bool = Field(default=True, description="also time each candidate in INT8, calibrated on a few samples")
    probe_rounds: int = Field(default=6, ge=3, le=1000, description="rounds, each alternating with the baseline")
    probe_round_time: Seconds = Field(default=0.2, description="time that one process runs in a round of the probe")
    slack: float = Field(
        default=0.1, ge=0, le=10, description="train what misses the goal's latency by up to this share too"
    )

    @field_validator("input_sizes", check_fields=False)
    @classmethod
    def _sane_sizes(cls, sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
        wrong = [list(size) for size in sizes if not all(8 <= side <= 8192 for side in size)]
        if wrong:
            raise ValueError(f"{wrong[0]} is no [height, width] of 8..8192 pixels each")
        return sizes


class Pretrained(StrEnum):
    """Where a backbone's weights come from, apart from a URI."""

    NONE = "none"
    REGISTRY = "registry"


class Backbone(Search):
    """How the rung `backbone` looks for another backbone of the user's model."""

    candidates: list[Annotated[str, StringConstraints(min_length=1, max_length=200)]] = Field(
        default_factory=list,
        max_length=500,
        description="`timm/NAME` or `torchvision/NAME`, `*` and `?` allowed, or the presets `edge` and `server`; "
        "default: `edge` for a CPU, `server` for a GPU",
    )
    input_sizes: list[tuple[int, int]] = Field(
        default_factory=list, max_length=16, description="[height, width] to try each at; default: the job's own"
    )
    pretrained: str = Field(
        default=Pretrained.NONE,
        min_length=1,
        description="`none`, `registry` (timm's and torchvision's own, downloaded), or a folder or URI with "
        "`NAME.safetensors` or `NAME.pth`",
    )


class Publish(Contract):
    """Where the winner goes."""

    to: str = Field(pattern=r"^(file|s3)://.+", description="file:///folder or s3://bucket/prefix")
    endpoint: str | None = Field(
        default=None, pattern=r"^https?://", description="S3 endpoint, for stores other than AWS"
    )
    region: str | None = None
    registry: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="address of a Kubeflow Model Registry, where what is published is registered too",
    )


class Job(Contract):
    """One run of the ladder."""

    name: Name
    task: Task = Task.DETECTION
    model: ModelSource
    data: Data
    target: Target
    goal: Goal
    ladder: Ladder = Field(default_factory=Ladder)
    budget: Budget = Field(default_factory=Budget)
    training: Training = Field(default_factory=Training)
    backbone: Backbone = Field(default_factory=Backbone)
    publish: Publish | None = None
