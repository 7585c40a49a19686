"""Runs Sluice on the cluster of this folder, by Argo, by Jobs and by Airflow, causes faults, and compares bytes with a local run.
Prints a line for each run and each fault, and in the end the table for README.md.

    cluster.py [CASE…]        all cases, or those that are named: one after the other, or at the same time with `+` between them
    cluster.py --list
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import sys
import time
from pathlib import Path

import faults
import features
import jobs
from kit import (
    CLUSTER,
    DEMO,
    HERE,
    MODELS,
    PHOTOGRAPHS,
    REPOSITORY,
    compared,
    finished,
    hashes,
    kubectl,
    local_run,
    put,
    remove,
    row,
    run,
    say,
    sluice,
    submit,
    table,
    told,
)

# The Python of an environment with Airflow and its provider for Kubernetes.
AIRFLOW = Path(os.environ.get("AIRFLOW", REPOSITORY / ".cache/airflow/bin/python"))


def prepare() -> None:
    """The photographs and the models into the store, and local runs to compare with."""
    for shard in sorted(PHOTOGRAPHS.glob("*.tar")):
        put(f"raw/{shard.name}", shard.read_bytes())
    # The others are measures, which need no file.
    for model in (value for value in DEMO.values() if (MODELS / value).is_dir()):
        sluice("models", "pull", model, "--from", MODELS / model, "--models", "s3://sluice/models")
    started = time.time()
    local_run("local")
    say(f"a local run to compare with: {time.time() - started:.0f} s, {len(hashes('curated/local'))} files")
    places = ["--set", "input=s3://sluice/raw", "--set", "output=s3://sluice/curated/photos-local"]
    sluice("run", "--pipeline", HERE / "photos.toml", "--run", "s3://sluice/runs/photos-local", *places)


def argo() -> None:
    """The default pipeline by Argo: from nothing, and again."""
    remove("argo")
    for what in ("from nothing", "up to date"):
        row(f"Argo, default pipeline, {what}", told(finished(submit("argo"))), compared("argo"))


def argo_file() -> None:
    """A pipeline file by Argo."""
    kubectl("apply", "-f", "-", input=sluice("dag", "--pipeline", HERE / "photos.toml", "--format", "argo"))
    remove("photos")
    found = finished(submit("photos", template="sluice-photos", demo=False))
    row("Argo, a pipeline file", told(found), compared("photos", "photos-local"))


def argo_list() -> None:
    """Inputs by reference: a list in the store."""
    names = [f"s3://sluice/raw/{shard.name}" for shard in sorted(PHOTOGRAPHS.glob("*.tar"))]
    put("short.txt", "\n".join(names).encode())
    remove("listed")
    found = finished(submit("listed", input="@s3://sluice/short.txt", **{"max-tasks": "2"}))
    row("Argo, inputs by reference", told(found), compared("listed"))


def airflow() -> None:
    """The default pipeline by Airflow's KubernetesPodOperator: the shipped example."""
    remove("airflow")
    remove("airflow.run")
    started = time.time()
    path = os.pathsep.join([str(REPOSITORY / "workflows/airflow/src"), str(AIRFLOW.parent)])
    conf = {"input": ["s3://sluice/raw"], "output": "s3://sluice/curated/airflow", "shards-per-partition": 1, "max-tasks": 4}
    said = run(AIRFLOW, "-B", "-W", "ignore", HERE / "airflow_run.py", json.dumps(conf | DEMO | {"eps": 0.15}), env=os.environ | {"PYTHONPATH": path})
    result = json.loads(said.splitlines()[-1])
    took = f"{result['state']} in {time.time() - started:.0f} s, {result['tasks']} tasks, {result['pods']} of them pods"
    row("Airflow, KubernetesPodOperator, default pipeline", took, compared("airflow", where="s3://sluice/curated/airflow.run"))


ENGINES = (prepare, argo, argo_file, argo_list, airflow)
CASES = {case.__name__.replace("_", "-"): case for case in (*ENGINES, *features.CASES, *jobs.CASES, *faults.CASES)}
# Those that do not disturb one another run at the same time.
ALL = [
    "prepare", "argo", "requeue", "models+jobs-queued", "components+argo-file+argo-list+certificates", "node", "jobs+airflow",
    "jobs-file+controller", "jobs-undone+parameters+mutex+logs", "account", "small", "kill+deleted+evicted+memory", "exit-75", "store-away",
    "kubelet", "disk",
]  # fmt: skip


def try_case(name: str) -> bool:
    """Runs a case. Returns whether it held."""
    try:
        CASES[name]()
        return True
    except Exception as e:
        row(name, "FAILED", " ".join(str(e).split())[:1500])
        return False


def main() -> int:
    if sys.argv[1:] == ["--list"]:
        for name, case in CASES.items():
            print(f"{name:12} {(case.__doc__ or '').splitlines()[0]}")
        return 0
    started, failed = time.time(), []
    for group in sys.argv[1:] or ALL:
        names = group.split("+")
        say(f"{' and '.join(names)}, at a load of {os.getloadavg()[0]:.0f}")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            failed += [name for name, held in zip(names, pool.map(try_case, names), strict=True) if not held]
    print(f"\n{table()}\n")
    say(f"{len(failed)} cases failed: {', '.join(failed)}" if failed else f"all cases passed, in {time.time() - started:.0f} s")
    (CLUSTER / "log/table.md").write_text(table() + "\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
