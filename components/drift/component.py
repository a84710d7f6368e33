"""KFP definition of `drift`."""

from typing import NamedTuple

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def drift(
    job: str,
    bundle_uri: str,
    champion_uri: str,
    card: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.Markdown],
    code_version: str = "",  # noqa: ARG001
) -> NamedTuple("Compared", [("verdict", str), ("outcome", str), ("card_uri", str)]):  # type: ignore[valid-type]
    """Compares new data with what the champion was trained on.

    Args:
        job: the Job as JSON; `retrain` has the limits.
        bundle_uri: folder that `fetch` made.
        champion_uri: folder that `champion` made.
        card: folder with `data_card.json` and `data_card.md`.
        page: the same as a page of the Kubeflow UI.
        code_version: version of hasten's code; part of the cache key.

    Returns:
        verdict: `train`, or `keep` where the data must not be trained on. outcome: of a run that ends here, as JSON.
        card_uri: URI of the folder with the card.
    """
    from pathlib import Path

    from components.core.contracts.champion import Verdict
    from components.core.contracts.job import Job
    from components.core.stepping import step
    from components.core.storage import materialize
    from components.drift.card import markdown
    from components.drift.run import run_drift

    with step("drift"):
        given, bundle = Job.model_validate_json(job), materialize(bundle_uri)
        found, outcome = run_drift(given, bundle, materialize(champion_uri), Path(card.path))
        Path(page.path).write_text(markdown(found), encoding="utf-8")
        verdict = "train" if outcome.verdict is Verdict.PROMOTE else "keep"
    return verdict, outcome.model_dump_json(), str(card.uri)
