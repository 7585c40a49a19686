"""The link from a task to the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

REPORT = "report/index.html"
"""The path of the report in a run."""


def report_uri(run: str) -> str:
    """Returns the URI of a run's report."""
    return f"{run.rstrip('/')}/{REPORT}"


def report_url(run: str, pattern: str | None = None, endpoint: str | None = None) -> str:
    """Returns the URL of a run's report, for a browser.

    `pattern` is this URL with `{uri}`, `{bucket}` and `{key}`. Default: the console of the run's cloud, or the server at
    `endpoint`, for S3 that is not Amazon's.
    """
    uri = report_uri(run)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "file", uri
    bucket, _, key = rest.partition("/")
    if pattern:
        return pattern.replace("{uri}", uri).replace("{bucket}", bucket).replace("{key}", key)
    if scheme == "s3" and endpoint:
        return f"{endpoint.rstrip('/')}/{bucket}/{key}"
    if scheme == "s3":
        return f"https://console.aws.amazon.com/s3/object/{bucket}?prefix={key}"
    if scheme == "gs":
        return f"https://storage.cloud.google.com/{bucket}/{key}"
    if scheme == "file":
        return f"file://{rest}"
    return uri


@attrs.define()
class ReportLink(BaseOperatorLink):
    """The button "Report" of tasks of the stage `report`; other tasks have none."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Returns the URL, after the task has run."""
        link: str | None = getattr(operator, "report_link", None)
        return link or ""
