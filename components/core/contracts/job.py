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
    CLASSIFICATION = "classification"
    TEXT = "text"
    AUDIO = "audio"


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
    FAMILY = "family"
    DISTILL = "distill"

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
    ACCURACY = "accuracy"
    MACRO_F1 = "macro_f1"


METRICS: dict[Task, tuple[Metric, ...]] = {
    Task.DETECTION: (Metric.MAP50, Metric.MAP),
    Task.CLASSIFICATION: (Metric.ACCURACY, Metric.MACRO_F1),
    Task.TEXT: (Metric.ACCURACY, Metric.MACRO_F1),
    Task.AUDIO: (Metric.ACCURACY, Metric.MACRO_F1),
}
"""What a model of each task is judged by; the first is the default of `goal.metric`."""


class Fit(StrEnum):
    """How an image of another size is fitted into the input of a classifier."""

    LETTERBOX = "letterbox"
    STRETCH = "stretch"
    CROP = "crop"


class Features(StrEnum):
    """What an audio model takes."""

    LOG_MEL = "log-mel"
    WAVEFORM = "waveform"


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
    """One split; which fields it needs depends on the task."""

    annotations: str | None = Field(
        default=None,
        description="path or URI of a COCO JSON file (detection), of a CSV file with columns file,label (audio; "
        "classification, where it may be left out), or of a CSV or JSONL file with text and label (text)",
    )
    images: str | None = Field(
        default=None,
        description="path or URI prefix of the folder of the images; without annotations, of one folder a class",
    )
    audio: str | None = Field(default=None, description="path or URI prefix of the folder of the WAV or FLAC files")


class Unlabelled(Contract):
    """Samples that nobody labelled; which field is needed depends on the task."""

    images: str | None = Field(
        default=None, description="path or URI prefix of a folder; every image in it counts (detection, classification)"
    )
    audio: str | None = Field(default=None, description="path or URI prefix of a folder of WAV or FLAC files (audio)")
    texts: str | None = Field(default=None, description="path or URI of a CSV or JSONL file with `text` (text)")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of images, audio, texts; given: {', '.join(given) or 'none'}")
        return self


class Data(Contract):
    """The data set. Accuracy is only ever reported on `test`; nothing is tuned on it."""

    train: Split = Field(description="calibration, tuning and, in the training rungs, training")
    test: Split = Field(description="accuracy is measured here")
    labels: list[str] | None = Field(
        default=None,
        min_length=2,
        description="class names in the order of a classifier's outputs; default: those of `train`, sorted",
    )
    unlabelled: Unlabelled | None = Field(default=None, description="samples without labels, for the rung `distill`")
    max_download: Bytes = Field(default=20e9, description="refuse to fetch more than this; for instance `20 GB`")


class Preprocess(Contract):
    """How a sample becomes the model's input. Detectors take RGB in 0..1, letterboxed, and none of this."""

    fit: Fit = Field(default=Fit.STRETCH, description="classification: how an image gets the input's height and width")
    crop_share: float = Field(
        default=0.875, gt=0, le=1, description="share of the shorter side that `crop` keeps, around the middle"
    )
    mean: tuple[float, float, float] = Field(
        default=(0.0, 0.0, 0.0), description="classification: taken off the channels R, G, B in 0..1"
    )
    std: tuple[float, float, float] = Field(
        default=(1.0, 1.0, 1.0), description="classification: what the channels are divided by afterwards"
    )
    tokenizer: str | None = Field(
        default=None, description="text: path or URI of a `tokenizer.json` of Hugging Face tokenizers"
    )
    sample_rate: int = Field(default=16_000, ge=4_000, le=192_000, description="audio: of the files, in hertz")
    features: Features = Field(default=Features.LOG_MEL, description="audio: what the model takes")


class Target(Contract):
    """Where the fast model will run."""

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="`cpu` or `cuda[:N]`")
    runtimes: list[Runtime] = Field(
        min_length=1, description="runtimes to try; each makes candidates of its own and the best is picked"
    )
    input_shape: tuple[int, ...] = Field(
        min_length=2,
        max_length=4,
        description="[N, 3, H, W] in pixels; of text [N, tokens]; of audio [N, mels, frames] or [N, samples]",
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads; default: all cores")
    compute_capabilities: list[Annotated[str, StringConstraints(pattern=r"^\d{1,2}\.\d$")]] = Field(
        default_factory=list, description="GPUs an engine is built for, for instance `8.6`; default: the builder's own"
    )

    @model_validator(mode="after")
    def _sane_shape(self) -> Self:
        shape = list(self.input_shape)
        if len(shape) == 4 and (shape[0] < 1 or shape[1] != 3 or not all(8 <= side <= 8192 for side in shape[2:])):
            raise ValueError(f"input_shape {shape} is not [N >= 1, 3, 8..8192, 8..8192]")
        if not all(1 <= side <= 10_000_000 for side in shape):
            raise ValueError(f"input_shape {shape} has a side that is not 1..10000000")
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
    metric: Metric = Field(
        default=Metric.MAP50,
        description="accuracy that `max_accuracy_drop` is about; default of classifiers: `accuracy`",
    )
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


class Family(Search):
    """How the rung `family` looks for another model altogether."""

    candidates: list[Annotated[str, StringConstraints(min_length=1, max_length=200)]] = Field(
        default_factory=list,
        max_length=100,
        description="`FAMILY-SIZE`, for instance `yolo9-t`, or of a classifier `timm/NAME`; `*` and `?` allowed; or "
        "the presets `cpu` and `gpu`; default: the preset of the target's device",
    )
    input_sizes: list[tuple[int, int]] = Field(
        default_factory=list,
        max_length=16,
        description="[height, width] to try each at; default: the job's own, and three quarters of it",
    )
    pretrained: str = Field(
        default=Pretrained.NONE,
        min_length=1,
        description="`none`, or a folder or URI with `FAMILY-SIZE.safetensors`, of a classifier `NAME.safetensors`",
    )


class Retrain(Contract):
    """When a newly trained model takes the place of the one in production, the *champion*; for `hasten retrain`.

    A job with this section publishes what it takes to train again: the weights, and statistics of the data.
    """

    max_drift: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="share of the new boxes, labels or images that may lie elsewhere than in the champion's data; "
        "beyond it, and beyond chance, nothing is trained",
    )
    max_shrinkage: float = Field(
        default=0.5, ge=0, le=1, description="share of the champion's images or boxes that the new data may lack"
    )
    max_shared_images: int = Field(default=0, ge=0, description="images of `test` that may be in `train` too")
    min_accuracy_gain: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="the 95% interval of the gain over the champion (absolute, of the goal's metric) must lie above it",
    )
    max_slowdown: Speedup = Field(
        default=1.1, ge=1, description="a more accurate model may be this much slower, with the whole 95% interval"
    )
    min_speedup: Speedup = Field(
        default=1.1, ge=1, description="or: faster than the champion by more than this, with the whole 95% interval ..."
    )
    max_accuracy_loss: float = Field(
        default=0.01, ge=0, lt=1, description="... and with no more accuracy lost than this, with the whole interval"
    )
    resamples: int = Field(default=2000, ge=200, le=100_000, description="bootstrap samples of the test images")


class Student(Contract):
    """A smaller model, which learns from the teachers."""

    factory: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="`package.module:function` that returns the torch module"
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the factory")
    weights: str | None = Field(
        default=None,
        description="path or URI of what it starts from, a `.safetensors` file or a plain state dict; default: as the "
        "factory makes it",
    )


class Teacher(ModelSource):
    """A model that is asked; any that a job can have."""

    runtime: Runtime | None = Field(
        default=None, description="what runs an `.onnx` file: `onnxruntime` (default) or `openvino`"
    )

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        accepted = (None, Runtime.ONNXRUNTIME, Runtime.OPENVINO)
        if self.runtime not in accepted or (self.runtime and not self.onnx):
            raise ValueError(f"runtime: given {self.runtime}, accepted: onnxruntime or openvino, of an .onnx file")
        return self


class Hint(Contract):
    """A part of the student that is to see what a part of a teacher sees."""

    student: str = Field(min_length=1, description="dotted name of a part of the student, for instance `layer2`")
    teacher: str = Field(min_length=1, description="dotted name of a part of the teacher, for instance `layer3`")
    of: int = Field(default=0, ge=0, description="which of the teachers, from 0; one that is a factory")
    weight: float = Field(default=1.0, gt=0, le=1000, description="of this hint's loss")


class Distill(Contract):
    """What learns from whom. Epochs, batch, precision and the like are those of `training`."""

    student: Student
    teachers: list[Teacher] = Field(
        default_factory=list, max_length=16, description="an ensemble, if several; default: the job's own model"
    )
    temperature: float = Field(default=4.0, gt=0, le=100, description="that logits are divided by, of both sides")
    soft: float = Field(default=0.9, ge=0, le=1000, description="weight of what the teachers say")
    hard: float = Field(default=0.1, ge=0, le=1000, description="weight of the labels of `train`")
    hints: list[Hint] = Field(default_factory=list, description="features to imitate, each through a learned adapter")
    min_score: float = Field(
        default=0.3, ge=0, lt=1, description="detection: what a teacher is less sure of is left out"
    )
    fusion_iou: float = Field(
        default=0.55, gt=0, lt=1, description="detection: overlap from which boxes of several teachers are one"
    )
    unlabelled_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of an epoch that is unlabelled, the scarcer part being repeated; default: every sample once",
    )
    compare: bool = Field(
        default=False, description="also train the same student on labels alone, as many steps, for the report"
    )
    answers: str | None = Field(
        default=None,
        description="folder or s3:// prefix where the teachers' outputs are kept for the next run; default: beside the "
        "fetched data in S3, else the cache of this machine",
    )

    @model_validator(mode="after")
    def _teaches(self) -> Self:
        if not self.soft and not self.hints:
            raise ValueError(
                "soft is 0 and there are no hints; give at least one of both, or nothing is learnt from teachers"
            )
        for number, hint in enumerate(self.hints):
            if self.teachers and hint.of >= len(self.teachers):
                raise ValueError(f"hints.{number}.of: given {hint.of}, accepted: 0 to {len(self.teachers) - 1}")
            if not self.teachers and hint.of:
                raise ValueError(f"hints.{number}.of: given {hint.of}, accepted: 0, the job's own model")
            if self.teachers and not self.teachers[hint.of].factory:
                raise ValueError(f"hints.{number}.of: teacher {hint.of} is a file without named parts; give a factory")
        return self


class Publish(Contract):
    """Where the winner goes."""

    to: str = Field(pattern=r"^(file|s3)://.+", description="file:///folder or s3://bucket/prefix")
    endpoint: str | None = Field(
        default=None, pattern=r"^https?://", description="S3 endpoint, for stores other than AWS"
    )
    region: str | None = None
    encryption: str | None = Field(
        default=None,
        pattern=r"^(AES256|aws:kms|aws:kms:dsse)$",
        description="server-side encryption that is asked for with every object; default: the environment's, else the "
        "bucket's own",
    )
    kms_key: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9:/_-]{1,2048}$",
        description="key of `aws:kms`, its id or ARN; default: the bucket's",
    )
    registry: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="address of a Kubeflow Model Registry, where what is published is registered too",
    )

    @model_validator(mode="after")
    def _a_key_is_of_kms(self) -> Self:
        if self.kms_key and not (self.encryption or "").startswith("aws:kms"):
            raise ValueError("kms_key goes with encryption: aws:kms or aws:kms:dsse")
        return self


class Job(Contract):
    """One run of the ladder."""

    name: Name
    task: Task = Task.DETECTION
    model: ModelSource
    data: Data
    preprocess: Preprocess = Field(default_factory=Preprocess)
    target: Target
    goal: Goal
    ladder: Ladder = Field(default_factory=Ladder)
    budget: Budget = Field(default_factory=Budget)
    training: Training = Field(default_factory=Training)
    backbone: Backbone = Field(default_factory=Backbone)
    family: Family = Field(default_factory=Family)
    distill: Distill | None = Field(default=None, description="of the rung `distill`; without it that rung is skipped")
    publish: Publish | None = None
    retrain: Retrain | None = None

    def with_weights(self, uri: str) -> "Job":
        """The job with other weights for its factory; empty: as it is."""
        if not uri:
            return self
        return self.model_copy(update={"model": self.model.model_copy(update={"weights": uri})})

    @model_validator(mode="before")
    @classmethod
    def _metric_of_the_task(cls, fields: Any) -> Any:
        """Another task has another usual metric."""
        if not isinstance(fields, dict) or not isinstance(fields.get("goal"), dict) or "metric" in fields["goal"]:
            return fields
        task = fields.get("task", Task.DETECTION)
        if task not in list(Task) or task == Task.DETECTION:
            return fields
        return fields | {"goal": fields["goal"] | {"metric": METRICS[Task(task)][0]}}

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        if problem := _problem_with_the_task(self):
            raise ValueError(problem)
        return self


_SHAPES = {
    Task.DETECTION: ((4,), "[N, 3, H, W], H and W at least 32"),
    Task.CLASSIFICATION: ((4,), "[N, 3, H, W]"),
    Task.TEXT: ((2,), "[N, tokens]"),
    Task.AUDIO: ((2, 3), "[N, mels, frames], or [N, samples] with preprocess.features waveform"),
}
"""Of each task's input: how many sides, and how a person writes it."""
_NEEDED = {
    Task.DETECTION: {"annotations": "path or URI of a COCO JSON file", "images": "path or URI prefix of its images"},
    Task.CLASSIFICATION: {"images": "path or URI prefix of one folder a class, or of the images of `annotations`"},
    Task.TEXT: {"annotations": "path or URI of a CSV or JSONL file with text and label"},
    Task.AUDIO: {
        "annotations": "path or URI of a CSV file with columns file,label",
        "audio": "path or URI prefix of its WAV or FLAC files",
    },
}
"""Fields of a split that each task needs."""
_OPTIONAL = {Task.CLASSIFICATION: ("annotations",)}
_OWN_SETTINGS = {
    Task.CLASSIFICATION: {"fit", "crop_share", "mean", "std"},
    Task.TEXT: {"tokenizer"},
    Task.AUDIO: {"sample_rate", "features"},
}
"""Fields of `preprocess` that mean something to a task."""


def _problem_with_the_task(job: Job) -> str:
    """What does not fit the job's task, beginning with the field; nothing if all fits."""
    task, shape = job.task, job.target.input_shape
    for name, split in (("train", job.data.train), ("test", job.data.test)):
        for field, words in _NEEDED[task].items():
            if not getattr(split, field):
                return f"data.{name}.{field}: is missing ({words})"
        allowed = (*_NEEDED[task], *_OPTIONAL.get(task, ()))
        for field in type(split).model_fields:
            if getattr(split, field) and field not in allowed:
                return f"data.{name}.{field}: the task {task} has no such field; accepted: {', '.join(allowed)}"
    sides, words = _SHAPES[task]
    if job.preprocess.features is Features.WAVEFORM and task is Task.AUDIO:
        sides = (2,)
    elif task is Task.AUDIO:
        sides = (3,)
    if len(shape) not in sides or (task is Task.DETECTION and min(shape[2:]) < 32):
        return f"target.input_shape: given {list(shape)}, accepted for {task}: {words}"
    if job.goal.metric not in METRICS[task]:
        return f"goal.metric: given '{job.goal.metric}', accepted for {task}: {', '.join(METRICS[task])}"
    own = _OWN_SETTINGS.get(task, set())
    for field, info in Preprocess.model_fields.items():
        if field not in own and getattr(job.preprocess, field) != info.default:
            return f"preprocess.{field}: has no meaning for {task}; accepted: {', '.join(sorted(own)) or 'nothing'}"
    if task is Task.TEXT and not job.preprocess.tokenizer:
        return "preprocess.tokenizer: is missing (path or URI of a tokenizer.json of Hugging Face tokenizers)"
    if task is Task.DETECTION and job.data.labels:
        return "data.labels: a detector's labels are the category ids of its annotations; leave it out"
    wanted = {Task.TEXT: "texts", Task.AUDIO: "audio"}.get(task, "images")
    if job.data.unlabelled and not getattr(job.data.unlabelled, wanted):
        return f"data.unlabelled: the task {task} needs {wanted}; give that and nothing else"
    if len(set(job.data.labels or ())) != len(job.data.labels or ()):
        return "data.labels: names a class twice"
    if 0 in job.preprocess.std:
        return "preprocess.std: given 0, accepted: other numbers, since the channels are divided by it"
    return ""
