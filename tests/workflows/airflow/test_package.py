"""The package: what Airflow lists of it, and its default pipeline, which is what `sluice dag` prints.

After a change of the default pipeline: target/release/sluice dag > workflows/airflow/src/sluice_airflow/dag.json
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import places
import pytest
import sluice_airflow
from airflow.sdk.exceptions import AirflowFailException
from conftest import DAGS, airflow
from sluice_airflow import commands, curate, links, outcome
from sluice_airflow.operators.base import retries
from sluice_airflow.pipeline import VERIFY, PipelineError, load

HERE = places.PACKAGE / "src" / "sluice_airflow"
EXAMPLES = ("sluice_local", "sluice_kubernetes")
PLACES = {"input": ["s3://raw/a b", "s3://raw/{000..099}.tar"], "output": "s3://curated/a"}


@pytest.fixture(scope="module")
def default() -> dict:
    """The default pipeline."""
    return json.loads((HERE / "dag.json").read_text())


@pytest.fixture(scope="module")
def dags() -> dict:
    """The DAGs in the folder of DAGs."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(DAGS)
    assert not bag.import_errors
    return bag.dags


def test_airflow_lists_the_provider() -> None:
    listed = json.loads(airflow("providers", "list", "--output", "json").stdout)
    ours = [each for each in listed if each["package_name"] == "airflow-provider-sluice"]
    assert [each["version"] for each in ours] == [sluice_airflow.__version__]
    shown = airflow("providers", "links", "--output", "json").stdout
    assert "sluice_airflow.links.ReportLink" in shown


def test_the_version_is_that_of_the_programs() -> None:
    workspace = (places.ROOT / "Cargo.toml").read_text()
    [version] = re.findall(r'^version = "(.*)"', workspace.split("[workspace.package]")[1], re.MULTILINE)[:1]
    [packaged] = re.findall(r'^version = "(.*)"', (places.PACKAGE / "pyproject.toml").read_text(), re.MULTILINE)
    assert version == packaged == sluice_airflow.__version__


def test_the_licence_is_that_of_the_repository() -> None:
    assert (places.PACKAGE / "LICENSE").read_bytes() == (places.ROOT / "LICENSE").read_bytes()


def test_the_default_pipeline_is_what_sluice_dag_prints(default: dict) -> None:
    done = subprocess.run([places.programs() / "sluice", "dag"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == default


def words(arguments: list[str], default: dict) -> list[str]:
    """The arguments of a node with PLACES and the defaults filled in."""
    filled = []
    for word in arguments:
        if word == "--input=${input}":
            filled += [f"--input={each}" for each in PLACES["input"]]
            continue
        for parameter in default["parameters"]:
            value = PLACES.get(parameter["name"], parameter["default"] or "")
            word = word.replace("${%s}" % parameter["name"], str(value))
        if not re.fullmatch(r"--[a-z-]+=", word):
            filled.append(word)
    return filled


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_dag_is_the_default_pipeline(name: str, dags: dict, default: dict) -> None:
    *lines, last = commands.tasks(dags[name], PLACES)
    assert last["node"] == "verify" and last["after"] == ["report"]
    assert {line["task"]: (line["after"], line["mapped"]) for line in lines} == {
        node["name"]: (sorted(node["after"]), node["fan_out"] != "one") for node in default["steps"]
    }
    by_name = {line["node"]: line for line in lines}
    for node in default["steps"]:
        line = by_name[node["name"]]
        expected = [node["program"], *filter(None, [node["subcommand"]]), "--run", "s3://curated/a.run"]
        expected += words(node["arguments"], default)
        if line["mapped"]:
            expected += ["--task-index", "1", "--task-count", "3"]
        assert line["command"] == expected
        if "container" in line:
            assert line["container"] == [*expected, "--result", "/airflow/xcom/return.json"]
        # The fan-out task of the unit, after the node that counts it.
        fan_outs = {task for task in dags[name].get_task(node["name"]).upstream_task_ids if task.startswith("fan-out-")}
        assert fan_outs == ({f"fan-out-{node['fan_out']}"} if node["counted_by"] else set())
        for task in fan_outs:
            assert dags[name].get_task(task).upstream_task_ids == set(filter(None, [node["counted_by"].get("step")]))


@pytest.mark.parametrize("name", EXAMPLES)
def test_tasks_are_retried_as_the_pipeline_says(name: str, dags: dict, default: dict) -> None:
    policy = default["retry"]
    titles = {node.name: node.title for node in (*load().nodes, VERIFY)}
    for line in commands.tasks(dags[name], PLACES):
        task = dags[name].get_task(line["task"])
        assert task.retries == policy["limit"]
        assert task.retry_delay.total_seconds() == policy["first_seconds"]
        assert task.retry_exponential_backoff == 2
        assert task.max_retry_delay.total_seconds() == policy["longest_seconds"]
        assert task.execution_timeout
        assert f"`{titles[line['node']]}`" in task.doc_md
    assert retries(load().retry)["retries"] == policy["limit"]
    failures = [outcome.failure("x", code, "", "", load().retry) for code in range(256)]
    assert [code for code, failed in enumerate(failures) if not isinstance(failed, AirflowFailException)] == policy["exit_codes"]
    assert set(curate.TIMEOUTS) == set(default["resources"])


def commands_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m sluice_airflow.commands`."""
    line = [sys.executable, "-m", "sluice_airflow.commands", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_commands_program_prints_json_lines(tmp_path: Path) -> None:
    done = commands_program("--executor", "pod", "--set", "output=out", "--set", 'input=["in"]')
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["node"] for line in lines} == {node.name for node in load().nodes}
    assert lines[0]["command"] == ["sluice-partition", "--run", "out.run", "--input=in"]
    own = Path(__file__).parent / "pipelines" / "photos.json"
    done = commands_program("--pipeline", str(own), "--set", "output=out", "--set", 'input=["in"]')
    assert {json.loads(line)["node"] for line in done.stdout.splitlines()} == {node.name for node in load(own).nodes}
    done = commands_program("--pipeline", str(tmp_path / "own.json"))
    assert done.returncode == 1 and done.stderr.endswith(f"cannot read {tmp_path}/own.json: No such file or directory\n")


def test_the_form_has_all_parameters(default: dict) -> None:
    form = curate.params()
    assert set(form) == {parameter["name"] for parameter in default["parameters"]} | {"run", "max-tasks"}
    for parameter in default["parameters"]:
        param = form[parameter["name"]]
        assert param.description == parameter["help"]
        if not parameter["switch"]:
            assert parameter["value"] in curate.TYPES, "which type does the form give it?"
        if not parameter["required"]:
            value = param.resolve()
            assert ("" if value is None else str(value)) == parameter["default"]
    filled = curate.params(input=["a"], min_aesthetic=5.5, max_tasks=7)
    assert (filled["input"].value, filled["min-aesthetic"].value, filled["max-tasks"].value) == (["a"], 5.5, 7)
    with pytest.raises(TypeError, match="colour"):
        curate.params(colour="red")


def test_values_reach_the_command_line_unchanged(dags: dict) -> None:
    odd = {
        "input": ["a b", "[ab]*.tar", "{{ 1 + 1 }}", "it's", "<&>", "ä\"\\"],
        "output": "/out/",
        "min-aesthetic": -1,
        "max-nsfw": 0,
        "keep": "{{ nothing }}",
        "embeddings": True,
        "exact-decoding": False,
    }
    lines = {line["node"]: line["command"] for line in commands.tasks(dags["sluice_kubernetes"], odd)}
    assert lines["partition"] == ["sluice-partition", "--run", "/out.run", *(f"--input={each}" for each in odd["input"])]
    assert {"--min=aesthetic=-1", "--max=nsfw=0"} <= set(lines["filter"])
    assert "--keep={{ nothing }}" in lines["dedup-match"]
    assert "--exact-decoding=false" in lines["embed"]
    assert lines["export-plan"][-1] == "--embeddings=true"


def test_tasks_stay_below_airflows_limit() -> None:
    assert [curate.tasks_for(units, 16) for units in (0, 1, 7, 100_000)] == [1, 1, 7, 16]
    assert curate.tasks_for(100_000, 100_000) == 1024


@pytest.mark.parametrize(
    ("run", "url"),
    [
        ("s3://b/runs/a", "https://console.aws.amazon.com/s3/object/b?prefix=runs/a/report/index.html"),
        ("gs://b/runs/a/", "https://storage.cloud.google.com/b/runs/a/report/index.html"),
        ("/runs/a", "file:///runs/a/report/index.html"),
    ],
)
def test_the_report_is_linked(run: str, url: str) -> None:
    assert links.report_url(run) == url
    assert links.report_url("s3://b/a", endpoint="http://minio:9000/") == "http://minio:9000/b/a/report/index.html"
    assert links.report_url("s3://b/a", "https://x/{bucket}/{key}") == "https://x/b/a/report/index.html"


def test_tasks_say_what_they_are(dags: dict) -> None:
    from types import SimpleNamespace

    from airflow.sdk.exceptions import AirflowFailException
    from sluice_airflow.operators.local import SluiceLocalOperator

    share = {"task_index": 3, "task_count": 6}
    assert SluiceLocalOperator(task_id="x", node="read", run="r", **share).share == "partitions 4/6: part-00003"
    report = SluiceLocalOperator(task_id="y", node="report", run="/runs/a")
    # The page drops links to local files.
    assert report.report_link is None
    assert all(dags[name].description for name in EXAMPLES)
    assert all(node.about and node.about in curate.describe(node, load()) for node in load().nodes)

    first = SluiceLocalOperator(task_id="z", node="partition", run="r")
    context = {"dag": SimpleNamespace(params={"min-aesthetic": None}), "dag_run": SimpleNamespace(conf={"min-aesthetics": 5})}
    with pytest.raises(AirflowFailException, match="no field 'min-aesthetics'; hint: is it 'min-aesthetic'"):
        first.check_fields(context)


def test_mistakes_are_reported_when_the_dag_is_parsed() -> None:
    from sluice_airflow.operators.local import SluiceLocalOperator
    from sluice_airflow.operators.pod import SluicePodOperator

    with pytest.raises(PipelineError, match="the pipeline has no node reed; it has partition, read, usable"):
        SluiceLocalOperator(task_id="x", node="reed", run="r")
    with pytest.raises(PipelineError, match="the pipeline has no parameter epps; it has input, output"):
        SluiceLocalOperator(task_id="x", node="read", run="r", parameters={"epps": 1})
    with pytest.raises(TypeError, match="arguments: not arguments of a Sluice pod"):
        SluicePodOperator(task_id="x", node="read", run="r", arguments=["--force"])
    with pytest.raises(ValueError, match="neither a node nor a class of resources: gpu"):
        curate.curate(overrides={"gpu": {}})


def test_a_pod_is_as_set() -> None:
    from sluice_airflow.operators.pod import SluicePodOperator

    operator = SluicePodOperator(
        task_id="embed", node="embed", run="s3://b/a", image="registry.example/{program}:1", namespace="x", do_xcom_push=False
    )
    pod = operator.build_pod_request_obj(dry_run=True)
    [container] = pod.spec.containers
    assert container.image == "registry.example/sluice-embed:1"
    assert container.resources.limits == {"cpu": "4", "memory": "4096Mi"}
    assert container.security_context.capabilities.drop == ["ALL"]
    assert pod.spec.security_context.run_as_user == 65532 and pod.spec.security_context.run_as_non_root
    assert pod.spec.automount_service_account_token is False
    assert container.args[:3] == ["--run", "s3://b/a", "--survivors-of=exact"] and "--result" not in container.args


def test_the_wheel_has_all_files(tmp_path: Path) -> None:
    line = "import flit_core.buildapi as f; f.build_wheel(r'%s')" % tmp_path
    subprocess.run([sys.executable, "-c", line], cwd=places.PACKAGE, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in HERE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(HERE.parent)) for path in files} <= packed
    assert any(name.endswith("entry_points.txt") for name in packed)


def test_the_types_are_right() -> None:
    cache = places.ROOT / ".cache" / "airflow" / "mypy"
    line = [sys.executable, "-m", "mypy", "--cache-dir", cache if cache.parent.exists() else os.devnull]
    done = subprocess.run(line, cwd=places.PACKAGE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
