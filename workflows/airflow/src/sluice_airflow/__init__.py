"""Sluice for Apache Airflow: the stages as operators, the whole DAG as a task group."""

from __future__ import annotations

__version__ = "0.1.0"
