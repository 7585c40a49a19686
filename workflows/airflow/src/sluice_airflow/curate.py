"""A whole pipeline as a task group."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator, Param, TaskGroup, XComArg
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException

from sluice_airflow.operators.base import retries
from sluice_airflow.operators.local import SluiceLocalOperator
from sluice_airflow.pipeline import VERIFY, Node, Parameter, Pipeline, PipelineError, PipelineLike, Units, load

if TYPE_CHECKING:
    from airflow.sdk import Context

Executor = Literal["local", "pod"]

MAX_TASKS = 16
"""Tasks that a node fans out over, unless set otherwise."""

TIMEOUTS: Mapping[str, timedelta] = {
    "light": timedelta(hours=2),
    "cpu": timedelta(hours=12),
    "model": timedelta(hours=24),
    "copy": timedelta(hours=12),
}
"""Time limit of one try of a task, by class of resources. A retry continues where the last try stopped."""

TYPES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "URI": ("string", {}),
    "MODEL": ("string", {}),
    "INDEX": ("string", {}),
    "LICENSE": ("string", {}),
    "HASH": ("string", {}),
    "CAPTIONS": ("string", {"examples": ["kept", "all"]}),
    "NAME=SHARE": ("string", {}),
    "SIDE[:SHAPE]": ("string", {}),
    "COLUMN": ("string", {}),
    "EXTENSION": ("string", {}),
    "WHICH": ("string", {"examples": ["first", "all", "each"]}),
    "FORMAT": ("string", {"examples": ["webdataset", "parquet"]}),
    "PRECISION": ("string", {"examples": ["float32", "bfloat16", "int8"]}),
    "DEVICE": ("string", {"examples": ["auto", "cpu", "cuda"]}),
    "KEEP": ("string", {"examples": ["best", "hard", "easy", "random"]}),
    "N": ("integer", {"minimum": 1}),
    "BYTES": ("integer", {"minimum": 1}),
    "PIXELS": ("integer", {"minimum": 1}),
    "BITS": ("integer", {"minimum": 0}),
    "SCORE": ("number", {}),
    "EPS": ("number", {"minimum": 0}),
    "RATIO": ("number", {"minimum": 1}),
}
"""The form's type for each kind of value; text for all others."""

RUN = "{{ params['run'] or params['output'].rstrip('/') ~ '.run' }}"
"""The URI of the run: the form's, or that of the output with `.run`, as in `sluice run`."""

TASKS = "{{ params['max-tasks'] or %d }}" % MAX_TASKS
"""The largest number of tasks of a node: the form's."""

FORM = ("run", "max-tasks")
"""Fields of the form that are no parameters of a pipeline."""


def params(pipeline: PipelineLike = None, **defaults: Any) -> dict[str, Param]:
    """Returns the form: the pipeline's parameters, the URI of the run, and the number of tasks.

    `defaults` sets values, with `_` for `-` in names: `params(embedder="clip-vit-b32", min_aesthetic=5.5)`. A DAG with a schedule
    needs one for each required parameter.

    :param pipeline: the pipeline, as in :func:`curate`
    """
    known = load(pipeline).parameters
    names = [parameter.name for parameter in known]
    for name in names:
        if name in (*FORM, "pipeline"):
            raise PipelineError(f"parameter {name}: the form has a field of this name; give the parameter another one")
    fields = {name.replace("-", "_"): name for name in (*names, *FORM)}
    given = {fields.get(name, name): value for name, value in defaults.items()}
    unknown = given.keys() - {*names, *FORM}
    if unknown:
        raise TypeError(f"the pipeline has no parameter {', '.join(sorted(unknown))}")
    run = Param(
        given.get("run"),
        type=["null", "string"],
        title="run",
        description="URI of the run, for its manifests (default: the output's, with .run)",
    )
    tasks = Param(
        given.get("max-tasks", MAX_TASKS),
        type=["null", "integer"],
        minimum=1,
        maximum=_longest_map(),
        title="max-tasks",
        section="Sizes",
        description=f"Largest number of tasks of a step; each takes its share of the units (default: {MAX_TASKS})",
    )
    required = {parameter.name: _param(parameter, given) for parameter in known if parameter.required}
    optional = {parameter.name: _param(parameter, given) for parameter in known if not parameter.required}
    return {**required, "run": run, **optional, "max-tasks": tasks}


def _param(parameter: Parameter, given: Mapping[str, Any]) -> Param:
    rest: dict[str, Any] = {"title": parameter.name, "description": parameter.help}
    if parameter.section:
        rest["section"] = parameter.section
    kind, limits = ("boolean", {}) if parameter.switch else TYPES.get(parameter.value, ("string", {}))
    value = given.get(parameter.name, _default(parameter, kind))
    rest.update(limits)
    if parameter.many:
        kind, rest["items"], rest["minItems"] = "array", {"type": kind}, 1
    elif parameter.required and kind == "string":
        rest["minLength"] = 1
    if parameter.required:
        return Param(type=kind, **rest) if value is None else Param(value, type=kind, **rest)
    return Param(value, type=["null", kind], **rest)


def _default(parameter: Parameter, kind: str) -> Any:
    """Returns a parameter's default, which the pipeline has as text, in the form's type."""
    if parameter.default in (None, ""):
        return None
    if parameter.many:
        return parameter.texts(None)
    if kind == "string":
        return parameter.texts(None)[0]
    if not isinstance(parameter.default, str):
        return parameter.default
    try:
        return json.loads(parameter.default)
    except ValueError as e:
        raise PipelineError(f"parameter {parameter.name}: expected a default of type {kind}, got {parameter.default!r}") from e


def template(parameter: Parameter) -> str:
    """Returns the template that passes the form's value of a parameter to an operator."""
    value = f"params[{parameter.name!r}]"
    given = f"{value} | tojson" if parameter.many or parameter.switch else value
    return "{{ '' if %s is none else %s }}" % (value, given)


class SluiceFanOutOperator(BaseOperator):
    """Turns units into tasks: one for each unit, and at most `max_tasks`.

    Returns `{"task_index": i, "task_count": n}` for each task. There is always one. A task without units does nothing, but
    Airflow would skip a node without tasks, and everything after it.

    :param units: what the tasks share, and what counts it
    :param count: the result of the node that counts them; None where a text does (templated)
    :param parameters: values of the pipeline's parameters, by name (templated)
    :param max_tasks: the largest number of tasks (templated)
    :param pipeline: the pipeline, as in :func:`curate`
    """

    template_fields = ("count", "parameters", "max_tasks")
    ui_color = "#eeeeee"

    def __init__(
        self,
        *,
        units: Units,
        count: Any = None,
        parameters: Mapping[str, Any] | None = None,
        max_tasks: int | str = MAX_TASKS,
        pipeline: PipelineLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.count = count
        self.parameters = dict(parameters or {})
        self.max_tasks = max_tasks
        self.pipeline = load(pipeline)

    def execute(self, context: Context) -> list[dict[str, int]]:
        """Returns the share of each task."""
        units = self._counted()
        tasks = tasks_for(units, int(self.max_tasks))
        self.log.info("%d %s, %d tasks", units, self.units.kind, tasks)
        return [{"task_index": index, "task_count": tasks} for index in range(tasks)]

    def _counted(self) -> int:
        if self.units.text is None:
            return int(self.count["fan_out"][self.units.kind])
        [text] = self.pipeline.fill(self.units.text, self.parameters)
        try:
            return int(text or 1)
        except ValueError as e:
            raise AirflowFailException(f"{self.units.kind}: expected a number, got {text!r}") from e


def tasks_for(units: int, max_tasks: int) -> int:
    """Returns the number of tasks that share the units."""
    return max(1, min(units, max_tasks, _longest_map()))


def curate(
    pipeline: PipelineLike = None,
    *,
    run: str = RUN,
    parameters: Mapping[str, Any] | None = None,
    executor: Executor = "local",
    operator: type[BaseOperator] | None = None,
    max_tasks: int | str = TASKS,
    pools: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    group_id: str = "curate",
    prefix_group_id: bool = True,
    **common: Any,
) -> TaskGroup:
    """Returns the task group of a pipeline: a task for each node, in the pipeline's order.

    A small task in front of the nodes that fan out, `fan-out-partitions` and so on, turns their units into tasks.

    :param pipeline: the path of a `.json` file with what `sluice dag --pipeline FILE --format json` prints; this JSON as a mapping;
        or the path of a pipeline's `.toml`, for which the program is run wherever Airflow parses the DAG. Default: the
        default pipeline
    :param run: the URI of the run (templated)
    :param parameters: values of the pipeline's parameters, by name (templated); default: those of the form of :func:`params`
    :param executor: `local`, processes on the workers, or `pod`
    :param operator: an operator in its place: a subclass of one of the two
    :param max_tasks: the largest number of tasks of a node (templated); default: the form's
    :param pools: Airflow's pool for each class of resources (`light`, `cpu`, `model`, `copy`); it must exist. A task takes one
        slot. Default: `default_pool`
    :param overrides: arguments of operators by class of resources, or by node, which has precedence
    :param common: arguments of all operators
    """
    kind = operator or _operator(executor)
    pipeline = load(pipeline)
    if parameters is None:
        parameters = {parameter.name: template(parameter) for parameter in pipeline.parameters}
    for name in parameters:
        pipeline.parameter(name)
    overrides = overrides or {}
    unknown = overrides.keys() - pipeline.resources.keys() - {node.name for node in pipeline.nodes}
    unknown |= (pools or {}).keys() - pipeline.resources.keys()
    if unknown:
        raise ValueError(f"neither a node nor a class of resources: {', '.join(sorted(unknown))}")
    with TaskGroup(group_id, prefix_group_id=prefix_group_id, tooltip="Sluice: from shards to a curated dataset") as group:
        tasks: dict[str, Any] = {}
        shares: dict[Units, SluiceFanOutOperator] = {}
        for node in pipeline.nodes:
            arguments = {
                "node": node.name,
                "pipeline": pipeline,
                "run": run,
                "parameters": {name: parameters.get(name) for name in node.parameters},
                "execution_timeout": TIMEOUTS[node.resources],
                "doc_md": describe(node, pipeline),
                # The operators have these by themselves, but a mapped one takes Airflow's defaults first.
                **retries(pipeline.retry),
                **({"pool": pools[node.resources]} if pools and node.resources in pools else {}),
                **common,
                **overrides.get(node.resources, {}),
                **overrides.get(node.name, {}),
            }
            if node.units is None:
                tasks[node.name] = kind(task_id=node.name, **arguments)
            else:
                if node.units not in shares:
                    count = XComArg(tasks[node.units.node]) if node.units.node else None
                    shares[node.units] = _fan_out(node.units, count, pipeline, parameters, max_tasks)
                mapped = kind.partial(
                    task_id=node.name,
                    map_index_template="{{ task.share }}",
                    **arguments,
                )
                tasks[node.name] = mapped.expand_kwargs(XComArg(shares[node.units]))
            for earlier in node.after:
                tasks[earlier] >> tasks[node.name]
    return group


def verify(*, run: str = RUN, executor: Executor = "local", operator: type[BaseOperator] | None = None, **kwargs: Any) -> Any:
    """Returns the task `verify`, which proves a finished run and fails where it is not sound."""
    kind = operator or _operator(executor)
    defaults = {"task_id": VERIFY.name, "execution_timeout": TIMEOUTS[VERIFY.resources], "doc_md": describe(VERIFY, load())}
    return kind(**{**defaults, "node": VERIFY, "run": run, **kwargs})


def describe(node: Node, pipeline: Pipeline) -> str:
    """Returns the text of a task's page."""
    shared = f"fans out over {node.units.kind}" if node.units else "one task"
    needs = pipeline.resources[node.resources]
    lines = [
        *([f"{node.about}.", ""] if node.about else []),
        f"`{node.title}`: {shared}; class `{node.resources}` ({needs.cpus} CPUs, {needs.memory_mib} MiB).",
        "",
        "The first line of the log, and *by_hand* among the rendered templates, is the command line. It runs anywhere that has "
        "the program and access to the run. A second run of the task does only what is not up to date.",
        *(["", "```text", *node.arguments, "```"] if node.arguments else []),
        *(["", "| parameter | |", "|---|---|"] if node.parameters else []),
        *(f"| {name} | {pipeline.parameter(name).help} |" for name in node.parameters),
    ]
    return "\n".join(lines)


def _fan_out(
    units: Units, count: Any, pipeline: Pipeline, parameters: Mapping[str, Any], max_tasks: int | str
) -> SluiceFanOutOperator:
    return SluiceFanOutOperator(
        task_id=pipeline.fan_outs[units],
        units=units,
        count=count,
        parameters={name: parameters.get(name) for name in units.parameters},
        max_tasks=max_tasks,
        pipeline=pipeline,
        retries=2,
        doc_md=f"Turns {units.kind} into tasks: one for each, and at most max-tasks.",
    )


def _operator(executor: Executor) -> type[BaseOperator]:
    if executor == "local":
        return SluiceLocalOperator
    if executor == "pod":
        # Imported here, because it needs the extra `kubernetes`.
        from sluice_airflow.operators.pod import SluicePodOperator

        return SluicePodOperator
    raise ValueError(f"executor: expected local or pod, got {executor!r}")


def _longest_map() -> int:
    """Returns Airflow's limit on the tasks of one mapped node."""
    return int(conf.getint("core", "max_map_length", fallback=1024))
