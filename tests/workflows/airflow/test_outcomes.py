"""Exit codes, kills and timeouts of the real programs, and what becomes of the task.

Failures: a permanent exit that is retried, a transient one that is not, a program that outlives its task.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import places
import pytest
from conftest import DAGS, results, states
from store import Store

KILLED_ONCE = """#!/bin/sh
test -e {mark} || {{ touch {mark}; kill -9 $$; }}
exec {program} "$@"
"""


@pytest.fixture
def place(tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an input, and a program that is killed on its first run."""
    (tmp_path / "input").mkdir()
    for shard in places.demo():
        (tmp_path / "input" / shard.name).symlink_to(shard)
    (tmp_path / "programs").mkdir()
    program = tmp_path / "programs" / "sluice-partition"
    program.write_text(KILLED_ONCE.format(mark=tmp_path / "mark", program=machine / "sluice-partition"))
    program.chmod(0o755)
    monkeypatch.setenv("TEST_PLACE", str(tmp_path))
    return tmp_path


def test_transient_exits_are_retried_and_permanent_ones_are_not(
    db: None, place: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    for shard in places.demo():
        store.put(shard, f"demo/{shard.name}")
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TEST_BUCKET", store.uri("").rstrip("/"))
    run = DagBag(DAGS).dags["outcomes"].test()
    log = capfd.readouterr().out
    assert run.state == "failed"
    assert states(run) == {
        ("away", -1): ("success", 2),
        ("killed", -1): ("success", 2),
        ("usage", -1): ("failed", 1),
        ("data", -1): ("failed", 1),
        ("missing", -1): ("failed", 1),
    }, log[-6000:]
    assert "sluice-partition ended with 75 (storage or network): " in log
    assert "sluice-partition ended with 137 (killed)" in log
    assert "sluice-dedup match ended with 2 (usage): " in log
    assert "sluice-read ended with 3 (the data cannot be used): " in log
    assert f"cannot start {place}/nothing/sluice-read: No such file or directory; hint: install the programs" in log
    returned = results(run)
    assert returned["away", -1]["fan_out"] == {"partitions": 4}
    # The result of a failure is in XCom, too.
    assert returned["data", -1]["status"] == "failed" and returned["data", -1]["error"]["retryable"] is False


def test_a_stopped_task_stops_its_program(db: None, place: Path, machine: Path) -> None:
    """Airflow stops a task by SIGTERM to the process that runs it, and one that takes too long by an exception."""
    for name in ("long", "slow"):
        run = place / name
        for step in (["sluice-partition", "--input", place / "input", "--shards-per-partition", "1"], ["sluice-read"]):
            subprocess.run([machine / step[0], *step[1:], "--run", run], check=True, capture_output=True)
    receipts = place / "long" / "embed" / "receipts"
    log = place / "log"
    with log.open("w") as out:
        worker = subprocess.Popen([sys.executable, DAGS / "outcomes.py"], stdout=out, stderr=out, env={**os.environ, "SLUICE_JOBS": "1"})
    started = time.monotonic()
    while not (receipts.exists() and list(receipts.iterdir())):
        assert worker.poll() is None and time.monotonic() - started < 400, log.read_text()[-4000:]
        time.sleep(0.02)
    program = children(worker.pid)
    worker.send_signal(signal.SIGTERM)
    worker.wait(timeout=180)
    text = log.read_text()
    assert "sending SIGTERM to sluice-embed" in text, text[-4000:]
    assert "sluice-embed ended with 143 (stopped)" in text, text[-4000:]
    assert program and not any(Path(f"/proc/{pid}").exists() for pid in program)
    done = len(list(receipts.iterdir()))
    assert done < len(places.demo()), "the signal came too late for this test"
    assert len(list((receipts.parent / "embeddings").iterdir())) == done
    # The other task was stopped by its timeout.
    assert "AirflowTaskTimeout" in text
    assert len(list((place / "slow" / "embed").glob("receipts/*"))) < len(places.demo())


def children(pid: int) -> list[int]:
    """Returns the programs that a process started."""
    found = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    lines = [line.split(None, 1) for line in found.stdout.splitlines()]
    return [int(pid) for pid, name in lines if name.startswith("sluice")]
