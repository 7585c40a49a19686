"""A pipeline as `sluice dag` prints it, and the command lines of its nodes.

A node is what one task runs: a step of the pipeline, or one subcommand of a step. Nothing here imports Airflow.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

REFERENCE = re.compile(r"\$\{([^{}]*)\}")
"""`${name}` in a word of a command line is replaced by the value of a parameter."""


class PipelineError(ValueError):
    """A pipeline that cannot be loaded, or a name that it does not have."""


@dataclass(frozen=True)
class Parameter:
    """A value that the user sets once, for all nodes."""

    name: str
    variable: str
    value: str
    """The kind of value, in capitals; empty for a switch."""
    switch: bool
    default: Any
    """Mostly text; None for none."""
    required: bool
    many: bool
    help: str
    section: str | None = None
    """The heading of the form."""

    def texts(self, value: Any) -> list[str]:
        """Returns a value as text: one text, or one for each value of a parameter that takes several.

        The default replaces an empty value. A parameter without a default is then the empty text. A list may be given as JSON,
        because a template can only render text.
        """
        if self.many and isinstance(value, str) and value.startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                pass  # A glob such as [ab]*.tar.
        if value in (None, "", [], ()):
            value = self.default
        if value is None:
            return [""]
        if isinstance(value, bool):
            return [str(value).lower()]
        if isinstance(value, Sequence) and not isinstance(value, str):
            if not self.many:
                raise ValueError(f"{self.name}: expected one value, got {value!r}")
            return [str(each) for each in value]
        return [str(value)]


@dataclass(frozen=True)
class Resources:
    """What a task of a class requests."""

    cpus: int
    memory_mib: int


@dataclass(frozen=True)
class Retry:
    """How a failed task is retried."""

    limit: int
    first_seconds: int
    longest_seconds: int
    exit_codes: frozenset[int]


@dataclass(frozen=True)
class Units:
    """The units that a node fans out over, and what counts them: the result of a node, or a text."""

    kind: str
    """What a unit is, such as `partitions`."""
    node: str | None = None
    """The node whose result has the number, as `fan_out.<kind>`."""
    text: str | None = None
    """The number, once its parameters are filled in; 1 where it is empty."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters in the text."""
        return _references(self.text or "")


@dataclass(frozen=True)
class Node:
    """A node of the pipeline."""

    name: str
    stage: str
    program: str
    subcommand: str | None
    arguments: tuple[str, ...]
    """Words of the command line. `${name}` in a word is replaced by the value of a parameter."""
    units: Units | None
    """What it fans out over; None for a node that runs once."""
    resources: str
    after: tuple[str, ...]
    about: str = ""
    """What it does, for people."""
    takes_result: bool = True
    """Whether the program has the flag `--result`."""

    @property
    def title(self) -> str:
        """The program and its subcommand."""
        return " ".join(filter(None, (self.program, self.subcommand)))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters in its arguments."""
        return _references(*self.arguments)


VERIFY = Node(
    name="verify",
    stage="verify",
    program="sluice",
    subcommand="verify",
    arguments=("--json",),
    units=None,
    resources="copy",
    after=(),
    about="Proves a finished run: no sample was lost, and the output is what the manifests say",
    takes_result=False,
)
"""`sluice verify`: not a node of any pipeline, but a good last task."""

Named = TypeVar("Named", Parameter, Node)


@dataclass(frozen=True)
class Pipeline:
    """A pipeline: its nodes in topological order, and their shared settings."""

    name: str
    parameters: tuple[Parameter, ...]
    nodes: tuple[Node, ...]
    resources: Mapping[str, Resources]
    retry: Retry

    def __str__(self) -> str:
        """Returns the name. Airflow stores this text for each mapped task."""
        return self.name

    def parameter(self, name: str) -> Parameter:
        """Returns the parameter of this name. Raises PipelineError where there is none."""
        return _named(name, "parameter", self.parameters)

    def node(self, name: str) -> Node:
        """Returns the node of this name. Raises PipelineError where there is none."""
        return _named(name, "node", self.nodes)

    def fill(self, text: str, values: Mapping[str, Any]) -> list[str]:
        """Returns a text with its parameters filled in: one text for each value of a parameter that takes several.

        Values are not filled in again: `${…}` in a value stays as it is.
        """
        names = _references(text)
        texts = (self.parameter(name).texts(values.get(name)) for name in names)
        rows = (dict(zip(names, row)) for row in product(*texts))
        return [REFERENCE.sub(lambda found: row[found[1]], text) for row in rows]

    def command(self, node: Node, run: str, values: Mapping[str, Any], share: tuple[int, int] | None = None) -> list[str]:
        """Returns a node's command line, the program's name first.

        `values` are those of the parameters, by name. `share` is the index of this task and the number of tasks. Flags with an
        empty value are left out, as the programs ignore them.
        """
        line = [node.program, *filter(None, [node.subcommand]), "--run", run]
        line += [word for text in node.arguments for word in self.fill(text, values) if not _is_empty_flag(word)]
        if share is not None:
            line += ["--task-index", str(share[0]), "--task-count", str(share[1])]
        return line

    @cached_property
    def fan_outs(self) -> Mapping[Units, str]:
        """The task that turns units into tasks, for all units that nodes fan out over.

        It is `fan-out-<kind>`. Where units of one kind are counted in several ways, the first node that fans out over them is
        added: `fan-out-hash-ranges-exact`.
        """
        first: dict[Units, str] = {}
        for node in self.nodes:
            if node.units is not None:
                first.setdefault(node.units, node.name)
        kinds = Counter(units.kind for units in first)
        return {
            units: f"fan-out-{units.kind}" if kinds[units.kind] == 1 else f"fan-out-{units.kind}-{name}"
            for units, name in first.items()
        }


PipelineLike: TypeAlias = "Pipeline | Mapping[str, Any] | str | os.PathLike[str] | None"
"""None for the default pipeline, the path of a `.json` or `.toml` file, or the JSON as a mapping."""


def load(pipeline: PipelineLike = None) -> Pipeline:
    """Returns a pipeline.

    A `.json` file holds what `sluice dag --pipeline FILE --format json` prints. For a `.toml` file this program is run: `sluice`,
    or what the variable SLUICE_PROGRAM names. A file is loaded again when its modification time changes.

    Raises PipelineError where the pipeline cannot be loaded.
    """
    if isinstance(pipeline, Pipeline):
        return pipeline
    if isinstance(pipeline, Mapping):
        return parse(pipeline, "pipeline")
    if pipeline is None:
        return _default()
    path = os.path.abspath(pipeline)
    try:
        return _load(path, os.stat(path).st_mtime_ns, os.environ.get("SLUICE_PROGRAM") or "sluice")
    except OSError as e:
        raise PipelineError(f"cannot read {path}: {e.strerror}") from e


def parse(dag: Any, origin: str) -> Pipeline:
    """Returns the pipeline that `sluice dag` printed.

    Raises PipelineError, which names `origin`, for anything else.
    """
    try:
        pipeline = Pipeline(
            name=dag["name"],
            parameters=tuple(Parameter(**parameter) for parameter in dag["parameters"]),
            nodes=tuple(_node(node) for node in dag["steps"]),
            resources={name: Resources(**needs) for name, needs in dag["resources"].items()},
            retry=Retry(**{**dag["retry"], "exit_codes": frozenset(dag["retry"]["exit_codes"])}),
        )
        _check(pipeline)
    except (KeyError, TypeError, AttributeError, PipelineError) as e:
        reason = f"no {e}" if isinstance(e, KeyError) else str(e)
        hint = "hint: pass what `sluice dag --pipeline FILE --format json` prints, of a sluice of this package's version"
        raise PipelineError(f"{origin}: not a pipeline: {reason}; {hint}") from e
    return pipeline


def by_hand(command: Sequence[str]) -> str:
    """Returns a command line for a shell."""
    return shlex.join(command)


@cache
def _default() -> Pipeline:
    text = files(__package__).joinpath("dag.json").read_text(encoding="utf-8")
    return parse(json.loads(text), "dag.json")


@lru_cache(maxsize=64)
def _load(path: str, _modified: int, program: str) -> Pipeline:
    suffix = os.path.splitext(path)[1]
    if suffix not in (".json", ".toml"):
        raise PipelineError(f"{path}: expected a .json or a .toml file")
    text = _print(path, program) if suffix == ".toml" else Path(path).read_bytes()
    try:
        dag = json.loads(text)
    except ValueError as e:
        raise PipelineError(f"{path}: cannot parse JSON: {e}") from e
    return parse(dag, path)


def _print(path: str, program: str) -> bytes:
    """Returns what `sluice dag` prints for a pipeline file."""
    line = [program, "dag", "--pipeline", path, "--format", "json"]
    try:
        done = subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except OSError as e:
        hint = f"hint: set SLUICE_PROGRAM, or ship what `{by_hand(['sluice', *line[1:]])}` prints as a .json file"
        raise PipelineError(f"{path}: cannot start {program}: {e.strerror}; {hint}") from e
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()
        raise PipelineError(f"{path}: {program} dag ended with {done.returncode}: {reason}")
    return done.stdout


def _node(node: Mapping[str, Any]) -> Node:
    counted_by = node["counted_by"]
    return Node(
        name=node["name"],
        stage=node["stage"],
        program=node["program"],
        subcommand=node["subcommand"],
        arguments=tuple(node["arguments"]),
        units=Units(node["fan_out"], counted_by.get("step"), counted_by.get("value")) if counted_by else None,
        resources=node["resources"],
        after=tuple(node["after"]),
        about=node.get("about", ""),
    )


def _check(pipeline: Pipeline) -> None:
    """Raises PipelineError where a node refers to what is not there."""
    known = {parameter.name for parameter in pipeline.parameters}
    earlier: set[str] = set()
    for node in pipeline.nodes:
        units = node.units or Units("one")
        faults = [f"expected words as arguments, got {word!r}" for word in node.arguments if not isinstance(word, str)]
        faults += [f"no class of resources {node.resources}"] * (node.resources not in pipeline.resources)
        faults += [f"no node {name} before it" for name in (*node.after, units.node) if name and name not in earlier]
        faults += ["two nodes of this name"] * (node.name in earlier)
        if not faults:
            faults = [f"no parameter {name}" for name in (*node.parameters, *units.parameters) if name not in known]
        if faults:
            raise PipelineError(f"node {node.name}: {faults[0]}")
        earlier.add(node.name)


def _references(*texts: str) -> tuple[str, ...]:
    """Returns the names of the parameters in some texts, each once."""
    return tuple(dict.fromkeys(name for text in texts for name in REFERENCE.findall(text)))


def _named(name: str, what: str, among: Sequence[Named]) -> Named:
    for each in among:
        if each.name == name:
            return each
    raise PipelineError(f"the pipeline has no {what} {name}; it has {', '.join(each.name for each in among)}")


def _is_empty_flag(word: str) -> bool:
    """Whether a word is a flag with an empty value, `--flag=`. `--min=aesthetic=` is none: its value is `aesthetic=`."""
    return word.startswith("--") and word.find("=") == len(word) - 1
