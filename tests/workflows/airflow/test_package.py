"""The package itself: what Airflow sees of it, and that its DAG is the one that `sluice dag` prints.

When `dag.json` drifts: target/release/sluice dag > workflows/airflow/src/sluice_airflow/dag.json
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
from conftest import DAGS, airflow
from sluice_airflow import commands, curate, definition, links, outcome
from sluice_airflow.operators.base import retries

HERE = places.PACKAGE / "src" / "sluice_airflow"
EXAMPLES = ("sluice_local", "sluice_kubernetes")
PLACES = {"input": ["s3://raw/a b", "s3://raw/{000..099}.tar"], "output": "s3://curated/a"}


@pytest.fixture(scope="module")
def printed() -> dict:
    """What `sluice dag` prints."""
    done = subprocess.run([places.programs() / "sluice", "dag"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


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


def test_the_definition_is_what_sluice_dag_prints(printed: dict) -> None:
    assert json.loads((HERE / "dag.json").read_text()) == printed


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_dag_is_the_definition(name: str, dags: dict, printed: dict) -> None:
    lines = list(commands.tasks(dags[name], PLACES))
    assert lines[-1]["step"] == "verify" and lines[-1]["after"] == ["report"]
    assert {line["task"]: (line["after"], line["mapped"]) for line in lines[:-1]} == {
        step["name"]: (sorted(step["after"]), step["fan_out"] != "one") for step in printed["steps"]
    }
    # What fans out does so over what the definition says, counted by whom it says.
    for step in printed["steps"]:
        shares = {name for name in dags[name].get_task(step["name"]).upstream_task_ids if name.startswith("fan-out-")}
        counted_by = step["counted_by"] or {}
        assert shares == ({f"fan-out-{step['fan_out']}"} if counted_by else set())
        for share in shares:
            assert dags[name].get_task(share).upstream_task_ids == set(filter(None, [counted_by.get("step")]))
    for line, step in ((line, step) for line in lines for step in printed["steps"] if step["name"] == line["step"]):
        expected = [step["program"], *filter(None, [step["subcommand"]]), "--run", "s3://curated/a.run"]
        for argument in step["arguments"]:
            [parameter] = [each for each in printed["parameters"] if each["name"] == argument["parameter"]]
            value = PLACES.get(parameter["name"], parameter["default"])
            if value is not None:
                expected += [argument["flag"], *(value if isinstance(value, list) else [value])]
        if line["mapped"]:
            expected += ["--task-index", "1", "--task-count", "3"]
        assert line["command"] == expected
        if "container" in line:
            assert line["container"] == [*expected, "--result", "/airflow/xcom/return.json"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_tasks_are_tried_again_as_the_definition_says(name: str, dags: dict, printed: dict) -> None:
    policy = printed["retry"]
    for line in commands.tasks(dags[name], PLACES):
        task = dags[name].get_task(line["task"])
        assert task.retries == policy["limit"]
        assert task.retry_delay.total_seconds() == policy["first_seconds"]
        assert task.retry_exponential_backoff == 2
        assert task.max_retry_delay.total_seconds() == policy["longest_seconds"]
        assert task.execution_timeout
        assert f"`{definition.definition().step(line['step']).title}`" in task.doc_md
    assert retries()["retries"] == policy["limit"]
    assert [code for code in range(256) if outcome.is_retried(code)] == policy["exit_codes"]


def test_the_commands_program_prints_json_lines() -> None:
    line = [sys.executable, "-m", "sluice_airflow.commands", "--executor", "pod", "--set", "output=out", "--set", 'input=["in"]']
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["step"] for line in lines] == [step.name for step in definition.definition().steps]
    assert lines[0]["command"] == ["sluice-partition", "--run", "out.run", "--input", "in"]


def test_the_form_has_all_parameters(printed: dict) -> None:
    form = curate.params()
    assert set(form) == {parameter["name"] for parameter in printed["parameters"]} | {"run", "max-tasks"}
    for parameter in printed["parameters"]:
        param = form[parameter["name"]]
        assert param.description == parameter["help"]
        if not parameter["switch"]:
            assert parameter["value"] in curate.TYPES, "what does the form make of it?"
        if not parameter["required"]:
            assert param.resolve() == (False if parameter["switch"] else parameter["default"])
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
    }
    lines = {line["step"]: line["command"] for line in commands.tasks(dags["sluice_kubernetes"], odd)}
    assert lines["partition"] == ["sluice-partition", "--run", "/out.run", "--input", *odd["input"]]
    assert "--min-score=-1" in lines["aesthetic"]
    assert lines["nsfw"][-6:-4] == ["--max-score", "0"]
    assert "{{ nothing }}" in lines["dedup-match"]
    assert lines["export-plan"][-1] == "--embeddings"


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


def test_mistakes_are_told_when_the_dag_is_read() -> None:
    from sluice_airflow.operators.local import SluiceLocalOperator
    from sluice_airflow.operators.pod import SluicePodOperator

    with pytest.raises(KeyError, match="no step reed"):
        SluiceLocalOperator(task_id="x", step="reed", run="r").command_line
    with pytest.raises(KeyError, match="no parameter epps"):
        SluiceLocalOperator(task_id="x", step="read", run="r", parameters={"epps": 1})
    with pytest.raises(TypeError, match="arguments of a Sluice pod"):
        SluicePodOperator(task_id="x", step="read", run="r", arguments=["--force"])
    with pytest.raises(ValueError, match="neither a step nor a class"):
        curate.curate(overrides={"gpu": {}})


def test_a_pod_is_what_was_asked_for() -> None:
    from sluice_airflow.operators.pod import SluicePodOperator

    operator = SluicePodOperator(
        task_id="embed", step="embed", run="s3://b/a", image="registry.example/{program}:1", namespace="x", do_xcom_push=False
    )
    pod = operator.build_pod_request_obj(dry_run=True)
    [container] = pod.spec.containers
    assert container.image == "registry.example/sluice-embed:1"
    assert container.resources.limits == {"cpu": "4", "memory": "4096Mi"}
    assert container.security_context.capabilities.drop == ["ALL"]
    assert pod.spec.security_context.run_as_user == 65532 and pod.spec.security_context.run_as_non_root
    assert pod.spec.automount_service_account_token is False
    assert container.args == ["--run", "s3://b/a"]


def test_the_wheel_holds_all_of_it(tmp_path: Path) -> None:
    line = "import flit_core.buildapi as f; f.build_wheel(r'%s')" % tmp_path
    subprocess.run([sys.executable, "-c", line], cwd=places.PACKAGE, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in HERE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(HERE.parent)) for path in files} <= held
    assert any(name.endswith("entry_points.txt") for name in held)


def test_the_types_hold() -> None:
    cache = places.ROOT / ".cache" / "airflow" / "mypy"
    line = [sys.executable, "-m", "mypy", "--cache-dir", cache if cache.parent.exists() else os.devnull]
    done = subprocess.run(line, cwd=places.PACKAGE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
