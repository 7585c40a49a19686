"""The default pipeline as pods, and pods that fail. The test sets the variables."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG
from kubernetes.client import models as k8s
from sluice_airflow.curate import curate, params, verify
from sluice_airflow.operators.pod import SluicePodOperator

BUCKET = os.environ.get("TEST_BUCKET", "s3://nowhere")
STORE = os.environ.get("TEST_STORE", "http://127.0.0.1:1")
PODS: dict[str, Any] = {
    "image": os.environ.get("TEST_IMAGE", "sluice:test"),
    "namespace": "default",
    "in_cluster": False,
    "config_file": os.environ.get("TEST_CLUSTER"),
    "env_from": [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="sluice-store"))],
    "xcom_sidecar_image": "registry.example/sidecar:1",
    # Tests poll more often.
    "startup_check_interval_seconds": 0.2,
    "base_container_status_polling_interval": 0.2,
}
AT_ONCE: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(0), "retry_exponential_backoff": 0}

with DAG("pods", schedule=None, params=params(max_tasks=2)):
    curate(executor="pod", prefix_group_id=False, **PODS) >> verify(executor="pod", **PODS)

with DAG("pod_outcomes", schedule=None):
    SluicePodOperator(
        task_id="away",
        node="partition",
        run=f"{BUCKET}/away",
        parameters={"input": f"{BUCKET}/demo"},
        env_vars={
            "AWS_ENDPOINT_URL": "{{ 'http://127.0.0.1:1' if ti.try_number == 1 else '%s' }}" % STORE,
            "SLUICE_STORE_RETRY_FOR": "1",
        },
        **AT_ONCE,
        **PODS,
    )
    SluicePodOperator(
        task_id="usage", node="dedup-match", run=f"{BUCKET}/usage", parameters={"keep": "nothing"}, **AT_ONCE, **PODS
    )
    SluicePodOperator(task_id="data", node="read", run=f"{BUCKET}/data", **AT_ONCE, **PODS)
    verify(task_id="unsound", run=f"{BUCKET}/data", executor="pod", **AT_ONCE, **PODS)
    # The triggerer waits for these.
    SluicePodOperator(
        task_id="deferred",
        node="partition",
        run=f"{BUCKET}/deferred",
        parameters={"input": f"{BUCKET}/demo"},
        deferrable=True,
        poll_interval=0.2,
        **AT_ONCE,
        **PODS,
    )
    SluicePodOperator(
        task_id="deferred_data",
        node="read",
        run=f"{BUCKET}/data",
        deferrable=True,
        poll_interval=0.2,
        **AT_ONCE,
        **PODS,
    )
