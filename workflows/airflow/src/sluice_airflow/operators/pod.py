"""A step as a pod. Needs the extra `kubernetes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.xcom_sidecar import PodDefaults
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from kubernetes.client import models as k8s  # type: ignore[import-untyped]

from sluice_airflow import __version__
from sluice_airflow.definition import definition
from sluice_airflow.operators.base import SluiceStep, retries
from sluice_airflow.outcome import failure, last_words, readable, small

if TYPE_CHECKING:
    from airflow.sdk import Context

RESULT = f"{PodDefaults.XCOM_MOUNT_PATH}/return.json"
"""Where Airflow's sidecar looks for what goes into XCom."""

DEFAULT_IMAGE = f"sluice:{__version__}"

USER = 65532
"""Who the images run as."""


def pod_security() -> k8s.V1PodSecurityContext:
    """The pod's security context: not root, and the file group of its volumes."""
    return k8s.V1PodSecurityContext(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        fs_group=USER,
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    )


def container_security() -> k8s.V1SecurityContext:
    """A container's security context: a read-only root file system, no capability."""
    return k8s.V1SecurityContext(
        read_only_root_filesystem=True,
        allow_privilege_escalation=False,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
    )


def resources(kind: str) -> k8s.V1ResourceRequirements:
    """Requests and limits of a class of resources. The limit on CPUs tells the program how many threads to start."""
    needs = definition().resources[kind]
    amounts = {"cpu": str(needs.cpus), "memory": f"{needs.memory_mib}Mi"}
    return k8s.V1ResourceRequirements(requests=dict(amounts), limits=dict(amounts))


def log_line(_container: str, line: str) -> str:
    """A line of a program's log, for people."""
    level, text = readable(line)
    return text if level == "INFO" else f"{level}: {text}"


class SluicePodOperator(SluiceStep, KubernetesPodOperator):
    """Runs a step as a pod.

    Takes what :class:`KubernetesPodOperator` takes, with other defaults, but for `cmds` and `arguments`, which follow from the
    step. The program writes its result into the sidecar's volume, from where it goes to XCom, on failure too. A permanent exit
    code ends the task at once, with the container's last words; all else is tried again.

    :param step: the step's name, such as `read` or `dedup-match`; or `verify`
    :param run: where the run's manifests lie (templated)
    :param parameters: the DAG's parameters by name; those that are None or empty are left out (templated)
    :param task_index: this task's number among `task_count` (templated)
    :param task_count: how many tasks share the step's units (templated)
    :param image: the image; `{program}` in it stands for the step's program, for images of one stage each (templated)
    :param xcom_sidecar_image: the image of the sidecar that hands the result on; default: what the Kubernetes connection says,
        or Airflow's own
    :param report_url: how a browser reaches the report, with `{uri}`, `{bucket}` and `{key}`
    """

    template_fields: Sequence[str] = (
        *SluiceStep.own_fields,
        "xcom_sidecar_image",
        *KubernetesPodOperator.template_fields,
    )
    template_fields_renderers = {
        **KubernetesPodOperator.template_fields_renderers,
        "parameters": "json",
        "by_hand": "bash",
    }
    computed_fields = SluiceStep.computed_fields | {"cmds", "arguments"}
    ui_color = "#d9e6f0"

    def __init__(
        self,
        *,
        step: str,
        run: str,
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
            raise TypeError(f"{', '.join(sorted(taken))} of a Sluice pod follow from its step")
        # Before the rest, which assigns to `arguments`.
        self.set_step(step, run, parameters, task_index, task_count, report_url)
        found = self.definition_step
        defaults = {
            **retries(),
            "name": step,
            "image": image.replace("{program}", found.program),
            "do_xcom_push": found.tells_result,
            "container_resources": resources(found.resources),
            "security_context": pod_security(),
            "container_security_context": container_security(),
            "xcom_sidecar_container_security_context": container_security(),
            "automount_service_account_token": False,
            "termination_grace_period": 60,
            "labels": {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/component": step},
            # The pod's specification holds the values of its variables, and would stand in the exception.
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
        """It follows from the step."""

    @property
    def arguments(self) -> list[str]:
        """Its arguments, and where its result goes."""
        result = ["--result", RESULT] if self.do_xcom_push and self.definition_step.tells_result else []
        return [*self.command_line[1:], *result]

    @arguments.setter
    def arguments(self, _: object) -> None:
        """They follow from the step."""

    @property
    def container(self) -> list[str]:
        """All that the container is told."""
        return [*self.cmds, *self.arguments]

    @property
    def endpoint(self) -> str | None:
        """The S3 server, where it is not Amazon's."""
        variables = self.env_vars if isinstance(self.env_vars, dict) else {v.name: v.value for v in self.env_vars}
        return variables.get("AWS_ENDPOINT_URL") or super().endpoint

    def execute(self, context: Context) -> Any:
        """Runs the pod to its end, or hands it to the triggerer."""
        self.log.info("by hand: %s", self.by_hand)
        return super().execute(context)

    def extract_xcom(self, *args: Any, **kwargs: Any) -> dict[Any, Any] | None:
        """The program's result, without the names of its outputs."""
        result = small(super().extract_xcom(*args, **kwargs))
        if result is not None and result.get("status") == "up-to-date":
            self.log.info("up to date: nothing was left to do")
        return result

    def build_pod_request_obj(self, *args: Any, **kwargs: Any) -> k8s.V1Pod:
        """The pod, with the sidecar's image that was asked for."""
        pod = super().build_pod_request_obj(*args, **kwargs)
        if self.xcom_sidecar_image:
            for container in pod.spec.containers:
                if container.name == PodDefaults.SIDECAR_CONTAINER_NAME:
                    container.image = self.xcom_sidecar_image
        return pod

    def cleanup(self, pod: k8s.V1Pod, remote_pod: k8s.V1Pod, *args: Any, **kwargs: Any) -> None:
        """Deletes the pod as asked for; ends the task by what the program's exit code means."""
        try:
            super().cleanup(pod, remote_pod, *args, **kwargs)
        except AirflowSkipException:
            raise
        except AirflowException as e:
            ended = self._terminated(remote_pod)
            if ended is None:
                raise  # The pod did not start, or its node is lost.
            words = last_words(ended.message) or ended.reason or ""
            title = f"pod {remote_pod.metadata.name}: {self.definition_step.title}"
            raise failure(title, ended.exit_code, words, self.by_hand) from e

    def _terminated(self, pod: k8s.V1Pod) -> k8s.V1ContainerStateTerminated | None:
        """How the program's container ended, if it did."""
        statuses = (pod.status.container_statuses if pod and pod.status else None) or []
        for status in statuses:
            if status.name == self.base_container_name and status.state and status.state.terminated:
                ended = status.state.terminated
                return ended if ended.exit_code != 0 else None
        return None
