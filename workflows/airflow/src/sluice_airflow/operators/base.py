"""What both operators share: which step they run, and its command line."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperatorLink

from sluice_airflow.definition import Step, by_hand, definition
from sluice_airflow.links import ReportLink, report_url


def retries() -> dict[str, Any]:
    """How the DAG's definition tries a failed task again, as arguments of an operator."""
    retry = definition().retry
    return {
        "retries": retry.limit,
        "retry_delay": timedelta(seconds=retry.first_seconds),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(seconds=retry.longest_seconds),
    }


class SluiceStep:
    """A step, what it is told, and this task's share of it.

    `command_line` and `by_hand` follow from the other fields once those are rendered. They are template fields too, so that
    the task's page shows them; nothing can be assigned to them.
    """

    own_fields: Sequence[str] = ("run", "parameters", "task_index", "task_count", "by_hand")
    computed_fields: frozenset[str] = frozenset({"by_hand"})
    operator_extra_links: Collection[BaseOperatorLink] = (ReportLink(),)

    def set_step(
        self,
        step: str,
        run: str,
        parameters: Mapping[str, Any] | None,
        task_index: int | None,
        task_count: int | None,
        report_url: str | None,
    ) -> None:
        """Takes what the operator was given."""
        self.step = step
        self.run = run
        self.parameters = dict(parameters or {})
        self.task_index = task_index
        self.task_count = task_count
        self.report_url = report_url
        for name in self.parameters:
            definition().parameter(name)
        if (task_index is None) != (task_count is None):
            raise ValueError("task_index and task_count go together")

    @property
    def definition_step(self) -> Step:
        """The step in the DAG's definition."""
        return definition().step(self.step)

    @property
    def command_line(self) -> list[str]:
        """The step's command line, the program's name first."""
        share = None
        if self.task_index is not None and self.task_count is not None:
            share = (int(self.task_index), int(self.task_count))
        return self.definition_step.command(self.run, self.parameters, share)

    @property
    def by_hand(self) -> str:
        """The same for a shell."""
        return by_hand(self.command_line)

    @by_hand.setter
    def by_hand(self, _: object) -> None:
        """Rendering assigns to every template field."""

    @property
    def endpoint(self) -> str | None:
        """The S3 server, where it is not Amazon's."""
        return os.environ.get("AWS_ENDPOINT_URL")

    @property
    def report_link(self) -> str | None:
        """Where a browser finds the report that this task wrote."""
        if self.step != "report":
            return None
        return report_url(self.run, self.report_url, self.endpoint)

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], *args: Any, **kwargs: Any
    ) -> None:
        # What follows from rendered values must not be rendered again: a value may hold braces.
        if parent is self:
            template_fields = [field for field in template_fields if field not in self.computed_fields]
        super()._do_render_template_fields(parent, template_fields, *args, **kwargs)  # type: ignore[misc]
