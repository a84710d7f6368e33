"""A run in an MLflow server: a run of its own, a nested one a candidate, the report as artifacts, the winner's version.

The same run is logged once: it is found again by its id, and one that broke off is begun anew. The registered version
is found again by its content, so that two runs with the same winner share it.
"""

import hashlib
import logging
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from components.core.contracts.leaderboard import Candidate
from components.core.errors import StepError, UserError
from components.core.s3 import public_url
from components.publish.facts import measured
from components.publish.published import Published
from pipelines.integration.results import LEADERBOARD, Results

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "hasten"
MAX_TEXT = 500
"""Characters of a parameter; older servers take no more."""
_RUN, _COMPLETE, _VERSION = "hasten.run_id", "hasten.complete", "hasten.version"
_FILES = (LEADERBOARD, "report.md", "report.html", "run.json", "provenance.json")
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own patience is minutes, and it prints; what the environment says goes first."""


class Logged(NamedTuple):
    """What the server holds now."""

    run_id: str
    version: str
    """Of the registered model; empty where nothing was registered."""
    new: bool
    """Whether the run was logged now, and not before."""


def log_results(results: Results, uri: str, experiment: str = EXPERIMENT, published: Published | None = None) -> Logged:
    """Logs a run.

    Args:
        results: of the run.
        uri: of the tracking server, ``http(s)://host[:port]``; MLflow's own variables hold the token.
        experiment: made where it is not there.
        published: the version that the run's winner was published as; registered under its model's name.

    Raises:
        UserError: the server is not there, or refuses.
        StepError: the server itself fails.
    """
    _check_address(uri)
    with _speaking_to(uri):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        place = client.get_experiment_by_name(experiment)
        experiment_id = place.experiment_id if place else client.create_experiment(experiment)
        identity = _identity(results)
        found, new = _logged_before(client, experiment_id, identity), False
        if found is None:
            found, new = _log(client, experiment_id, results, identity), True
        version = _register(client, published, found) if published else ""
    return Logged(found, version, new)


def _identity(results: Results) -> str:
    """The run's id; of a report without one, the leaderboard's hash."""
    if results.record is not None:
        return results.record.run_id
    return hashlib.sha256((results.folder / LEADERBOARD).read_bytes()).hexdigest()[:32]


def _logged_before(client: "MlflowClient", experiment_id: str, identity: str) -> str | None:
    """The run that holds these results whole; what broke off is removed."""
    of_it = f"tags.`{_RUN}` = '{identity}'"
    complete = client.search_runs([experiment_id], f"{of_it} and tags.`{_COMPLETE}` = 'true'")
    if complete:
        return str(complete[0].info.run_id)
    for run in client.search_runs([experiment_id], of_it):
        client.delete_run(run.info.run_id)
    return None


def _log(client: "MlflowClient", experiment_id: str, results: Results, identity: str) -> str:
    board = results.board
    tags = {_RUN: identity, "mlflow.runName": board.job, "mlflow.note.content": board.why}
    run_id = str(client.create_run(experiment_id, tags=tags).info.run_id)
    goal = {f"goal.{name}": value for name, value in board.goal.model_dump(mode="json", exclude_none=True).items()}
    environment = {f"environment.{name}": value for name, value in board.environment.items()}
    facts = {"winner": board.winner, "baseline": board.baseline, "goal_met": board.goal_met, **goal, **environment}
    winner = board.row(board.winner) if board.winner else None
    _write(client, run_id, facts, _numbers(winner) if winner else {})
    for row in board.candidates:
        child = {
            _RUN: identity,
            "mlflow.runName": row.id,
            "mlflow.parentRunId": run_id,
            "mlflow.note.content": row.reason,
        }
        child_id = str(client.create_run(experiment_id, tags=child).info.run_id)
        made = {
            "rung": row.rung,
            "runtime": str(row.runtime),
            "techniques": ",".join(row.techniques),
            "status": str(row.status),
            "meets_goal": row.meets_goal,
            "threads": row.threads,
        }
        _write(client, child_id, made, _numbers(row))
        client.set_terminated(
            child_id, "FINISHED" if row.status == "ok" else "KILLED" if row.status == "skipped" else "FAILED"
        )
    for name in _FILES:
        if (results.folder / name).is_file():
            client.log_artifact(run_id, str(results.folder / name))
    client.set_terminated(run_id, "FINISHED")
    client.set_tag(run_id, _COMPLETE, "true")
    return run_id


def _write(client: "MlflowClient", run_id: str, facts: Mapping[str, Any], numbers: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    parameters = [Param(name, str(value)[:MAX_TEXT]) for name, value in facts.items() if value not in (None, "")]
    metrics = [Metric(name, value, 0, 0) for name, value in numbers.items()]
    client.log_batch(run_id, metrics=metrics, params=parameters[:100])


def _numbers(row: Candidate) -> dict[str, float]:
    """What was measured, as far as it is a finite number."""
    found = {name: value for name, value in measured(row).items() if isinstance(value, int | float)}
    found |= {f"accuracy_{metric}": value for metric, value in row.other_accuracy.items()}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _register(client: "MlflowClient", published: Published, run_id: str) -> str:
    """The version of the registered model with this content, made where there is none."""
    from mlflow.exceptions import MlflowException

    name, content = published.manifest.name, published.manifest.version
    try:
        client.create_registered_model(name, description="Made fast enough to ship by hasten")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(_VERSION) == content:
            return str(version.version)
    tags = {_VERSION: content, "hasten.runtime": str(published.manifest.runtime), "hasten.report": published.report_uri}
    made = client.create_model_version(name, source=published.uri, run_id=run_id, tags=tags)
    return str(made.version)


def _check_address(uri: str) -> None:
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--tracking-uri: given {public_url(uri)!r}, accepted: the http(s) address of an MLflow server")
    if parts.username is not None or parts.password is not None:  # MLflow's own messages would show it
        raise UserError(
            f"--tracking-uri: {public_url(uri)} was given with a user name or password; set MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD instead"
        )
    # MLflow tries for a minute before it says that nobody is there.
    try:
        socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), 10).close()
    except OSError as error:
        raise UserError(
            f"no MLflow server at {public_url(uri)} ({error.strerror or error}); check the address"
        ) from error


@contextmanager
def _speaking_to(uri: str) -> Iterator[None]:
    """Turns what goes wrong between here and the server into one line, and keeps the client from printing."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update({name: value for name, value in _SETTINGS.items() if before[name] is None})
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    import requests
    from mlflow.exceptions import MlflowException

    shown = public_url(uri)
    try:
        yield
    except MlflowException as error:
        status = _status(error)
        words = " ".join(str(error.message).split())[:300]
        if status in (401, 403):
            raise UserError(
                f"{shown} does not let you log runs ({status}): set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME "
                "and MLFLOW_TRACKING_PASSWORD"
            ) from error
        if 400 <= status < 500:
            raise UserError(f"{shown} refuses the request ({status}): {words}") from error
        raise StepError(f"{shown} failed ({status}); try again: {words}") from error
    except (requests.RequestException, OSError) as error:
        raise UserError(f"no MLflow server at {shown} ({type(error).__name__}); check the address") from error
    finally:
        logging.disable(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _status(error: Any) -> int:
    """The server's status; that of a gateway's answer stands only in the client's words."""
    if error.error_code != "INTERNAL_ERROR":
        return int(error.get_http_status_code())
    match = re.search(r"error code (\d{3})", str(error.message))
    return int(match[1]) if match else 500
