"""Curates a dataset with processes on the workers.

Copy it into the folder of DAGs. The programs must be on the workers' PATH (or in the folder that SLUICE_PROGRAMS names), the models
where SLUICE_MODELS says, and the credentials of the object store in the workers' environment.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG
from sluice_airflow.curate import curate, params, verify

PROGRAMS = os.environ.get("SLUICE_PROGRAMS")

with DAG(
    dag_id="sluice_local",
    schedule=None,
    params=params(),
    # Each program uses all CPUs that it finds; more tasks at once need more memory and are hardly faster.
    max_active_tasks=2,
    default_args={"owner": "sluice"},
    tags=["sluice"],
    doc_md=__doc__,
) as dag:
    curate(executor="local", programs=PROGRAMS, prefix_group_id=False) >> verify(executor="local", programs=PROGRAMS)
