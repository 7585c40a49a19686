"""The whole DAG as a task group."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator, Param, TaskGroup, XComArg
from airflow.sdk.configuration import conf

from sluice_airflow.definition import Parameter, Step, definition
from sluice_airflow.operators.base import retries
from sluice_airflow.operators.local import SluiceLocalOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

Executor = Literal["local", "pod"]

MAX_TASKS = 16
"""Tasks that a step fans out over, unless said otherwise."""

TIMEOUTS: Mapping[str, timedelta] = {
    "light": timedelta(hours=2),
    "cpu": timedelta(hours=12),
    "model": timedelta(hours=24),
    "copy": timedelta(hours=12),
}
"""How long one try of a task may take, by class of resources. What it got done stays done."""

TYPES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "URI": ("string", {}),
    "MODEL": ("string", {}),
    "PRECISION": ("string", {"examples": ["float32", "bfloat16", "int8"]}),
    "RANKING": ("string", {"examples": ["best", "hard", "easy", "random"]}),
    "N": ("integer", {"minimum": 1}),
    "BYTES": ("integer", {"minimum": 1}),
    "PIXELS": ("integer", {"minimum": 1}),
    "BITS": ("integer", {"minimum": 0}),
    "SCORE": ("number", {}),
    "EPS": ("number", {"minimum": 0}),
    "RATIO": ("number", {"minimum": 1}),
}
"""What the form makes of a parameter's kind of value."""

RUN = "{{ params['run'] or params['output'].rstrip('/') ~ '.run' }}"
"""Where the manifests go: what the form says, or beside the output, as `sluice run` has it."""


def params(**defaults: Any) -> dict[str, Param]:
    """The form: the DAG's parameters, where the manifests go, and the number of tasks.

    `defaults` sets values, with `_` for `-` in names: `params(embedder="clip-vit-b32", min_aesthetic=5.5)`. A DAG with a schedule
    needs one for each parameter that is required.
    """
    known = definition().parameters
    given = {name.replace("_", "-"): value for name, value in defaults.items()}
    form = {parameter.name: _param(parameter, given) for parameter in known}
    place = Param(
        given.get("run"),
        type=["null", "string"],
        title="run",
        description="Where the run's manifests go, a URI (default: beside the output, its name with .run)",
    )
    tasks = Param(
        given.get("max-tasks", MAX_TASKS),
        type="integer",
        minimum=1,
        maximum=_longest_map(),
        title="max-tasks",
        description="Tasks that a step fans out over, at most; each takes its share of the units",
    )
    unknown = given.keys() - form.keys() - {"run", "max-tasks"}
    if unknown:
        raise TypeError(f"the DAG has no parameter {', '.join(sorted(unknown))}")
    required = {name: param for name, param in form.items() if definition().parameter(name).required}
    return {**required, "run": place, **form, "max-tasks": tasks}


def _param(parameter: Parameter, given: Mapping[str, Any]) -> Param:
    rest: dict[str, Any] = {"title": parameter.name, "description": parameter.help}
    value = given.get(parameter.name, parameter.default)
    if parameter.switch:
        return Param(bool(value), type="boolean", **rest)
    kind, limits = TYPES.get(parameter.value, ("string", {}))
    rest.update(limits)
    if parameter.many:
        kind, rest["items"], rest["minItems"] = "array", {"type": kind}, 1
    elif parameter.required and kind == "string":
        rest["minLength"] = 1
    if parameter.required:
        return Param(type=kind, **rest) if value is None else Param(value, type=kind, **rest)
    return Param(value, type=["null", kind], **rest)


def template(parameter: Parameter) -> str:
    """The template that gives a parameter of the form to an operator."""
    name = f"params['{parameter.name}']"
    if parameter.many:
        return "{{ %s | tojson }}" % name
    return "{{ '' if %s is none else %s }}" % (name, name)


class SluiceFanOutOperator(BaseOperator):
    """Says how many tasks share a step's units: one for each, and at most `max_tasks`.

    Gives one `{"task_index": i, "task_count": n}` for each task. There is always one: a task without a unit does nothing, while
    a step without a task would be skipped, and all that comes after it.

    :param fan_out: what a unit is, as the result that counts them names it
    :param count: the result of the step that counts them, or their number; none of them given: 1 (templated)
    :param max_tasks: how many tasks at most (templated)
    """

    template_fields = ("count", "max_tasks")
    ui_color = "#eeeeee"

    def __init__(self, *, fan_out: str, count: Any, max_tasks: int | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fan_out = fan_out
        self.count = count
        self.max_tasks = max_tasks

    def execute(self, context: Context) -> list[dict[str, int]]:
        """The tasks."""
        count = self.count
        if isinstance(count, Mapping):
            count = count["fan_out"][self.fan_out]
        units = int(count or 1)
        tasks = tasks_for(units, int(self.max_tasks))
        self.log.info("%d %s, %d tasks", units, self.fan_out, tasks)
        return [{"task_index": index, "task_count": tasks} for index in range(tasks)]


def tasks_for(units: int, max_tasks: int) -> int:
    """How many tasks share so many units."""
    return max(1, min(units, max_tasks, _longest_map()))


def curate(
    *,
    run: str = RUN,
    parameters: Mapping[str, Any] | None = None,
    executor: Executor = "local",
    operator: type[BaseOperator] | None = None,
    max_tasks: int | str = "{{ params['max-tasks'] }}",
    pools: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    group_id: str = "curate",
    prefix_group_id: bool = True,
    **common: Any,
) -> TaskGroup:
    """All steps, from the shards to the report, wired as the DAG's definition says.

    Between a step that counts units and those that fan out over them stands a small task, `fan-out-partitions` and so on, which
    turns units into tasks.

    :param run: where the manifests go (templated)
    :param parameters: the DAG's parameters by name (templated); default: those of the form that :func:`params` makes
    :param executor: `local`, processes on the workers, or `pod`
    :param operator: an operator in its place: a subclass of one of the two
    :param max_tasks: how many tasks a step fans out over at most (templated); default: what the form says
    :param pools: Airflow's pool for each class of resources (`light`, `cpu`, `model`, `copy`); they must exist. One task takes one
        slot. Default: `default_pool`
    :param overrides: arguments of operators by class of resources, or by step, which goes first
    :param common: arguments of all operators
    """
    kind = operator or _operator(executor)
    dag = definition()
    if parameters is None:
        parameters = {parameter.name: template(parameter) for parameter in dag.parameters}
    overrides = overrides or {}
    unknown = overrides.keys() - dag.resources.keys() - {step.name for step in dag.steps}
    unknown |= (pools or {}).keys() - dag.resources.keys()
    if unknown:
        raise ValueError(f"neither a step nor a class of resources: {', '.join(sorted(unknown))}")
    with TaskGroup(group_id, prefix_group_id=prefix_group_id, tooltip="Sluice: from shards to a curated dataset") as group:
        tasks: dict[str, Any] = {}
        shares: dict[str, SluiceFanOutOperator] = {}
        for step in dag.steps:
            arguments = {
                "step": step.name,
                "run": run,
                "parameters": {a.parameter: parameters.get(a.parameter) for a in step.arguments},
                "execution_timeout": TIMEOUTS[step.resources],
                "doc_md": describe(step),
                # The operators have these by themselves, but a mapped one takes Airflow's defaults first.
                **retries(),
                **({"pool": pools[step.resources]} if pools and step.resources in pools else {}),
                **common,
                **overrides.get(step.resources, {}),
                **overrides.get(step.name, {}),
            }
            if step.is_mapped:
                if step.fan_out not in shares:
                    shares[step.fan_out] = _fan_out(step, tasks, parameters, max_tasks)
                mapped = kind.partial(
                    task_id=step.name,
                    map_index_template="{{ task.task_index }} of {{ task.task_count }}",
                    **arguments,
                )
                tasks[step.name] = mapped.expand_kwargs(XComArg(shares[step.fan_out]))
            else:
                tasks[step.name] = kind(task_id=step.name, **arguments)
            for earlier in step.after:
                tasks[earlier] >> tasks[step.name]
    return group


def verify(*, run: str = RUN, executor: Executor = "local", operator: type[BaseOperator] | None = None, **kwargs: Any) -> Any:
    """The task `verify`: proves a finished run, and fails where it is not sound."""
    kind = operator or _operator(executor)
    step = definition().step("verify")
    defaults = {"task_id": step.name, "execution_timeout": TIMEOUTS[step.resources], "doc_md": describe(step)}
    return kind(**{**defaults, "step": step.name, "run": run, **kwargs})


def describe(step: Step) -> str:
    """What the task's page says about its step."""
    dag = definition()
    shared = f"fans out over {step.fan_out}" if step.is_mapped else "one task"
    needs = dag.resources[step.resources]
    lines = [
        f"`{step.title}`: {shared}; class `{step.resources}` ({needs.cpus} CPUs, {needs.memory_mib} MiB).",
        "",
        "The log's first line, and *by_hand* among the rendered templates, is the command line. Run it anywhere that has the program "
        "and sees the run. Run again, the task does what is not up to date.",
    ]
    if step.arguments:
        lines += ["", "| flag | parameter | |", "|---|---|---|"]
        lines += [f"| `{a.flag}` | {a.parameter} | {dag.parameter(a.parameter).help} |" for a in step.arguments]
    return "\n".join(lines)


def _fan_out(
    step: Step, tasks: Mapping[str, Any], parameters: Mapping[str, Any], max_tasks: int | str
) -> SluiceFanOutOperator:
    count: Any = parameters.get(step.counted_by_parameter) if step.counted_by_parameter else None
    if step.counted_by_step:
        count = XComArg(tasks[step.counted_by_step])
    return SluiceFanOutOperator(
        task_id=f"fan-out-{step.fan_out}",
        fan_out=step.fan_out,
        count=count,
        max_tasks=max_tasks,
        retries=2,
        doc_md=f"Turns {step.fan_out} into tasks: one for each, and at most max-tasks.",
    )


def _operator(executor: Executor) -> type[BaseOperator]:
    if executor == "local":
        return SluiceLocalOperator
    if executor == "pod":
        # Only here, for it needs the extra.
        from sluice_airflow.operators.pod import SluicePodOperator

        return SluicePodOperator
    raise ValueError(f"executor is local or pod, not {executor!r}")


def _longest_map() -> int:
    """Airflow's limit on the tasks of one mapped step."""
    return int(conf.getint("core", "max_map_length", fallback=1024))
