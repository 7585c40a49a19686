"""The default pipeline as pods, against a stand-in for the Kubernetes API that runs them as processes. tests/workflows/cluster runs it on
a real one, with the image.

Failures: a task that does not succeed, a result that is not in XCom, last words that are not in the exception, a permanent exit
that is retried, a container that asks for too much, a secret in a log or a command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import places
import pytest
import yaml
from conftest import DAGS, results, states
from store import KEY, SECRET, Store, free_ports

SETTINGS = {"embedder": "efficientnet-lite0", "aesthetic": "technical-quality", "nsfw": "opennsfw", "eps": 0.15}


@pytest.fixture(scope="module")
def cluster(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The stand-in's URL; the DAGs get it from TEST_CLUSTER."""
    work = tmp_path_factory.mktemp("cluster")
    for shard in places.demo():
        store.put(shard, f"demo/{shard.name}")
    for file in places.models().glob("*/*"):
        if file.is_file():
            store.put(file, f"models/{file.parent.name}/{file.name}")
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    secret = {**store.variables, "SLUICE_MODELS": store.uri("models")}
    environment = {
        **os.environ,
        "FAKELET_PROGRAMS": str(places.programs()),
        "FAKELET_SECRETS": json.dumps({"sluice-store": secret}),
        "ORT_DYLIB_PATH": str(places.onnxruntime()),
    }
    named = {"clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}]}
    named |= {"contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"}
    (work / "config").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **named}))
    more = {
        "TEST_CLUSTER": str(work / "config"),
        "TEST_BUCKET": store.uri("").rstrip("/"),
        "TEST_STORE": store.variables["AWS_ENDPOINT_URL"],
    }
    os.environ.update(more)
    with (work / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-B", Path(__file__).with_name("fakelet.py"), str(port)], env=environment, stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{url}/version", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait()
        for name in more:
            os.environ.pop(name)


def seen(cluster: str) -> dict:
    """Returns the pods that the stand-in ran."""
    with urllib.request.urlopen(f"{cluster}/_state", timeout=10) as answer:
        return json.load(answer)


def test_the_whole_dag_runs_as_pods(
    db: None, cluster: str, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(DAGS)
    assert not bag.import_errors
    conf = {"input": [store.uri("demo/")], "output": store.uri("pods"), "shards-per-partition": 2, **SETTINGS}
    started = time.monotonic()
    run = bag.dags["pods"].test(run_conf=conf)
    seconds = time.monotonic() - started
    log = capfd.readouterr().out
    ended = states(run)
    assert {state for state, _ in ended.values()} == {"success"}, (ended, log[-6000:])
    assert ended["verify", -1] == ("success", 1)
    returned = {key: value for key, value in results(run).items() if isinstance(value, dict)}
    assert {value["status"] for value in returned.values()} == {"done"}
    assert "paths" not in returned["partition", -1]["outputs"]
    assert sum(returned["read", index]["counts"]["in"] for index in (0, 1)) == 177
    assert [name for name in store.names("pods") if name.endswith(".tar")] == ["pods/shard-00000.tar"]
    by_hand = [line for line in log.splitlines() if f"by hand: sluice-embed --run {store.uri('pods.run')}" in line]
    assert by_hand and all("--model=efficientnet-lite0" in line for line in by_hand)
    assert any("--task-index 1 --task-count 2" in line for line in by_hand)
    state = seen(cluster)
    assert state["left"] == []
    for pod in state["seen"]:
        base, *side = pod["containers"]
        assert base["securityContext"]["readOnlyRootFilesystem"] is True
        assert [container["image"] for container in side] == ["registry.example/sidecar:1"] * len(side)
        assert base["resources"]["limits"] == base["resources"]["requests"]
        # A ResourceQuota refuses containers without limits.
        assert all(container["resources"]["limits"] for container in side)
    assert SECRET not in log + json.dumps(state) and KEY not in log + json.dumps(state)
    with capfd.disabled():
        print(json.dumps({"pods": len(state["seen"]), "seconds": round(seconds, 1)}))


def test_pods_that_fail(db: None, cluster: str, store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    from airflow.dag_processing.dagbag import DagBag

    run = DagBag(DAGS).dags["pod_outcomes"].test()
    log = capfd.readouterr().out
    assert run.state == "failed"
    assert states(run) == {
        ("away", -1): ("success", 2),
        ("usage", -1): ("failed", 1),
        ("data", -1): ("failed", 1),
        ("unsound", -1): ("failed", 1),
        ("deferred", -1): ("success", 1),
        ("deferred_data", -1): ("failed", 1),
    }, log[-6000:]
    # The exception has the container's last words.
    assert "sluice-partition ended with 75 (storage or network): " in log
    assert "sluice-dedup match ended with 2 (usage): " in log
    assert "sluice-read ended with 3 (the data cannot be used): " in log
    returned = results(run)
    assert returned["away", -1]["fan_out"] == {"partitions": 4}
    assert returned["data", -1]["error"]["kind"] == "data"
    assert returned["deferred", -1]["fan_out"] == {"partitions": 4}
    assert returned["deferred_data", -1]["error"]["kind"] == "data"
    assert seen(cluster)["left"] == []
