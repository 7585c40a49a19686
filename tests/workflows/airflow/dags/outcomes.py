"""Programs that fail in different ways. The test sets the variables."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

from airflow.sdk import DAG
from sluice_airflow.operators.local import SluiceLocalOperator
from sluice_airflow.pipeline import load

PLACE = os.environ.get("TEST_PLACE", "/nowhere")
STORE = os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
BUCKET = os.environ.get("TEST_BUCKET", "s3://nowhere")
AT_ONCE = {"retries": 2, "retry_delay": timedelta(0), "retry_exponential_backoff": 0}

# The encoder on all samples that `read` accepted, without the steps between them.
EMBED = replace(load().node("embed"), arguments=("--model=${embedder}",))

with DAG("outcomes", schedule=None):
    # The store cannot be reached on the first try.
    SluiceLocalOperator(
        task_id="away",
        node="partition",
        run=f"{BUCKET}/away",
        parameters={"input": f"{BUCKET}/demo"},
        programs=os.environ.get("SLUICE_PROGRAMS"),
        env={
            "AWS_ENDPOINT_URL": "{{ 'http://127.0.0.1:1' if ti.try_number == 1 else '%s' }}" % STORE,
            "SLUICE_STORE_RETRY_FOR": "1",
        },
        **AT_ONCE,
    )
    # A program that is killed on the first try.
    SluiceLocalOperator(
        task_id="killed",
        node="partition",
        run=f"{PLACE}/killed",
        parameters={"input": f"{PLACE}/input"},
        programs=f"{PLACE}/programs",
        **AT_ONCE,
    )
    # A flag that the program refuses.
    SluiceLocalOperator(
        task_id="usage",
        node="dedup-match",
        run=f"{PLACE}/usage",
        parameters={"keep": "nothing"},
        programs=os.environ.get("SLUICE_PROGRAMS"),
        **AT_ONCE,
    )
    # A run without a plan.
    SluiceLocalOperator(
        task_id="data", node="read", run=f"{PLACE}/data", programs=os.environ.get("SLUICE_PROGRAMS"), **AT_ONCE
    )
    # No such program.
    SluiceLocalOperator(task_id="missing", node="read", run=f"{PLACE}/data", programs=f"{PLACE}/nothing", **AT_ONCE)

with DAG("long", schedule=None) as long:
    SluiceLocalOperator(
        task_id="embed",
        node=EMBED,
        run=f"{PLACE}/long",
        parameters={"embedder": "efficientnet-lite0"},
        programs=os.environ.get("SLUICE_PROGRAMS"),
        retries=0,
    )
    # Takes longer than it may.
    SluiceLocalOperator(
        task_id="slow",
        node=EMBED,
        run=f"{PLACE}/slow",
        parameters={"embedder": "efficientnet-lite0"},
        programs=os.environ.get("SLUICE_PROGRAMS"),
        retries=0,
        execution_timeout=timedelta(seconds=1),
    )

if __name__ == "__main__":
    long.test()
