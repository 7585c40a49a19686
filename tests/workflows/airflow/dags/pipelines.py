"""A pipeline of the user's own, from the file next to this one."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import DAG
from sluice_airflow.curate import curate, params, verify

PHOTOS = Path(__file__).with_name("photos.json")
PROGRAMS = os.environ.get("SLUICE_PROGRAMS")

with DAG("photos", schedule=None, params=params(PHOTOS)):
    curate(PHOTOS, programs=PROGRAMS, prefix_group_id=False) >> verify(programs=PROGRAMS)
