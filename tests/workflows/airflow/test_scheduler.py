"""A run under the real scheduler: `airflow standalone` on sqlite, triggered by the command line.

Failures: a run that does not succeed, or one without the report's link. Slow: `make test-airflow SLOW=1`.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import places
import psutil
import pytest
from conftest import SETTINGS, airflow
from store import Store, free_ports


@pytest.mark.slow
def test_a_run_under_the_scheduler(
    machine: Path, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for shard in places.demo():
        store.put(shard, f"scheduled/{shard.name}")
    port, logs, triggers = free_ports(3)
    environment = {
        **os.environ,
        **SETTINGS,
        **store.variables,
        # It starts its parts by their name.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(logs),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(triggers),
        "AIRFLOW__CORE__PARALLELISM": "4",
    }
    program = Path(sys.executable).with_name("airflow")
    log = tmp_path / "log"
    started = time.monotonic()
    with log.open("w") as out:
        standalone = subprocess.Popen([program, "standalone"], env=environment, stdout=out, stderr=out, start_new_session=True)
    tree = psutil.Process(standalone.pid)
    most = 0.0

    def until(ready, patience: float) -> float:
        nonlocal most
        before = time.monotonic()
        while not ready():
            assert standalone.poll() is None and time.monotonic() - before < patience, log.read_text()[-4000:]
            resident = 0
            for process in tree.children(recursive=True):
                try:
                    resident += process.memory_info().rss
                except psutil.Error:
                    pass
            most = max(most, resident / 1e9)
            time.sleep(0.5)
        return time.monotonic() - started

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=5) as answer:
                health = json.load(answer)
        except OSError:
            return False
        return health["scheduler"]["status"] == health["dag_processor"]["status"] == "healthy"

    def query(text: str) -> list:
        connection = sqlite3.connect(f"file:{tmp_path}/airflow.db?mode=ro", uri=True, timeout=30)
        try:
            return connection.execute(text).fetchall()
        finally:
            connection.close()

    try:
        up = until(healthy, 180)
        until(lambda: query("select 1 from dag where dag_id = 'sluice_local'"), 120)
        airflow("dags", "unpause", "sluice_local", env=environment)
        conf = {"input": [store.uri("scheduled")], "output": store.uri("by-scheduler"), "shards-per-partition": 1, "max-tasks": 4}
        conf |= {"embedder": "efficientnet-lite0", "aesthetic": "technical-quality", "nsfw": "opennsfw", "eps": 0.15}
        airflow("dags", "trigger", "sluice_local", "--conf", json.dumps(conf), env=environment)
        state = "select state from dag_run where dag_id = 'sluice_local'"
        until(lambda: query(state) and query(state)[0][0] in ("success", "failed"), 400)
        tasks = query("select task_id, state, try_number from task_instance where dag_id = 'sluice_local'")
        assert query(state) == [("success",)], tasks
        assert {(state, tries) for _, state, tries in tasks} == {("success", 1)}
        link = query("select value from xcom where task_id = 'report' and key = '_link_ReportLink'")
        endpoint = store.variables["AWS_ENDPOINT_URL"]
        assert json.loads(link[0][0]) == f"{endpoint}/sluice-test/by-scheduler.run/report/index.html"
        [(begun, over)] = query("select start_date, end_date from dag_run where dag_id = 'sluice_local'")
        [(took,)] = query(f"select (julianday('{over}') - julianday('{begun}')) * 86400")
        written = "\n".join(path.read_text() for path in tmp_path.glob("logs/dag_id=sluice_local/**/*.log"))
        assert "by hand: " in written
        secret = store.variables["AWS_SECRET_ACCESS_KEY"]
        assert secret not in written + log.read_text()
        figures = {"up_seconds": round(up, 1), "run_seconds": round(took, 1), "tasks": len(tasks), "memory_gb": round(most, 2)}
        with capfd.disabled():
            print(json.dumps(figures))
    finally:
        os.killpg(standalone.pid, signal.SIGTERM)
        try:
            standalone.wait(timeout=30)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(standalone.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
