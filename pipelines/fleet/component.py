"""The steps of a fleet's run."""

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def names(fleet: str) -> list:  # type: ignore[type-arg]
    """Says which models a fleet has.

    Args:
        fleet: the fleet, as `hasten submit` packs it or as JSON.

    Returns:
        The jobs' names, which is all that the loop passes on.
    """
    from components.core.stepping import step
    from pipelines.fleet.packing import unpack

    with step("names"):
        return [job.name for job in unpack(fleet).jobs]


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def climb(
    fleet: str,
    model: str,
    pipeline_id: str,
    version_id: str,
    gpu: dict,  # type: ignore[type-arg]
    stamp: str,
    host: str = "",
    namespace: str = "",
    service_account: str = "",
) -> str:
    """Runs the ladder of one model as a run of its own and waits for its end.

    Args:
        fleet: the fleet, as `hasten submit` packs it or as JSON.
        model: name of the job in it.
        pipeline_id: of the ladder on this server.
        version_id: of the ladder's version.
        gpu: the ladder's GPU parameters that differ from their defaults.
        stamp: tells two fleets apart; with the same one, runs that are there already are taken up.
        host: of Kubeflow Pipelines; empty: its usual address inside of the cluster.
        namespace: the profile's, where Kubeflow serves several users.
        service_account: of the ladder's steps; empty: the server's own choice.

    Returns:
        A row as JSON: how it went, and why not where it did not.
    """
    from components.core.stepping import step
    from pipelines.fleet.children import Child
    from pipelines.fleet.climbing import climb_apart

    with step("climb"):
        child = Child(pipeline_id, version_id, gpu, service_account, stamp)
        row = climb_apart(fleet, model, child, host, namespace)
    return row.model_dump_json(exclude_defaults=True)


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def gather(fleet: str, rows: list, table: dsl.Output[dsl.Markdown]) -> str:  # type: ignore[type-arg]
    """Puts the rows of all models into one table.

    Args:
        fleet: the fleet, as `hasten submit` packs it or as JSON.
        rows: of `climb`.
        table: gets the table.

    Returns:
        The fleet's summary as JSON.
    """
    from pathlib import Path

    from components.core.stepping import step
    from pipelines.fleet.packing import unpack
    from pipelines.fleet.rows import Row, Summary, markdown

    with step("gather"):
        summary = Summary(name=unpack(fleet).name, rows=[Row.model_validate_json(row) for row in rows])
        Path(table.path).write_text(markdown(summary))
    return summary.model_dump_json()
