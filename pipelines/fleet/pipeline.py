"""The fleet: many ladders, so many at a time; a model that fails is a row of the table and not the end of the run."""

from collections.abc import Callable
from typing import Any

from kfp import dsl, kubernetes

from pipelines.fleet.component import climb, gather, names
from pipelines.scheduling import LIGHT, Profile, place

PARALLELISM = 4
FLEET_CLIMB = Profile(cpus="50m", memory="256Mi", memory_limit="1Gi", timeout=7 * 86400, retries=0)
"""A step that only waits for another run. KFP ignores retries inside of a loop; done again, it takes up what runs."""
TOKEN_LABEL = "access-ml-pipeline"  # noqa: S105 (the label's name)
"""Pod label by which a multi-user Kubeflow gives a pod a token for KFP's API (its PodDefault of that name)."""


def fleet_of(parallelism: int) -> Callable[..., Any]:
    """The fleet's pipeline with so many models at a time, which KFP fixes when a pipeline is compiled."""

    @dsl.pipeline(  # type: ignore[untyped-decorator]
        name="fleet", description="Climbs the ladder with many models, so many at a time; a failed one is a row"
    )
    def fleet(
        fleet: str,
        pipeline_id: str,
        version_id: str,
        gpu: dict = {},  # type: ignore[type-arg]  # noqa: B006
        stamp: str = "fleet",
        host: str = "",
        namespace: str = "",
        service_account: str = "",
    ) -> str:
        """Makes many trained models fast enough to ship.

        Args:
            fleet: the fleet, as `hasten submit FLEET.yaml` packs it, or JSON with `name`, `parallelism` and `jobs`.
            pipeline_id: of `hasten-ladder` on this server.
            version_id: of its version to run.
            gpu: the ladder's GPU parameters that differ from their defaults, for instance `{"gpus": "1"}`.
            stamp: tells two fleets apart; a run with an old one takes up that fleet's runs that did not fail.
            host: of Kubeflow Pipelines; empty: its usual address inside of the cluster.
            namespace: the profile's, where Kubeflow serves several users.
            service_account: of the ladder's steps; empty: the server's own choice.

        Returns:
            The fleet's summary as JSON; its table is an artifact.
        """
        listed = place(names(fleet=fleet), LIGHT)
        with dsl.ParallelFor(listed.output, parallelism=parallelism) as model:
            climbed = climb(
                fleet=fleet,
                model=model,
                pipeline_id=pipeline_id,
                version_id=version_id,
                gpu=gpu,
                stamp=stamp,
                host=host,
                namespace=namespace,
                service_account=service_account,
            )
            place(climbed, FLEET_CLIMB)
            climbed.set_caching_options(enable_caching=False)  # a row is about one moment
            kubernetes.add_pod_label(climbed, TOKEN_LABEL, "true")
        gathered = place(gather(fleet=fleet, rows=dsl.Collected(climbed.output)), LIGHT)
        gathered.set_caching_options(enable_caching=False)
        return gathered.outputs["Output"]  # type: ignore[no-any-return]

    made: Callable[..., Any] = fleet
    return made


fleet = fleet_of(PARALLELISM)
