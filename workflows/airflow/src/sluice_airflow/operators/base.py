"""What both operators have in common: the node that they run, and its command line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink
from airflow.sdk.exceptions import AirflowFailException

from sluice_airflow.links import ReportLink, report_url
from sluice_airflow.pipeline import Node, PipelineLike, Retry, by_hand, load

if TYPE_CHECKING:
    from airflow.sdk import Context


UNITS: Mapping[str, str] = {
    "partitions": "part",
    "hash-ranges": "exact",
    "cluster-groups": "group",
    "output-shards": "shard",
}
"""How the units of a kind are named in a run. A task does this unit, and with fewer tasks than units further ones."""


def retries(retry: Retry) -> dict[str, Any]:
    """Returns a pipeline's way to retry failed tasks, as arguments of an operator."""
    return {
        "retries": retry.limit,
        "retry_delay": timedelta(seconds=retry.first_seconds),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(seconds=retry.longest_seconds),
    }


class SluiceNode:
    """A node of a pipeline, its parameters' values, and this task's share of its units.

    `command_line` and `by_hand` are computed from the other fields, after these are rendered. `by_hand` is a template field too,
    so that the task's page shows it, but it is never rendered: neither the words of the pipeline nor the values of parameters are
    templates.
    """

    own_fields: Sequence[str] = ("run", "parameters", "task_index", "task_count", "by_hand")
    computed_fields: frozenset[str] = frozenset({"by_hand"})
    operator_extra_links: Collection[BaseOperatorLink] = (ReportLink(),)

    def set_node(
        self,
        node: str | Node,
        pipeline: PipelineLike,
        run: str,
        parameters: Mapping[str, Any] | None,
        task_index: int | None,
        task_count: int | None,
        report_url: str | None,
    ) -> None:
        """Takes the operator's arguments. Raises PipelineError where the pipeline has no such node or parameter."""
        self.pipeline = load(pipeline)
        self.node = node if isinstance(node, Node) else self.pipeline.node(node)
        self.run = run
        self.parameters = dict(parameters or {})
        self.task_index = task_index
        self.task_count = task_count
        self.report_url = report_url
        for name in self.parameters:
            self.pipeline.parameter(name)
        if (task_index is None) != (task_count is None):
            raise ValueError("task_index and task_count: expected both or none")

    @property
    def command_line(self) -> list[str]:
        """The node's command line, the program's name first."""
        share = None
        if self.task_index is not None and self.task_count is not None:
            share = (int(self.task_index), int(self.task_count))
        return self.pipeline.command(self.node, self.run, self.parameters, share)

    @property
    def by_hand(self) -> str:
        """The same for a shell."""
        return by_hand(self.command_line)

    @by_hand.setter
    def by_hand(self, _: object) -> None:
        """Ignored: Airflow assigns to every template field."""

    @property
    def share(self) -> str:
        """What this task works on, for people: `partitions 1/6: part-00000`."""
        units = self.node.units
        if units is None or self.task_index is None:
            return ""
        index = int(self.task_index)
        return f"{units.kind} {index + 1}/{self.task_count}: {UNITS.get(units.kind, units.kind)}-{index:05}"

    def check_fields(self, context: Context) -> None:
        """Refuses a run whose configuration has a misspelt field of the form: Airflow takes any. The first task looks."""
        known = set(context["dag"].params)
        for name in (context["dag_run"].conf or {}) if not self.node.after else ():
            near = [] if name in known else difflib.get_close_matches(name, known, 1, 0.8)
            if near:
                raise AirflowFailException(f"the form has no field {name!r}; hint: is it {near[0]!r}?")

    @property
    def endpoint(self) -> str | None:
        """The S3 server, where it is not Amazon's."""
        return os.environ.get("AWS_ENDPOINT_URL")

    @property
    def report_link(self) -> str | None:
        """The URL of the report that this task wrote."""
        if self.node.stage != "report":
            return None
        url = report_url(self.run, self.report_url, self.endpoint)
        # Airflow's page drops links to local files: a button that opens nothing.
        return None if url.startswith("file://") else url

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], *args: Any, **kwargs: Any
    ) -> None:
        # A computed field contains rendered values: braces in it are not a template.
        if parent is self:
            template_fields = [field for field in template_fields if field not in self.computed_fields]
        super()._do_render_template_fields(parent, template_fields, *args, **kwargs)  # type: ignore[misc]
