"""A node as a pod. Needs the extra `kubernetes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.xcom_sidecar import PodDefaults
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from kubernetes.client import models as k8s  # type: ignore[import-untyped]

from sluice_airflow import __version__
from sluice_airflow.operators.base import SluiceNode, retries
from sluice_airflow.outcome import failure, last_words, readable, small
from sluice_airflow.pipeline import Node, PipelineLike, Resources

if TYPE_CHECKING:
    from airflow.sdk import Context

RESULT = f"{PodDefaults.XCOM_MOUNT_PATH}/return.json"
"""The file that Airflow's sidecar reads for XCom."""

DEFAULT_IMAGE = f"sluice:{__version__}"

USER = 65532
"""The user of the images."""


def pod_security() -> k8s.V1PodSecurityContext:
    """Returns the pod's security context: not root, and the group of its volumes."""
    return k8s.V1PodSecurityContext(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        fs_group=USER,
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    )


def container_security() -> k8s.V1SecurityContext:
    """Returns a container's security context: a read-only root file system, no capability."""
    return k8s.V1SecurityContext(
        read_only_root_filesystem=True,
        allow_privilege_escalation=False,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
    )


SIDECAR_LIMITS = {"cpu": "100m", "memory": "64Mi"}
"""What the sidecar may use: namespaces with a ResourceQuota refuse containers without limits."""


def resources(needs: Resources) -> k8s.V1ResourceRequirements:
    """Returns requests and limits. The program starts as many threads as the limit has CPUs."""
    amounts = {"cpu": str(needs.cpus), "memory": f"{needs.memory_mib}Mi"}
    return k8s.V1ResourceRequirements(requests=dict(amounts), limits=dict(amounts))


def log_line(_container: str, line: str) -> str:
    """Returns a line of a program's log, for people."""
    level, text = readable(line)
    return text if level == "INFO" else f"{level}: {text}"


class SluicePodOperator(SluiceNode, KubernetesPodOperator):
    """Runs a node as a pod.

    Takes the arguments of :class:`KubernetesPodOperator`, with other defaults, except `cmds` and `arguments`, which follow from
    the node. The program writes its result to the volume of the sidecar, which passes it to XCom, on failure too. A permanent exit
    code fails the task at once, with the container's last words. All other failures are retried.

    :param node: the node's name, such as `read` or `dedup-match`
    :param pipeline: the pipeline that has the node, as in :func:`sluice_airflow.curate.curate`
    :param run: the URI of the run (templated)
    :param parameters: values of the pipeline's parameters, by name; the default replaces None and empty values (templated)
    :param task_index: this task's number among `task_count` (templated)
    :param task_count: the number of tasks that share the node's units (templated)
    :param image: the image; `{program}` in it is replaced by the node's program, for images of one stage each (templated)
    :param xcom_sidecar_image: the image of the sidecar; default: that of the Kubernetes connection, or Airflow's own
    :param report_url: the report's URL for a browser, with `{uri}`, `{bucket}` and `{key}`
    """

    template_fields: Sequence[str] = (
        *SluiceNode.own_fields,
        "xcom_sidecar_image",
        *KubernetesPodOperator.template_fields,
    )
    template_fields_renderers = {
        **KubernetesPodOperator.template_fields_renderers,
        "parameters": "json",
        "by_hand": "bash",
    }
    computed_fields = SluiceNode.computed_fields | {"cmds", "arguments"}
    ui_color = "#d9e6f0"

    def __init__(
        self,
        *,
        node: str | Node,
        run: str,
        pipeline: PipelineLike = None,
        parameters: Mapping[str, Any] | None = None,
        task_index: int | None = None,
        task_count: int | None = None,
        image: str = DEFAULT_IMAGE,
        xcom_sidecar_image: str | None = None,
        report_url: str | None = None,
        **kwargs: Any,
    ) -> None:
        taken = {"cmds", "arguments"} & kwargs.keys()
        if taken:
            raise TypeError(f"{', '.join(sorted(taken))}: not arguments of a Sluice pod, whose node gives them")
        # First, because the rest assigns to `arguments`.
        self.set_node(node, pipeline, run, parameters, task_index, task_count, report_url)
        defaults = {
            **retries(self.pipeline.retry),
            "name": self.node.name,
            "image": image.replace("{program}", self.node.program),
            "do_xcom_push": self.node.takes_result,
            "container_resources": resources(self.pipeline.resources[self.node.resources]),
            "security_context": pod_security(),
            "container_security_context": container_security(),
            "xcom_sidecar_container_security_context": container_security(),
            "automount_service_account_token": False,
            "termination_grace_period": 60,
            "labels": {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/component": self.node.name},
            # The pod's specification has the values of its variables, and would be part of the exception.
            "log_pod_spec_on_failure": False,
            "log_formatter": log_line,
        }
        super().__init__(**{**defaults, **kwargs})
        self.xcom_sidecar_image = xcom_sidecar_image

    @property
    def cmds(self) -> list[str]:
        """The program."""
        return self.command_line[:1]

    @cmds.setter
    def cmds(self, _: object) -> None:
        """Ignored: it follows from the node."""

    @property
    def arguments(self) -> list[str]:
        """The program's arguments, with the file for its result. Kubernetes turns `$$` into `$`."""
        result = ["--result", RESULT] if self.do_xcom_push and self.node.takes_result else []
        return [word.replace("$", "$$") for word in (*self.command_line[1:], *result)]

    @arguments.setter
    def arguments(self, _: object) -> None:
        """Ignored: they follow from the node."""

    @property
    def container(self) -> list[str]:
        """The container's command and arguments."""
        return [*self.cmds, *self.arguments]

    @property
    def endpoint(self) -> str | None:
        """The S3 server, where it is not Amazon's."""
        variables = self.env_vars if isinstance(self.env_vars, dict) else {v.name: v.value for v in self.env_vars}
        return variables.get("AWS_ENDPOINT_URL") or super().endpoint

    def execute(self, context: Context) -> Any:
        """Runs the pod to its end, or defers to the triggerer."""
        self.check_fields(context)
        self.log.info("by hand: %s", self.by_hand)
        return super().execute(context)

    def extract_xcom(self, *args: Any, **kwargs: Any) -> dict[Any, Any] | None:
        """Returns the program's result, without the paths of its outputs."""
        result = small(super().extract_xcom(*args, **kwargs))
        if result is not None and result.get("status") == "up-to-date":
            self.log.info("up to date")
        return result

    def build_pod_request_obj(self, *args: Any, **kwargs: Any) -> k8s.V1Pod:
        """Returns the pod, with the sidecar's image as set, and with limits where the connection has no resources for it."""
        pod = super().build_pod_request_obj(*args, **kwargs)
        for container in pod.spec.containers:
            if container.name == PodDefaults.SIDECAR_CONTAINER_NAME:
                container.image = self.xcom_sidecar_image or container.image
                if container.resources == PodDefaults.SIDECAR_CONTAINER.resources:
                    container.resources = k8s.V1ResourceRequirements(requests=container.resources.requests, limits=dict(SIDECAR_LIMITS))
        return pod

    def cleanup(self, pod: k8s.V1Pod, remote_pod: k8s.V1Pod, *args: Any, **kwargs: Any) -> None:
        """Deletes the pod as set, and ends the task according to the program's exit code."""
        try:
            super().cleanup(pod, remote_pod, *args, **kwargs)
        except AirflowSkipException:
            raise
        except AirflowException as e:
            ended = self._terminated(remote_pod)
            if ended is None:
                raise  # The pod did not start, or the machine is lost.
            words = last_words(ended.message) or ended.reason or ""
            title = f"pod {remote_pod.metadata.name}: {self.node.title}"
            raise failure(title, ended.exit_code, words, self.by_hand, self.pipeline.retry) from e

    def _terminated(self, pod: k8s.V1Pod) -> k8s.V1ContainerStateTerminated | None:
        """Returns how the program's container failed; None where it did not."""
        statuses = (pod.status.container_statuses if pod and pod.status else None) or []
        for status in statuses:
            if status.name == self.base_container_name and status.state and status.state.terminated:
                ended = status.state.terminated
                return ended if ended.exit_code != 0 else None
        return None
