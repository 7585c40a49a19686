"""One Airflow for all tests: its folder, its database (sqlite), its DAGs. Set up before Airflow is imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import places
import pytest
from store import Store

HOME = Path(tempfile.mkdtemp(prefix="sluice-airflow-"))
DAGS = HOME / "dags"
SETTINGS = {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
    # Importing Kubernetes' client is slow on a busy machine.
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
    "NO_PROXY": "127.0.0.1,localhost",
}
os.environ.update(SETTINGS)
for unwanted in ("SLUICE_PARTITIONS", "SLUICE_TASK_INDEX", "SLUICE_TASK_COUNT"):
    os.environ.pop(unwanted, None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: runs only with --slow (make test-airflow SLOW=1)")
    # As the README says, the examples are copied into the folder of DAGs. The tests' own DAGs and pipelines are copied too.
    DAGS.mkdir(parents=True)
    examples = places.PACKAGE / "src/sluice_airflow/example_dags"
    here = Path(__file__).parent
    for file in [*examples.glob("sluice_*.py"), *here.glob("dags/*.py"), *here.glob("pipelines/*.json")]:
        shutil.copy(file, DAGS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run under the real scheduler, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: make test-airflow SLOW=1"))


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


def airflow(*arguments: str, **more) -> subprocess.CompletedProcess[str]:
    """Runs Airflow's program."""
    program = Path(sys.executable).with_name("airflow")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True, **more)


@pytest.fixture(scope="session")
def db() -> None:
    """Airflow's database."""
    airflow("db", "migrate")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The S3 server that the tests share."""
    store = Store(places.server(), tmp_path_factory.mktemp("store"))
    yield store
    store.stop()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sets up a worker with the programs and the models. Returns the folder of the programs."""
    folder = places.programs()
    monkeypatch.setenv("SLUICE_PROGRAMS", str(folder))
    monkeypatch.setenv("SLUICE_MODELS", str(places.models()))
    monkeypatch.setenv("ORT_DYLIB_PATH", str(places.onnxruntime()))
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    return folder


def results(run) -> dict[tuple[str, int], dict]:
    """Returns the XCom results of a DAG run's tasks, by task and map index."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(XComModel).filter(XComModel.dag_id == run.dag_id, XComModel.run_id == run.run_id)
        found = [(row.task_id, row.map_index, row.value) for row in rows if row.key == "return_value"]
    return {(task, index): json.loads(value) if isinstance(value, str) else value for task, index, value in found}


def states(run) -> dict[tuple[str, int], tuple[str, int]]:
    """Returns state and number of tries of a DAG run's tasks, by task and map index."""
    return {(ti.task_id, ti.map_index): (str(ti.state), ti.try_number) for ti in run.get_task_instances()}
