"""The DAG, as `sluice dag` prints it, and the command line of each step.

`dag.json` is that print. Nothing here knows about Airflow.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Parameter:
    """What a user sets once, whichever engine runs the DAG."""

    name: str
    variable: str
    value: str
    """What its value is, in capitals; empty for a switch."""
    switch: bool
    default: str | None
    required: bool
    many: bool
    help: str


@dataclass(frozen=True)
class Argument:
    """A parameter's way onto a step's command line."""

    flag: str
    parameter: str


@dataclass(frozen=True)
class Resources:
    """What a task of a class asks for."""

    cpus: int
    memory_mib: int


@dataclass(frozen=True)
class Retry:
    """How a failed task is tried again."""

    limit: int
    first_seconds: int
    longest_seconds: int
    exit_codes: frozenset[int]


@dataclass(frozen=True)
class Step:
    """A step of the DAG."""

    name: str
    stage: str
    program: str
    subcommand: str | None
    fan_out: str
    """What one task is for: `one` for a step that runs once."""
    counted_by_step: str | None
    """The step whose result tells how many units there are, in `fan_out`."""
    counted_by_parameter: str | None
    """The parameter that tells it; 1 where it is not given."""
    resources: str
    after: tuple[str, ...]
    arguments: tuple[Argument, ...]
    tells_result: bool = True
    """Whether the program takes `--result`."""
    always: tuple[str, ...] = ()
    """Flags that it is always given."""

    @property
    def is_mapped(self) -> bool:
        """Whether it fans out."""
        return self.fan_out != "one"

    @property
    def title(self) -> str:
        """The program with its subcommand."""
        return " ".join(filter(None, (self.program, self.subcommand)))

    def command(
        self,
        run: str,
        values: Mapping[str, Any],
        task: tuple[int, int] | None = None,
    ) -> list[str]:
        """Its command line, the program's name first.

        `values` has the parameters by name; one that is None, empty or missing is left out, and the stage's own default
        holds. `task` is the number of this task and how many there are.
        """
        line = [self.program]
        if self.subcommand:
            line.append(self.subcommand)
        line += ["--run", run, *self.always]
        for argument in self.arguments:
            parameter = definition().parameter(argument.parameter)
            given = texts(parameter, values.get(argument.parameter))
            if parameter.switch:
                line += [argument.flag] * (given == ["true"])
            elif len(given) == 1 and given[0].startswith("-"):
                # `--min-score -1` would be read as another option.
                line.append(f"{argument.flag}={given[0]}")
            elif given:
                line += [argument.flag, *given]
        if task is not None:
            line += ["--task-index", str(task[0]), "--task-count", str(task[1])]
        return line


@dataclass(frozen=True)
class Definition:
    """The DAG."""

    parameters: tuple[Parameter, ...]
    steps: tuple[Step, ...]
    resources: Mapping[str, Resources]
    retry: Retry

    def parameter(self, name: str) -> Parameter:
        """The parameter of this name."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(f"the DAG has no parameter {name}; it has {', '.join(p.name for p in self.parameters)}")

    def step(self, name: str) -> Step:
        """The step of this name, `verify` included."""
        for step in (*self.steps, VERIFY):
            if step.name == name:
                return step
        raise KeyError(f"the DAG has no step {name}; it has {', '.join(s.name for s in self.steps)}")

    def fan_outs(self) -> dict[str, Step]:
        """What steps fan out over, each with the first step that does."""
        found: dict[str, Step] = {}
        for step in self.steps:
            if step.is_mapped:
                found.setdefault(step.fan_out, step)
        return found


VERIFY = Step(
    name="verify",
    stage="verify",
    program="sluice",
    subcommand="verify",
    fan_out="one",
    counted_by_step=None,
    counted_by_parameter=None,
    resources="copy",
    after=("report",),
    arguments=(),
    tells_result=False,
    always=("--json",),
)
"""`sluice verify`: no step of the DAG, but a good last task."""


def texts(parameter: Parameter, value: Any) -> list[str]:
    """A parameter's value as the words of a command line; none where it is not given.

    A list may come as JSON, which is how a template can hand it on.
    """
    if value is None or value == "" or value == []:
        return []
    if parameter.switch:
        return [str(value).lower()]
    if parameter.many and isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            pass  # A glob such as [ab]*.tar.
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not parameter.many:
            raise ValueError(f"{parameter.name} takes one value, not {value!r}")
        return [str(each) for each in value if str(each)]
    return [str(value)]


def by_hand(command: Sequence[str]) -> str:
    """A command line for a shell."""
    return shlex.join(command)


def default_run(output: str) -> str:
    """Where `sluice run` puts a run's manifests: beside the output."""
    return output.rstrip("/") + ".run"


@cache
def definition() -> Definition:
    """The DAG."""
    text = files(__package__).joinpath("dag.json").read_text(encoding="utf-8")
    return parse(json.loads(text))


def parse(dag: Mapping[str, Any]) -> Definition:
    """What `sluice dag` prints."""
    retry = dag["retry"]
    return Definition(
        parameters=tuple(Parameter(**parameter) for parameter in dag["parameters"]),
        steps=tuple(_step(step) for step in dag["steps"]),
        resources={name: Resources(**needs) for name, needs in dag["resources"].items()},
        retry=Retry(
            limit=retry["limit"],
            first_seconds=retry["first_seconds"],
            longest_seconds=retry["longest_seconds"],
            exit_codes=frozenset(retry["exit_codes"]),
        ),
    )


def _step(step: Mapping[str, Any]) -> Step:
    counted_by = step["counted_by"] or {}
    return Step(
        name=step["name"],
        stage=step["stage"],
        program=step["program"],
        subcommand=step["subcommand"],
        fan_out=step["fan_out"],
        counted_by_step=counted_by.get("step"),
        counted_by_parameter=counted_by.get("parameter"),
        resources=step["resources"],
        after=tuple(step["after"]),
        arguments=tuple(Argument(**argument) for argument in step["arguments"]),
    )
