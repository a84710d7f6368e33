"""The ladder for plain Argo Workflows, without KFP on the cluster: a WorkflowTemplate, and a CronWorkflow that runs it.

Made from the ladder as KFP compiles it, so that there is one table of steps: every task, condition and hand-over of the
compiled pipeline becomes one of Argo's, with the images, requests, limits, timeouts and retries of `scheduling.py`. The
GPU is chosen when the template is made. The same pipeline and choices give the same text.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hera.workflows import models as argo

from components.core.errors import StepError
from pipelines.scheduling import GPU_RESOURCE, USER

NAME = "hasten-ladder"
ACCOUNT = "hasten-runner"
PRIORITY_CLASS = "hasten-batch"
"""Of `manifests/overlays/gpu`."""
SETTINGS = "hasten-argo"
"""ConfigMap with `endpoint` and `region` of the store, for stores other than AWS; may be missing."""
SECRET = "hasten-s3"  # noqa: S105  (the name of the Secret)
"""Secret with `access_key` and `secret_key`, for stores without workload identity; may be missing."""
OUT = "/tmp/outputs"  # noqa: S108  (in the pod)
ROOT_PARAMETER = "root"
_GPU_INPUT = re.compile(r"^gpus$|^gpu_(resource|node_selector|tolerations|image)$|^accelerator_\w+$|^base_image$")
"""Inputs of the compiled pipeline that carry the GPU, which is fixed here."""
_CONDITION = re.compile(r"inputs\.parameter_values\['([\w-]+)'\]")


@dataclass(frozen=True)
class Cluster:
    """What a workflow says beyond the pipeline."""

    name: str = NAME
    namespace: str = ""
    account: str = ACCOUNT
    priority_class: str = ""
    gpus: int = 0
    gpu_resource: str = GPU_RESOURCE
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels of the nodes with the deployment GPU."""
    tolerations: tuple[dict[str, str], ...] = ()
    """Further taints of these nodes; `nvidia.com/gpu` is tolerated anyway."""
    gpu_image: str = ""
    """Image of the steps on the GPU; empty: the pipeline's own default."""


def workflow_template(cluster: Cluster, root: str = "") -> dict[str, Any]:
    """The ladder as a WorkflowTemplate.

    Args:
        cluster: names and the GPU.
        root: default of the parameter of that name, ``s3://bucket/prefix``, where steps keep what they hand over;
            empty: every run has to give it.

    Raises:
        StepError: the pipeline has something that this does not translate.
    """
    pipeline, platform = _compiled()
    ladder = _Translation(pipeline, platform, cluster)
    entry = ladder.dag(cluster.name, pipeline["root"])
    given = pipeline["root"]["inputDefinitions"]["parameters"]
    arguments = [argo.Parameter(name=ROOT_PARAMETER, value=root or None, description="s3://bucket/prefix of the runs")]
    for name, spec in given.items():
        if not _GPU_INPUT.match(name):
            arguments.append(
                argo.Parameter(
                    name=name, value=_default(spec), description=" ".join(spec.get("description", "").split())
                )
            )
    made = argo.WorkflowTemplate(
        api_version="argoproj.io/v1alpha1",
        kind="WorkflowTemplate",
        metadata=_metadata(cluster, cluster.name),
        spec=argo.WorkflowSpec(
            entrypoint=entry,
            arguments=argo.Arguments(parameters=arguments),
            service_account_name=cluster.account,
            automount_service_account_token=True,
            pod_priority_class_name=cluster.priority_class or None,
            pod_metadata=argo.Metadata(labels={"app.kubernetes.io/part-of": "hasten"}),
            security_context=argo.PodSecurityContext(
                run_as_non_root=True,
                run_as_user=USER,
                run_as_group=USER,
                fs_group=USER,
                seccomp_profile=argo.SeccompProfile(type="RuntimeDefault"),
            ),
            pod_gc=argo.PodGC(strategy="OnPodSuccess"),
            ttl_strategy=argo.TTLStrategy(seconds_after_completion=14 * 86400),
            templates=list(ladder.templates.values()),
        ),
    )
    return _plain(made)


def workflow(cluster: Cluster, name: str, arguments: Mapping[str, str]) -> dict[str, Any]:
    """One run of the template, to ``kubectl create``; the cluster ends its name."""
    made = argo.Workflow(
        api_version="argoproj.io/v1alpha1",
        kind="Workflow",
        metadata=_metadata(cluster, "").model_copy(update={"name": None, "generate_name": f"{name}-"}),
        spec=_run(cluster, arguments),
    )
    return _plain(made)


def cron_workflow(cluster: Cluster, name: str, cron: str, arguments: Mapping[str, str]) -> dict[str, Any]:
    """Runs the template on a schedule; one run at a time, and runs that were missed are not made up for.

    Args:
        cluster: as of the template.
        name: of the schedule.
        cron: five fields: minute, hour, day of the month, month, day of the week.
        arguments: parameters of the runs.
    """
    made = argo.CronWorkflow(
        api_version="argoproj.io/v1alpha1",
        kind="CronWorkflow",
        metadata=_metadata(cluster, name),
        spec=argo.CronWorkflowSpec(
            schedules=[cron],
            timezone="UTC",
            concurrency_policy="Forbid",
            starting_deadline_seconds=0,
            successful_jobs_history_limit=3,
            failed_jobs_history_limit=3,
            workflow_spec=_run(cluster, arguments),
        ),
    )
    return _plain(made)


def _run(cluster: Cluster, arguments: Mapping[str, str]) -> argo.WorkflowSpec:
    given = [argo.Parameter(name=key, value=value) for key, value in arguments.items()]
    return argo.WorkflowSpec(
        workflow_template_ref=argo.WorkflowTemplateRef(name=cluster.name), arguments=argo.Arguments(parameters=given)
    )


class _Translation:
    """Templates of Argo by name; equal ones are one, so that a rung more is a few lines more."""

    def __init__(self, pipeline: dict[str, Any], platform: dict[str, Any], cluster: Cluster) -> None:
        self.pipeline, self.platform, self.cluster = pipeline, platform, cluster
        self.templates: dict[str, argo.Template] = {}

    def dag(self, name: str, component: dict[str, Any]) -> str:
        """A pipeline, or a branch of one; its template's name."""
        tasks = [self._task(each, spec) for each, spec in component["dag"]["tasks"].items()]
        outputs = [
            argo.Parameter(name=key, value_from=_selected(key, spec))
            for key, spec in component["dag"].get("outputs", {}).get("parameters", {}).items()
        ]
        return self._add(
            name,
            argo.Template(
                inputs=argo.Inputs(parameters=list(_inputs(component))),
                outputs=argo.Outputs(parameters=outputs),
                dag=argo.DAGTemplate(tasks=tasks),
            ),
        )

    def _task(self, name: str, task: dict[str, Any]) -> argo.DAGTask:
        unknown = set(task) - {
            "cachingOptions", "componentRef", "dependentTasks", "inputs", "retryPolicy", "taskInfo", "triggerPolicy",
        }  # fmt: skip
        if unknown or task.get("inputs", {}).get("artifacts"):
            raise StepError(f"task {name}: plain Argo has no translation of {', '.join(unknown) or 'artifact inputs'}")
        reference = task["componentRef"]["name"]
        component = self.pipeline["components"][reference]
        given = task.get("inputs", {}).get("parameters", {})
        template = (
            self.dag(reference.removeprefix("comp-"), component)
            if "dag" in component
            else self._step(reference.removeprefix("comp-"), component, task)
        )
        return argo.DAGTask(
            name=name,
            template=template,
            dependencies=task.get("dependentTasks") or None,
            when=_when(task["triggerPolicy"]["condition"]) if "triggerPolicy" in task else None,
            arguments=argo.Arguments(
                parameters=[
                    argo.Parameter(name=key, value=_value(key, source))
                    for key, source in given.items()
                    if not _GPU_INPUT.match(key)
                ]
            ),
        )

    def _step(self, name: str, component: dict[str, Any], task: dict[str, Any]) -> str:
        """A container that runs one component; its template's name."""
        label = component["executorLabel"]
        container = self.pipeline["deploymentSpec"]["executors"][label]["container"]
        there = self.platform.get(label, {})
        on_gpu = "accelerator" in container.get("resources", {})
        function = container["args"][container["args"].index("--function_to_execute") + 1]
        arguments = [
            function,
            f"--root={{{{workflow.parameters.{ROOT_PARAMETER}}}}}",
            "--run={{pod.name}}",
            f"--out={OUT}",
        ]
        if task.get("cachingOptions", {}).get("enableCache"):
            arguments.append("--cache")
        inputs = list(_inputs(component))
        arguments += [f"--param={each.name}={{{{inputs.parameters.{each.name}}}}}" for each in inputs]
        volumes, mounts = _folders(there)
        outputs = component.get("outputDefinitions", {}).get("parameters", {})
        template = argo.Template(
            inputs=argo.Inputs(parameters=inputs),
            outputs=argo.Outputs(
                parameters=[argo.Parameter(name=key, value_from=argo.ValueFrom(path=f"{OUT}/{key}")) for key in outputs]
            ),
            container=argo.Container(
                image=self._image(container["image"]),
                command=["python", "-m", "pipelines.argo.step"],
                args=arguments,
                env=_store_settings(),
                resources=self._resources(container["resources"], on_gpu=on_gpu),
                security_context=argo.SecurityContext(
                    allow_privilege_escalation=False,
                    capabilities=argo.Capabilities(drop=["ALL"]),
                    read_only_root_filesystem=True,
                ),
                volume_mounts=mounts,
            ),
            volumes=volumes,
            active_deadline_seconds=int(there["activeDeadlineSeconds"]) if "activeDeadlineSeconds" in there else None,
            retry_strategy=_retries(task.get("retryPolicy")),
            node_selector=dict(self.cluster.node_selector) or None if on_gpu else None,
            tolerations=self._tolerations() if on_gpu and self.cluster.gpus else None,
            affinity=_affinity(there) if self.cluster.gpus else None,
        )
        return self._add(function if function not in self.templates else name, template)

    def _add(self, name: str, template: argo.Template) -> str:
        for known, other in self.templates.items():
            if other.model_copy(update={"name": None}) == template:
                return known
        number, free = 2, name
        while free in self.templates:
            free, number = f"{name}-{number}", number + 1
        self.templates[free] = template.model_copy(update={"name": free})
        return free

    def _image(self, image: str) -> str:
        if "{{" not in image:
            return image
        default = self.pipeline["root"]["inputDefinitions"]["parameters"]["gpu_image"]["defaultValue"]
        return self.cluster.gpu_image or str(default)

    def _resources(self, resources: dict[str, Any], *, on_gpu: bool) -> argo.ResourceRequirements:
        requests = {"cpu": resources["resourceCpuRequest"], "memory": resources["resourceMemoryRequest"]}
        limits = {"memory": resources["resourceMemoryLimit"]}
        if on_gpu and self.cluster.gpus:
            limits[self.cluster.gpu_resource] = str(self.cluster.gpus)
        return argo.ResourceRequirements(requests=_quantities(requests), limits=_quantities(limits))

    def _tolerations(self) -> list[argo.Toleration]:
        own = {"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}
        return [argo.Toleration.model_validate(each) for each in (own, *self.cluster.tolerations)]


def _compiled() -> tuple[dict[str, Any], dict[str, Any]]:
    """The ladder as KFP compiles it, and what its Kubernetes part says of each executor."""
    from pipelines.compiling import compile_pipelines

    with tempfile.TemporaryDirectory(prefix="hasten-compiled-") as folder:
        path = next(path for path in compile_pipelines(Path(folder)) if path.stem == "ladder")
        # KFP's mark of an input that comes from further out says nothing here.
        pipeline, platform = yaml.safe_load_all(path.read_text().replace("pipelinechannel--", ""))
    executors: dict[str, Any] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return pipeline, executors


def _inputs(component: dict[str, Any]) -> Iterator[argo.Parameter]:
    for name, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if not _GPU_INPUT.match(name):
            yield argo.Parameter(name=name, default=_default(spec))


def _default(spec: dict[str, Any]) -> str | None:
    return _text(spec["defaultValue"]) if "defaultValue" in spec else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(name: str, source: dict[str, Any]) -> str:
    """What a task is given: a constant, an input of its pipeline, or what another task made."""
    if "runtimeValue" in source:
        constant = _text(source["runtimeValue"]["constant"])
        if "{{" in constant:
            raise StepError(f"{name}: plain Argo has no translation of {constant}")
        return constant
    if "componentInputParameter" in source:
        return f"{{{{inputs.parameters.{source['componentInputParameter']}}}}}"
    if "taskOutputParameter" in source:
        made = source["taskOutputParameter"]
        return f"{{{{tasks.{made['producerTask']}.outputs.parameters.{made['outputParameterKey']}}}}}"
    raise StepError(f"{name}: plain Argo has no translation of {', '.join(source)}")


def _when(condition: str) -> str:
    """KFP's condition in Argo's words; only short words of our own, such as ``climb``, are ever compared."""
    text = _CONDITION.sub(lambda match: f"'{{{{inputs.parameters.{match[1]}}}}}'", condition)
    if re.sub(r"'[^']*'|==|!=|&&|\|\||[!()\s]", "", text):
        raise StepError(f"plain Argo has no translation of the condition {condition}")
    return text


def _selected(name: str, spec: dict[str, Any]) -> argo.ValueFrom:
    """An output of a pipeline: of one task, or of whichever branch was taken."""
    if "valueFromParameter" in spec:
        one = spec["valueFromParameter"]
        return argo.ValueFrom(
            parameter=f"{{{{tasks.{one['producerSubtask']}.outputs.parameters.{one['outputParameterKey']}}}}}"
        )
    if "valueFromOneof" not in spec:
        raise StepError(f"output {name}: plain Argo has no translation of {', '.join(spec)}")
    *others, last = [
        (each["producerSubtask"], each["outputParameterKey"]) for each in spec["valueFromOneof"]["parameterSelectors"]
    ]
    chosen = [
        f"tasks['{task}'].status == 'Succeeded' ? tasks['{task}'].outputs.parameters['{key}'] : "
        for task, key in others
    ]
    return argo.ValueFrom(expression="".join(chosen) + f"tasks['{last[0]}'].outputs.parameters['{last[1]}']")


def _retries(policy: dict[str, Any] | None) -> argo.RetryStrategy | None:
    if not policy:
        return None
    return argo.RetryStrategy(
        limit=argo.IntOrString(str(policy["maxRetryCount"])),
        retry_policy="Always",
        backoff=argo.Backoff(
            duration=policy["backoffDuration"],
            factor=argo.IntOrString(str(int(policy["backoffFactor"]))),
        ),
    )


def _folders(there: dict[str, Any]) -> tuple[list[argo.Volume], list[argo.VolumeMount]]:
    """The only place that is written to, and the shared memory where the profile has some."""
    volumes = [argo.Volume(name="tmp", empty_dir=argo.EmptyDirVolumeSource())]
    mounts = [argo.VolumeMount(name="tmp", mount_path="/tmp")]  # noqa: S108
    for each in there.get("emptyDirMounts", []):
        size = argo.Quantity(each["sizeLimit"])
        source = argo.EmptyDirVolumeSource(medium=each["medium"], size_limit=size)
        volumes.append(argo.Volume(name=each["volumeName"], empty_dir=source))
        mounts.append(argo.VolumeMount(name=each["volumeName"], mount_path=each["mountPath"]))
    return volumes, mounts


def _affinity(there: dict[str, Any]) -> argo.Affinity | None:
    terms = [
        argo.NodeSelectorTerm(
            match_expressions=[argo.NodeSelectorRequirement.model_validate(one) for one in each["matchExpressions"]]
        )
        for each in there.get("nodeAffinity", [])
    ]
    if not terms:
        return None
    needed = argo.NodeSelector(node_selector_terms=terms)
    return argo.Affinity(node_affinity=argo.NodeAffinity(required_during_scheduling_ignored_during_execution=needed))


def _store_settings() -> list[argo.EnvVar]:
    """Of the store; each may be missing, where the account's workload identity says it all."""

    def setting(name: str, key: str) -> argo.EnvVar:
        source = argo.ConfigMapKeySelector(name=SETTINGS, key=key, optional=True)
        return argo.EnvVar(name=name, value_from=argo.EnvVarSource(config_map_key_ref=source))

    def secret(name: str, key: str) -> argo.EnvVar:
        source = argo.SecretKeySelector(name=SECRET, key=key, optional=True)
        return argo.EnvVar(name=name, value_from=argo.EnvVarSource(secret_key_ref=source))

    return [
        setting("AWS_ENDPOINT_URL", "endpoint"),
        setting("AWS_REGION", "region"),
        secret("AWS_ACCESS_KEY_ID", "access_key"),
        secret("AWS_SECRET_ACCESS_KEY", "secret_key"),
    ]


def _quantities(values: Mapping[str, str]) -> dict[str, argo.Quantity]:
    return {name: argo.Quantity(value) for name, value in values.items()}


def _metadata(cluster: Cluster, name: str) -> argo.ObjectMeta:
    labels = {"app.kubernetes.io/part-of": "hasten"}
    return argo.ObjectMeta(name=name, namespace=cluster.namespace or None, labels=labels)


def _plain(made: Any) -> dict[str, Any]:
    """As it is applied, in the field names of the cluster."""
    document: dict[str, Any] = json.loads(made.model_dump_json(exclude_none=True, by_alias=True))
    return document
