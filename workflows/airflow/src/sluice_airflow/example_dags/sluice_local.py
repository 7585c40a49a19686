"""Curates a dataset with processes on the workers.

Copy it into the folder of DAGs. Workers need the programs on PATH or in the folder that SLUICE_PROGRAMS names, the models in
the folder that SLUICE_MODELS names, and the variables of the object store. For a pipeline of your own, pass its file to `params`
and to `curate`.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG
from sluice_airflow.curate import curate, params, verify

PROGRAMS = os.environ.get("SLUICE_PROGRAMS")

with DAG(
    dag_id="sluice_local",
    description="Curates an image dataset on the workers: shards in, a smaller and better dataset out",
    schedule=None,
    params=params(),
    # Each program uses all CPUs. More tasks at once need more memory and are hardly faster.
    max_active_tasks=2,
    default_args={"owner": "sluice"},
    tags=["sluice"],
    doc_md=__doc__,
) as dag:
    curate(executor="local", programs=PROGRAMS, prefix_group_id=False) >> verify(executor="local", programs=PROGRAMS)
