"""Sluice for Apache Airflow: nodes of a pipeline as operators, a whole pipeline as a task group."""

from __future__ import annotations

__version__ = "0.1.0"
