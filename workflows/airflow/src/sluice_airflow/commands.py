"""Prints what an Airflow DAG runs, as JSON lines: one for each node, with its edges and command line.

    python -m sluice_airflow.commands --executor pod --set input='["s3://raw/a", "s3://raw/b"]' --set output=s3://curated/a

The DAG is built as in a DAG file, and its templates are rendered with these values of the form, so the command lines are those
that Airflow runs. Nodes that fan out are shown as task 1 of 3. The tasks that turn units into tasks are left out; an edge through
one of them is shown as a direct edge.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from airflow.sdk import DAG

from sluice_airflow.curate import SluiceFanOutOperator, curate, params
from sluice_airflow.operators.base import SluiceNode
from sluice_airflow.pipeline import PipelineError, PipelineLike


def tasks(dag: DAG, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Returns the nodes of a DAG, with `values` in the form."""
    form = copy.deepcopy(dag.params)
    unknown = values.keys() - form.keys()
    if unknown:
        raise SystemExit(f"the form has no {', '.join(sorted(unknown))}")
    for name, given in values.items():
        form[name] = given
    filled = form.validate()
    for task in dag.topological_sort():  # type: ignore[no-untyped-call]
        unmapped = task.unmap({"task_index": 1, "task_count": 3}) if task.is_mapped else copy.copy(task)
        if not isinstance(unmapped, SluiceNode):
            continue
        context: Any = {"params": filled}
        unmapped._do_render_template_fields(
            unmapped, task.template_fields, context, dag.get_template_env(force_sandboxed=True), set()
        )
        line = {
            "node": unmapped.node.name,
            "task": task.task_id,
            "mapped": bool(task.is_mapped),
            "after": sorted(_before(dag, task.task_id)),
            "command": unmapped.command_line,
        }
        if (container := getattr(unmapped, "container", None)) is not None:
            line["container"] = container
        yield line


def _before(dag: DAG, task_id: str) -> set[str]:
    """Returns the nodes that a task waits for, including the nodes before a fan-out task."""
    direct: set[str] = set()
    beyond: set[str] = set()
    for earlier in dag.get_task(task_id).upstream_task_ids:
        if isinstance(dag.get_task(earlier), SluiceFanOutOperator):
            beyond |= _before(dag, earlier)
        else:
            direct.add(earlier)
    # A node waits for the one that counts its units, which mostly is an ancestor anyway.
    already = direct | {one for name in direct for one in _ancestors(dag, name)}
    return direct | (beyond - already)


def _ancestors(dag: DAG, task_id: str) -> set[str]:
    found: set[str] = set()
    for earlier in dag.get_task(task_id).upstream_task_ids:
        found |= {earlier} | _ancestors(dag, earlier)
    return found


def build(executor: str, pipeline: PipelineLike = None) -> DAG:
    """Returns a DAG with all nodes of a pipeline."""
    form = params(pipeline)
    with DAG("commands", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), params=form) as dag:
        curate(pipeline, executor=executor, prefix_group_id=False)  # type: ignore[arg-type]
    return dag


def value(text: str) -> tuple[str, Any]:
    """Parses `name=value`. The value is parsed as JSON where it is JSON."""
    name, separator, given = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    try:
        return name, json.loads(given)
    except ValueError:
        return name, given


def main() -> None:
    """Runs the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=["local", "pod"], default="local")
    parser.add_argument("--pipeline", metavar="FILE", help="a pipeline's .json or .toml; default: the default pipeline")
    parser.add_argument(
        "--set", action="append", type=value, default=[], metavar="NAME=VALUE", help="a value of the form; input and output are required"
    )
    arguments = parser.parse_args()
    try:
        dag = build(arguments.executor, arguments.pipeline)
    except PipelineError as e:
        raise SystemExit(str(e)) from e
    for line in tasks(dag, dict(arguments.set)):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
