"""The shipped example DAG, from bucket to bucket.

Failure is: a task that does not succeed, a run that `sluice verify` does not find sound, an output that differs from that of
`sluice run`, a second run that does anything again.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from pathlib import Path

import places
import pytest
from conftest import DAGS, results, states
from sluice_airflow import commands
from store import KEY, SECRET, Store

SETTINGS = {
    "embedder": "efficientnet-lite0",
    "aesthetic": "technical-quality",
    "nsfw": "opennsfw",
    "eps": 0.15,
    "shards-per-partition": 1,
    "images-per-shard": 60,
    "ranges": 2,
    "groups": 2,
    "min-aesthetic": 0.5,
    "max-nsfw": 0.8,
    "keep": "best",
    "clusters": 20,
    "max-distance": 2,
    "min-side": 32,
    "max-aspect": 6,
    "embeddings": True,
}
"""Every parameter but `bytes-per-shard`, which excludes another one."""


def test_the_example_curates_from_bucket_to_bucket(
    db: None, machine: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    shards = places.photos()
    for shard in shards:
        store.put(shard, f"photos/{shard.name}")
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    bag = DagBag(DAGS)
    assert not bag.import_errors
    settings = {**SETTINGS, "models": str(places.models())}
    conf = {"input": [store.uri("photos")], "output": store.uri("curated"), "max-tasks": 3, **settings}

    started = time.monotonic()
    run = bag.dags["sluice_local"].test(run_conf=conf)
    seconds = time.monotonic() - started
    ended = states(run)
    log = capfd.readouterr().out
    assert run.state == "success", (ended, log[-4000:])
    assert {state for state, _ in ended.values()} == {"success"}
    told = results(run)
    steps = {key: value for key, value in told.items() if isinstance(value, dict) and "status" in value}
    assert {value["status"] for value in steps.values()} == {"done"}
    # Every photograph is accounted for, in what Airflow knows as well as by `verify`.
    counts = [value["counts"] for (task, _), value in steps.items() if task == "export-decide"]
    total = sum(count["in"] for count in counts)
    assert total == sum(count["kept"] + sum(count["dropped"].values()) for count in counts)
    assert sum(count["kept"] for count in counts) < total
    tasks = {task: sum(1 for other, _ in ended if other == task) for task, _ in ended}
    assert tasks["read"] == min(3, len(shards))
    assert tasks["dedup-exact"] == 2
    assert tasks["dedup-match"] == min(3, told["dedup-fit", -1]["fan_out"]["cluster-groups"])
    assert tasks["export-write"] == min(3, told["export-plan", -1]["fan_out"]["output-shards"])
    assert all(check["failed"] == 0 for check in told["verify", -1]["checks"])
    # By hand, as the log says it.
    assert f"by hand: {machine}/sluice-embed --run {store.uri('curated.run')} --model efficientnet-lite0" in log
    assert KEY not in log and SECRET not in log

    # The same by `sluice run`, on local disk.
    folder = tmp_path / "photos"
    folder.mkdir()
    for shard in shards:
        (folder / shard.name).symlink_to(shard)
    words = [f"--{name}" if value is True else f"--{name}={value}" for name, value in settings.items()]
    line = [machine / "sluice", "run", "--input", folder, "--output", tmp_path / "curated", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "curated").iterdir())
    assert store.names("curated") == [f"curated/{name}" for name in names]
    for name in names:
        here, there = (tmp_path / "curated" / name).read_bytes(), store.get(f"curated/{name}")
        if not name.endswith((".tar", ".parquet")):
            # They name places.
            here = here.replace(f"{tmp_path}/".encode(), b"")
            there = there.replace(store.uri("").encode(), b"")
        assert here == there, f"{name} is not the same"

    # The same command lines, but for places and for the share of a task.
    there = {line["step"]: line for line in commands.tasks(bag.dags["sluice_local"], conf)}
    for step in json.loads(done.stdout)["steps"]:
        words = shlex.split(step["command"].replace(f"{tmp_path}/", store.uri("")))
        share = ["--task-index", "1", "--task-count", "3"] if there[step["step"]]["mapped"] else []
        assert there[step["step"]]["command"] == [f"{machine}/{words[0]}", *words[1:], *share]

    # Again: nothing is left to do, and nothing is skipped.
    again = bag.dags["sluice_local"].test(run_conf=conf)
    assert again.state == "success"
    assert {state for state, _ in states(again).values()} == {"success"}
    second = results(again)
    assert {value["status"] for (task, _), value in second.items() if isinstance(value, dict) and "status" in value} == {
        "up-to-date"
    }
    assert {key for key in second} == {key for key in told}
    images = total, sum(count["kept"] for count in counts)
    with capfd.disabled():
        print(json.dumps({"images": images[0], "kept": images[1], "tasks": len(ended), "seconds": round(seconds, 1)}))
