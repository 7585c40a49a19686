"""Pipelines as Jobs, by run.sh and a Kustomization of a user's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kit import DEMO, HERE, NAMESPACE, REPOSITORY, compared, kubectl, remove, row, sluice, wait_until

SHIPPED = REPOSITORY / "workflows/kubernetes/curate.yaml"


@contextlib.contextmanager
def kustomization(name: str, printed: str, tasks: int, components: tuple[str, ...] = (), **values: str) -> Iterator[Path]:
    """Makes a folder with Jobs, the values of their parameters, and components by their folders in `workflows`."""
    values = {"run": f"s3://sluice/runs/{name}", "input": "s3://sluice/raw", "output": f"s3://sluice/curated/{name}", "tasks": str(tasks)} | values
    remove(name)
    patch = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sluice-run"}, "data": values}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "jobs.yaml").write_text(printed)
        used = [os.path.relpath(REPOSITORY / "workflows" / path, folder) for path in components]
        made = {"resources": ["jobs.yaml"], "components": used, "patches": [{"patch": json.dumps(patch)}]}
        Path(folder, "kustomization.yaml").write_text(json.dumps(made))
        yield Path(folder)


def run_jobs(folder: Path, *steps: str) -> subprocess.CompletedProcess[str]:
    """Runs the Jobs one after the other: all, or from one step to another."""
    settings = os.environ | {"KUBECTL": f"kubectl -n {NAMESPACE}", "POLL": "1"}
    line = [REPOSITORY / "workflows/kubernetes/run.sh", folder, *steps]
    return subprocess.run(line, env=settings, check=False, capture_output=True, text=True)


def all_of(folder: Path) -> str:
    """Runs all Jobs, and says how long it took."""
    kubectl("delete", "jobs", "--all")
    started = time.time()
    done = run_jobs(folder)
    assert done.returncode == 0, done.stderr[-2000:]
    count = len(kubectl("get", "pods", "-l", "batch.kubernetes.io/job-name", "-o", "name").split())
    number = len(kubectl("get", "jobs", "-o", "name").split())
    return f"{number} Jobs Complete in {time.time() - started:.0f} s, {count} pods"


def jobs() -> None:
    """The default pipeline as Jobs."""
    with kustomization("jobs", SHIPPED.read_text(), 4, **DEMO, **{"shards-per-partition": "1"}) as folder:
        row("Jobs, default pipeline", all_of(folder), compared("jobs"))


def of_file() -> str:
    return sluice("dag", "--pipeline", HERE / "photos.toml", "--format", "kubernetes")


def jobs_file() -> None:
    """A pipeline file as Jobs."""
    with kustomization("jobs-file", of_file(), 2) as folder:
        row("Jobs, a pipeline file", all_of(folder), compared("jobs-file", "photos-local"))


def jobs_undone() -> None:
    """A Job with fewer pods than shares is Complete; the next step does nothing, and names what is missing."""
    with kustomization("undone", of_file(), 4, **{"shards-per-partition": "1"}) as folder:
        assert run_jobs(folder, "partition", "partition").returncode == 0
        kubectl("delete", "job", "sluice-read", "--ignore-not-found")
        everything = kubectl("kustomize", folder)
        read = json.loads(kubectl("apply", "-f", "-", "-l", "app.kubernetes.io/component=read", "--dry-run=client", "-o", "json", input=everything))
        [read] = read.get("items", [read])
        read["spec"] |= {"completions": 2, "parallelism": 2}
        kubectl("apply", "-f", "-", input=json.dumps(read))
        state = 'jsonpath={.status.conditions[?(@.status=="True")].type}'
        wait_until("the Job is Complete", lambda: "Complete" in kubectl("get", "job", "sluice-read", "-o", state), 180)
        refused = run_jobs(folder, "large", "large")
        assert refused.returncode == 1 and "the shares 2-3 of --task-count 4" in refused.stderr, refused.stderr[-2000:]
        [reason] = [line for line in refused.stderr.splitlines() if "exit 3" in line][:1]
        row("a Job with 2 of 4 shares is Complete", f"the next step fails: {' '.join(reason.split())[:300]}", "nothing written")


def jobs_queued() -> None:
    """Jobs with Kueue's queue, as the API server takes them: Kueue itself is not here."""
    with kustomization("queued", SHIPPED.read_text(), 4, ("argo/components/kueue", "kubernetes/components/small")) as folder:
        taken = json.loads(kubectl("apply", "-k", folder, "--dry-run=server", "-o", "json"))["items"]
    found = [job for job in taken if job["kind"] == "Job"]
    for job in found:
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "sluice", job["metadata"]
        assert job["spec"]["template"]["spec"]["priorityClassName"] == "sluice", job["metadata"]
    assert len(found) == SHIPPED.read_text().count("kind: Job\n"), len(found)
    row("Jobs with components/kueue and components/small", f"the API server takes {len(found)} Jobs (dry run)", "-")


CASES = (jobs, jobs_file, jobs_undone, jobs_queued)
