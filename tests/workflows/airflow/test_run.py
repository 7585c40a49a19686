"""The shipped example DAG, from bucket to bucket, and a pipeline of the user's own.

Failures: a task that does not succeed, a run that `sluice verify` finds unsound, an output that differs from that of
`sluice run`, work that a second run repeats.
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


def same(name: str, here: bytes, there: bytes, place_here: str, place_there: str) -> None:
    """Fails if two files of an output differ, except in the places that the index and the card have. The claim names its run."""
    if name == ".sluice.json":
        return
    if not name.endswith((".tar", ".parquet")):
        here, there = here.replace(place_here.encode(), b""), there.replace(place_there.encode(), b"")
    assert here == there, f"{name} differs"


def test_the_example_curates_from_bucket_to_bucket(
    db: None, machine: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    shards = places.demo()
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
    returned = results(run)
    steps = {key: value for key, value in returned.items() if isinstance(value, dict) and "status" in value}
    assert {value["status"] for value in steps.values()} == {"done"}
    # Every photograph is accounted for in XCom, too.
    counts = [value["counts"] for (task, _), value in steps.items() if task == "export-decide"]
    total = sum(count["in"] for count in counts)
    assert total == sum(count["kept"] + sum(count["dropped"].values()) for count in counts)
    assert sum(count["kept"] for count in counts) < total
    tasks = {task: sum(1 for other, _ in ended if other == task) for task, _ in ended}
    assert tasks["read"] == min(3, len(shards))
    assert tasks["exact"] == 2
    assert tasks["dedup-match"] == min(3, returned["dedup-fit", -1]["fan_out"]["cluster-groups"])
    assert tasks["export-write"] == min(3, returned["export-plan", -1]["fan_out"]["output-shards"])
    assert all(check["failed"] == 0 for check in returned["verify", -1]["checks"])
    by_hand = f"by hand: {machine}/sluice-embed --run {store.uri('curated.run')} --survivors-of=exact"
    assert by_hand in log and "--model=efficientnet-lite0" in log
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
        same(name, (tmp_path / "curated" / name).read_bytes(), store.get(f"curated/{name}"), f"{tmp_path}/", store.uri(""))

    # The same command lines, but for places and for the share of a task.
    there = {line["node"]: line for line in commands.tasks(bag.dags["sluice_local"], conf)}
    for step in json.loads(done.stdout)["steps"]:
        words = shlex.split(step["command"].replace(f"{tmp_path}/", store.uri("")).replace("--run=", "--run "))
        share = ["--task-index", "1", "--task-count", "3"] if there[step["step"]]["mapped"] else []
        assert there[step["step"]]["command"] == [f"{machine}/{words[0]}", *words[1:], *share]

    # A second run has nothing to do, and skips nothing.
    again = bag.dags["sluice_local"].test(run_conf=conf)
    assert again.state == "success"
    assert {state for state, _ in states(again).values()} == {"success"}
    second = results(again)
    assert {value["status"] for (task, _), value in second.items() if isinstance(value, dict) and "status" in value} == {
        "up-to-date"
    }
    assert {key for key in second} == {key for key in returned}
    images = total, sum(count["kept"] for count in counts)
    with capfd.disabled():
        print(json.dumps({"images": images[0], "kept": images[1], "tasks": len(ended), "seconds": round(seconds, 1)}))


def test_a_pipeline_file_curates_to_the_bytes_of_sluice_run(
    db: None, machine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    programs = places.with_pipelines()
    for name in ("input", "airflow", "alone"):
        (tmp_path / name).mkdir()
    for shard in places.demo():
        (tmp_path / "input" / shard.name).symlink_to(shard)

    conf = {"input": [str(tmp_path / "input")], "output": str(tmp_path / "airflow/curated"), "max-tasks": 2}
    run = DagBag(DAGS).dags["photos"].test(run_conf=conf)
    log = capfd.readouterr().out
    ended = states(run)
    assert {state for state, _ in ended.values()} == {"success"}, (ended, log[-4000:])
    assert {"quality", "nsfw-again", "late", "fan-out-hash-ranges-again"} <= {task for task, _ in ended}
    returned = results(run)
    assert all(check["failed"] == 0 for check in returned["verify", -1]["checks"])
    counts = [value["counts"] for (task, _), value in returned.items() if task == "export-decide"]
    assert 0 < sum(count["kept"] for count in counts) < sum(count["in"] for count in counts)
    # No template is made of the rule's signs.
    assert "'{{ 1 + 1 }} {% x %} {# y #} $$(HOME)'" in log

    alone = tmp_path / "alone/curated"
    file = Path(__file__).parent / "pipelines/photos.toml"
    line = [programs / "sluice", "run", "--pipeline", file, "--input", tmp_path / "input", "--output", alone]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in alone.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "airflow/curated").iterdir())
    for name in names:
        here, there = alone / name, tmp_path / "airflow/curated" / name
        same(name, here.read_bytes(), there.read_bytes(), f"{tmp_path}/alone/", f"{tmp_path}/airflow/")
