"""The last word of a retraining."""

from components.core.contracts.champion import Outcome, Verdict


def concluded(outcome: Outcome, published_uri: str) -> Outcome:
    """The outcome of a challenger that was to be promoted, after `publish`.

    Args:
        outcome: of `judge`.
        published_uri: empty where `publish` left the champion in place: a rollback had withdrawn this very version.
    """
    if published_uri:
        return outcome.model_copy(update={"published_uri": published_uri})
    reason = f"a rollback withdrew this very version, so it is not promoted again by itself; it was {outcome.reason}"
    return outcome.model_copy(update={"verdict": Verdict.KEEP, "reason": reason})
