"""Curates a dataset with pods.

Copy it into the folder of DAGs and set the image. The secret `sluice-store` has the variables of the object store
(AWS_ACCESS_KEY_ID and so on) and SLUICE_MODELS, the URI of the models' folder. For a pipeline of your own, pass its file to
`params` and to `curate`.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG
from kubernetes.client import models as k8s  # type: ignore[import-untyped]
from sluice_airflow.curate import curate, params, verify
from sluice_airflow.operators.pod import DEFAULT_IMAGE

PODS: dict[str, Any] = {
    "image": DEFAULT_IMAGE,  # registry.example/team/{program}:0.1.0 for images of one stage each
    "namespace": "default",
    "env_from": [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="sluice-store"))],
}

with DAG(
    dag_id="sluice_kubernetes",
    description="Curates an image dataset with pods: shards in, a smaller and better dataset out",
    schedule=None,
    params=params(max_tasks=64),
    max_active_tasks=64,
    default_args={"owner": "sluice"},
    tags=["sluice"],
    doc_md=__doc__,
) as dag:
    curate(
        executor="pod",
        prefix_group_id=False,
        # Nodes that run a model, on their own machines, or with more resources than their class requests:
        # GPUs: k8s.V1ResourceRequirements(requests={"cpu": "8", "memory": "16Gi"}, limits={…, "nvidia.com/gpu": "1"}), and
        # also "env_vars": {"SLUICE_DEVICE": "cuda"}.
        # overrides={"model": {"node_selector": {"pool": "big"}, "container_resources": k8s.V1ResourceRequirements(…)}},
        **PODS,
    ) >> verify(executor="pod", **PODS)
