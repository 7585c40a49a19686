"""Pipelines of the user's own: their DAG, their command lines, and what is wrong with files.

After a change of `pipelines/photos.toml`, or of the format, run in this folder:

    sluice dag --pipeline pipelines/photos.toml --format json > pipelines/photos.json
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import places
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from sluice_airflow import commands, curate, pipeline
from sluice_airflow.pipeline import Parameter, PipelineError, Units, load

PIPELINES = Path(__file__).parent / "pipelines"
PHOTOS = PIPELINES / "photos.json"
CONF = {"input": ["in"], "output": "out"}


@pytest.fixture
def photos() -> dict[str, Any]:
    """What `sluice dag` printed for `photos.toml`."""
    return json.loads(PHOTOS.read_text())


def dag_of(file: pipeline.PipelineLike, native: bool = False, **arguments: Any) -> DAG:
    """A DAG with the pipeline, as a DAG file has it."""
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    with DAG("own", schedule=None, start_date=start, params=curate.params(file), render_template_as_native_obj=native) as dag:
        curate.curate(file, prefix_group_id=False, **arguments)
    return dag


def lines(dag: DAG, **conf: Any) -> dict[str, list[str]]:
    """The command lines of a DAG's nodes."""
    return {line["node"]: line["command"] for line in commands.tasks(dag, {**CONF, **conf})}


def a_parameter(name: str = "x", **fields: Any) -> Parameter:
    """A parameter with these fields."""
    plain = {"variable": "", "value": "", "switch": False, "default": None, "required": False, "many": False, "help": ""}
    return Parameter(name=name, **{**plain, **fields})


# ------------------------------------------------------------------------------------------------- the DAG


def test_the_dag_has_the_pipelines_nodes_and_edges(photos: dict) -> None:
    printed = list(commands.tasks(dag_of(PHOTOS), CONF))
    assert {line["task"]: (line["after"], line["mapped"]) for line in printed} == {
        node["name"]: (sorted(node["after"]), node["counted_by"] is not None) for node in photos["steps"]
    }
    assert set(curate.params(PHOTOS)) == {"input", "output", "run", "models", "min-quality", "ranges", "eps", "max-tasks"}


def test_several_steps_of_one_stage_have_their_own_command_lines() -> None:
    by_node = lines(dag_of(PHOTOS), ranges=3)
    share = ["--task-index", "1", "--task-count", "3"]
    assert by_node["filter"] == [
        "sluice-filter", "--run", "out.run", "--survivors-of=exact",
        "--min=quality=0.4", "--max=nsfw=0.8", *share,
    ]  # fmt: skip
    assert by_node["late"] == [
        "sluice-filter", "--run", "out.run", "--step=late", "--survivors-of=near", "--max=nsfw-again=0.5", *share,
    ]  # fmt: skip
    assert "--ranges=2" in by_node["exact"] and "--ranges=3" in by_node["again"]
    assert by_node["near-fit"][:2] == ["sluice-dedup", "fit"]


def test_each_counter_has_one_fan_out_task(photos: dict) -> None:
    dag = dag_of(PHOTOS)
    fan_outs = {task.task_id: task for task in dag.tasks if task.task_id.startswith("fan-out-")}
    assert {name: (task.upstream_task_ids, task.units.text) for name, task in fan_outs.items()} == {
        "fan-out-partitions": ({"partition"}, None),
        "fan-out-hash-ranges-exact": (set(), "2"),
        "fan-out-hash-ranges-near-pairs": (set(), ""),
        "fan-out-hash-ranges-again": (set(), "${ranges}"),
        "fan-out-cluster-groups": ({"near-fit"}, None),
        "fan-out-output-shards": ({"export-plan"}, None),
    }
    assert fan_outs["fan-out-hash-ranges-again"].parameters.keys() == {"ranges"}
    # A second search for semantic duplicates counts its own groups.
    second = copy.deepcopy([node for node in photos["steps"] if node["step"] == "near"])
    for node in second:
        node["name"] = node["name"].replace("near", "twice")
        node["after"] = [name.replace("near", "twice") for name in node["after"]]
        if node["counted_by"] == {"step": "near-fit"}:
            node["counted_by"] = {"step": "twice-fit"}
    photos["steps"] += second
    dag = dag_of(photos)
    assert {name: dag.get_task(name).upstream_task_ids for name in dag.task_ids if name.startswith("fan-out-cluster")} == {
        "fan-out-cluster-groups-near-match": {"near-fit"},
        "fan-out-cluster-groups-twice-match": {"twice-fit"},
    }
    # Without a counter of its own, a node shares the fan-out task of the first.
    assert dag.get_task("fan-out-partitions").downstream_task_ids >= {"read", "near-assign", "twice-assign"}


@pytest.mark.parametrize(
    ("units", "count", "values", "tasks"),
    [
        (Units("cluster-groups", "near-fit"), {"fan_out": {"cluster-groups": 5}}, {}, 4),
        (Units("hash-ranges", text="2"), None, {}, 2),
        (Units("hash-ranges", text="${ranges}"), None, {"ranges": "3"}, 3),
        (Units("hash-ranges", text="${ranges}"), None, {"ranges": ""}, 1),
    ],
)
def test_units_are_counted_by_a_result_or_a_text(units: Units, count: Any, values: Mapping[str, Any], tasks: int) -> None:
    operator = curate.SluiceFanOutOperator(
        task_id="x", units=units, count=count, parameters=values, max_tasks="4", pipeline=PHOTOS
    )
    assert operator.execute({}) == [{"task_index": index, "task_count": tasks} for index in range(tasks)]


def test_a_count_that_is_no_number_fails_at_once() -> None:
    units = Units("hash-ranges", text="${ranges}")
    operator = curate.SluiceFanOutOperator(task_id="x", units=units, parameters={"ranges": "many"}, pipeline=PHOTOS)
    with pytest.raises(AirflowFailException, match="hash-ranges: expected a number, got 'many'"):
        operator.execute({})


def test_overrides_and_pools_are_by_node_and_by_class() -> None:
    limits = {"model": {"retries": 9}, "quality": {"retries": 1}}
    dag = dag_of(PHOTOS, executor="pod", image="r/{program}:1", pools={"model": "scarce"}, overrides=limits)
    task = dag.get_task("nsfw-again")
    assert (task.retries, task.pool) == (9, "scarce")
    assert (dag.get_task("quality").retries, dag.get_task("late").pool) == (1, "default_pool")
    share = {"task_index": 0, "task_count": 1}
    assert task.unmap(share).image == "r/sluice-score:1"
    assert task.unmap(share).labels["app.kubernetes.io/component"] == "nsfw-again"
    assert "`sluice-score`: fans out over partitions" in task.doc_md
    assert "| min-quality | Drop images whose quality is below this |" in dag.get_task("filter").doc_md
    with pytest.raises(ValueError, match="neither a node nor a class of resources: dedup-match"):
        curate.curate(PHOTOS, overrides={"dedup-match": {}})


def test_the_stored_dag_has_the_pipelines_name_and_not_all_of_it() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    stored = [json.dumps(DagSerialization.to_dict(dag_of(PHOTOS)), sort_keys=True) for _ in range(2)]
    assert stored[0] == stored[1]
    assert '"pipeline": "photos"' in stored[0] and "exit_codes" not in stored[0]


# ------------------------------------------------------------------------------------------- command lines


@pytest.mark.parametrize("executor", ["local", "pod"])
@pytest.mark.parametrize("native", [False, True])
def test_signs_in_a_pipeline_reach_the_program_unchanged(executor: str, native: bool, photos: dict) -> None:
    photos["steps"][0]["arguments"].append("--note={{ params.eps }}${eps}{{ 2 * ${eps} }}")
    photos["parameters"][-1]["default"] = None
    dag = dag_of(photos, native, executor=executor)
    by_node = lines(dag, eps=0.25)
    assert by_node["usable"][5] == "--rule=signs=width > 0 || caption == '{{ 1 + 1 }} {% x %} {# y #} $$(HOME)'"
    assert by_node["partition"][-1] == "--note={{ params.eps }}0.25{{ 2 * 0.25 }}"
    assert not set(dag.get_task("partition").template_fields) & {"node", "pipeline", "doc_md"}


def test_the_kubelet_passes_on_what_the_pipeline_has() -> None:
    """A pod's arguments have `$$` for `$`, which the kubelet reverts; `$(NAME)` would be a variable."""
    printed = {line["node"]: line for line in commands.tasks(dag_of(PHOTOS, executor="pod"), CONF)}
    assert printed["usable"]["command"][5].endswith("{# y #} $$(HOME)'")
    assert printed["usable"]["container"][5].endswith("{# y #} $$$$(HOME)'")


@pytest.mark.parametrize(
    ("parameter", "value", "texts"),
    [
        (a_parameter(), None, [""]),
        (a_parameter(default="7"), None, ["7"]),
        (a_parameter(default="7"), "", ["7"]),
        (a_parameter(default="7"), 0, ["0"]),
        (a_parameter(), "-1", ["-1"]),
        (a_parameter(), "[ab]", ["[ab]"]),
        (a_parameter(), 0.5, ["0.5"]),
        (a_parameter(switch=True), True, ["true"]),
        (a_parameter(switch=True), False, ["false"]),
        (a_parameter(many=True), [], [""]),
        (a_parameter(many=True), "[ab]*.tar", ["[ab]*.tar"]),
        (a_parameter(many=True), '["a b", "c"]', ["a b", "c"]),
        (a_parameter(many=True), ("a", "b"), ["a", "b"]),
    ],
)
def test_values_become_texts(parameter: Parameter, value: Any, texts: list[str]) -> None:
    assert parameter.texts(value) == texts


def test_a_parameter_takes_one_value_unless_it_takes_many() -> None:
    with pytest.raises(ValueError, match=r"x: expected one value, got \['a', 'b'\]"):
        a_parameter().texts(["a", "b"])


def test_words_are_filled_in_once_and_empty_flags_are_left_out() -> None:
    known = (a_parameter("a"), a_parameter("b"), a_parameter("all", many=True))
    words = ("--a=${a}", "--min=a=${a}", "--both=${a}-${b}", "--twice=${b}${b}", "--all=${all}", "--on", "--empty=", "${a}")
    own = replace(load(), parameters=known)
    node = replace(own.nodes[0], arguments=words)
    assert own.command(node, "r", {"b": "${a}", "all": ["x", "y"]})[3:] == [
        "--min=a=", "--both=-${a}", "--twice=${a}${a}", "--all=x", "--all=y", "--on", "",
    ]  # fmt: skip
    assert own.command(node, "r", {"a": "-1"}, (0, 2))[3:] == [
        "--a=-1", "--min=a=-1", "--both=-1-", "--on", "-1", "--task-index", "0", "--task-count", "2",
    ]  # fmt: skip
    assert node.parameters == ("a", "b", "all")


def test_the_forms_defaults_have_its_types(photos: dict) -> None:
    form = curate.params(photos, min_quality=0.5, ranges=4)
    assert (form["min-quality"].value, form["ranges"].value, form["eps"].value) == (0.5, 4, 0.15)
    cleared = lines(dag_of(PHOTOS), **{"min-quality": None})
    assert "--min=quality=0.4" in cleared["filter"], "the default replaces an empty field"
    photos["parameters"][3]["default"] = "high"
    with pytest.raises(PipelineError, match="parameter min-quality: expected a default of type number, got 'high'"):
        curate.params(photos)
    photos["parameters"][3]["name"] = "run"
    with pytest.raises(PipelineError, match="parameter run: the form has a field of this name"):
        curate.params({**photos, "steps": []})
    with pytest.raises(PipelineError, match="the pipeline has no parameter min-aesthetic; it has input, output"):
        curate.curate(PHOTOS, parameters={"min-aesthetic": 1})


# --------------------------------------------------------------------------------------------------- files


def test_a_pipeline_is_a_path_or_a_mapping(photos: dict, tmp_path: Path) -> None:
    assert load(PHOTOS) == load(str(PHOTOS)) == load(photos) == load(load(PHOTOS))
    assert load(PHOTOS).name == "photos"
    assert load() is load(None) and load().node("dedup-match").title == "sluice-dedup match"


def test_a_file_is_loaded_again_when_it_changes(photos: dict, tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps(photos))
    first = load(file)
    assert load(file) is first
    file.write_text(json.dumps({**photos, "name": "other"}))
    os.utime(file, ns=(1, 1))
    assert load(file).name == "other"


def changed(photos: dict, **fields: Any) -> dict:
    """The pipeline with other fields in its last node."""
    photos["steps"][-1].update(fields)
    return photos


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot parse JSON"),
        ("\xff", "cannot parse JSON"),
        ("[[steps]]\n", "cannot parse JSON"),
        ("[]", "not a pipeline"),
        ("{}", "not a pipeline: no 'name'; hint: pass what `sluice dag --pipeline FILE --format json` prints"),
        (lambda p: {**p, "steps": [{"name": "read"}]}, "not a pipeline: no 'counted_by'"),
        (lambda p: {**p, "parameters": [{"name": "eps"}]}, "not a pipeline: .*missing"),
        (lambda p: changed(p, arguments=[{"flag": "--eps"}]), "node report: expected words as arguments, got {'flag'"),
        (lambda p: changed(p, arguments=["--eps=${epps}"]), "node report: no parameter epps"),
        (lambda p: changed(p, fan_out="x", counted_by={"value": "${epps}"}), "node report: no parameter epps"),
        (lambda p: changed(p, after=["nothing"]), "node report: no node nothing before it"),
        (lambda p: changed(p, after=["report"]), "node report: no node report before it"),
        (lambda p: changed(p, fan_out="x", counted_by={"step": "nothing"}), "node report: no node nothing before it"),
        (lambda p: changed(p, name="read"), "node read: two nodes of this name"),
        (lambda p: changed(p, resources="gpu"), "node report: no class of resources gpu"),
    ],
)
def test_a_wrong_file_is_refused(text: Any, message: str, photos: dict, tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(text if isinstance(text, str) else json.dumps(text(photos)), encoding="latin-1")
    with pytest.raises(PipelineError, match=message) as refused:
        curate.params(file)
    assert str(file) in str(refused.value)


def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"cannot read .*own.json: No such file or directory"):
        load(tmp_path / "own.json")
    (tmp_path / "own.yaml").touch()
    with pytest.raises(PipelineError, match="expected a .json or a .toml file"):
        load(tmp_path / "own.yaml")


def test_a_toml_file_needs_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = PIPELINES / "photos.toml"
    monkeypatch.setenv("SLUICE_PROGRAM", "/nowhere/sluice")
    with pytest.raises(PipelineError, match="cannot start /nowhere/sluice: .*; hint: set SLUICE_PROGRAM, or ship what `sluice"):
        load(file)
    monkeypatch.setenv("SLUICE_PROGRAM", "false")
    with pytest.raises(PipelineError, match="photos.toml: false dag ended with 1"):
        load(file)
    # The first program on PATH is `sluice`.
    monkeypatch.delenv("SLUICE_PROGRAM")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match="cannot start sluice: No such file or directory"):
        load(file)


def test_the_json_is_what_sluice_dag_prints(photos: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_PROGRAM", str(places.with_pipelines() / "sluice"))
    assert load(PIPELINES / "photos.toml") == load(photos)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[[steps]]\nstage = "reed"\n')
    with pytest.raises(PipelineError, match="wrong.toml: .*sluice dag ended with 2: .*reed"):
        load(wrong)
