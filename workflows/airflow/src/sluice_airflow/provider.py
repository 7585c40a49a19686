"""This package as Airflow lists it."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Returns the information for the entry point `apache_airflow_provider`."""
    return {
        "package-name": "airflow-provider-sluice",
        "name": "Sluice",
        "description": "Curates image datasets: WebDataset shards in, a smaller and better WebDataset out.",
        "integrations": [{"integration-name": "Sluice", "tags": ["software"]}],
        "operators": [
            {
                "integration-name": "Sluice",
                "python-modules": ["sluice_airflow.operators.local", "sluice_airflow.operators.pod"],
            }
        ],
        "extra-links": ["sluice_airflow.links.ReportLink"],
    }
