"""Runs Sluice on the cluster of this folder and compares bytes with a local run. Prints a line for each run and each fault, as a row of
the tables in README.md.

    cluster.py [CASE…]        all cases, or those that are named; `cluster.py --list`
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
CLUSTER = Path(os.environ["CLUSTER"])
PROGRAMS = Path(os.environ.get("PROGRAMS", REPOSITORY / "target/release"))
MODELS = Path(os.environ.get("SLUICE_MODELS", REPOSITORY / ".cache/models"))
PHOTOGRAPHS = Path(os.environ.get("SLUICE_DEMO_INPUT", REPOSITORY / "demo/input"))
FILER = "http://10.88.0.1:28898/buckets/sluice"
NAMESPACE = "sluice"
DEMO = {"embedder": "efficientnet-lite0", "aesthetic": "technical-quality", "nsfw": "opennsfw", "eps": "0.15"}
# Of an output this differs from run to run: it states the place of the run.
OWN = {".sluice.json"}


def say(text: str) -> None:
    print(time.strftime("%T", time.gmtime()), text, flush=True)


def run(*line: object, check: bool = True, **more) -> str:
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True, **more)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, line))[:300]}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def kubectl(*line: object, namespace: str = NAMESPACE, **more) -> str:
    return run("kubectl", "-n", namespace, *line, **more)


def sluice(*line: object) -> str:
    return run(PROGRAMS / "sluice", *line)


# --------------------------------------------------------------------------------------------------- the store


def put(path: str, content: bytes) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{FILER}/{path}", data=content, method="PUT"), timeout=60)


def listed(folder: str) -> list[str]:
    """Returns the paths of all objects under a folder of the bucket."""
    paths, after = [], ""
    while True:
        request = urllib.request.Request(f"{FILER}/{folder}/?limit=1000&lastFileName={after}", headers={"Accept": "application/json"})
        try:
            answer = json.load(urllib.request.urlopen(request, timeout=60))
        except urllib.error.HTTPError:
            return paths
        for entry in answer.get("Entries") or []:
            path = entry["FullPath"].removeprefix("/buckets/sluice/")
            # Folders have the highest bit of a mode.
            paths.extend(listed(path) if entry["Mode"] >> 31 & 1 else [path])
        if not answer.get("ShouldDisplayLoadMore"):
            return paths
        after = answer["LastFileName"]


def hashes(folder: str) -> dict[str, str]:
    found = {}
    for path in listed(folder):
        content = urllib.request.urlopen(f"{FILER}/{path}", timeout=60).read()
        name = path.removeprefix(f"{folder}/")
        if name not in OWN:
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def compared(name: str, other: str = "local") -> str:
    """Says how many files of an output are those of another one, which must be all."""
    ours, theirs = hashes(f"curated/{name}"), hashes(f"curated/{other}")
    different = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    if different or not ours:
        raise AssertionError(f"{name}: {len(different)} of {len(theirs)} files differ: {different[:5]}")
    sluice("verify", "--quick", "--run", f"s3://sluice/runs/{name}")
    return f"{len(ours)} of {len(theirs)} files equal"


# ---------------------------------------------------------------------------------------------------------- Argo


def submit(name: str, template: str = "sluice-curate", demo: bool = True, **parameters: str) -> str:
    values = {"run": f"s3://sluice/runs/{name}", "input": "s3://sluice/raw", "output": f"s3://sluice/curated/{name}", "max-tasks": "4"}
    values |= (DEMO | {"shards-per-partition": "1"} if demo else {}) | parameters
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": f"{name}-"},
        "spec": {
            "workflowTemplateRef": {"name": template},
            "arguments": {"parameters": [{"name": key, "value": value} for key, value in values.items()]},
        },
    }
    made = kubectl("create", "-f", "-", "-o", "jsonpath={.metadata.name}", input=json.dumps(workflow))
    return made.strip()


def workflow(name: str) -> dict:
    return json.loads(kubectl("get", "workflow", name, "-o", "json"))


def finished(name: str, seconds: int = 1800) -> dict:
    end = time.time() + seconds
    while time.time() < end:
        found = workflow(name)
        if found.get("status", {}).get("phase") in ("Succeeded", "Failed", "Error"):
            return found
        time.sleep(2)
    raise TimeoutError(f"{name}: {found.get('status', {}).get('progress')} after {seconds} s")


def pods(found: dict) -> list[dict]:
    return [node for node in found["status"].get("nodes", {}).values() if node["type"] == "Pod"]


def seconds(found: dict) -> int:
    parse = lambda text: time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))  # noqa: E731
    return int(parse(found["status"]["finishedAt"]) - parse(found["status"]["startedAt"]))


def told(found: dict) -> str:
    size = len(json.dumps(found, separators=(",", ":")))
    failed = [f"{node['displayName']}: {node['phase']} {node.get('message', '')[:160]}" for node in pods(found) if node["phase"] != "Succeeded"]
    return f"{found['status']['phase']} in {seconds(found)} s, {len(pods(found))} pods, object {size:,} bytes" + "".join(f"\n    {f}" for f in failed)


def running(name: str, step: str, limit: int = 300) -> str:
    """Waits until a pod of a step works, and returns its name."""
    for _ in range(limit):
        found = kubectl("get", "pods", "-l", f"workflows.argoproj.io/workflow={name},app.kubernetes.io/component={step}", "-o", "json")
        for pod in json.loads(found)["items"]:
            states = {c["name"]: c["state"] for c in pod["status"].get("containerStatuses", [])}
            if "running" in states.get("main", states.get("step", {})):
                return pod["metadata"]["name"]
        time.sleep(0.5)
    raise TimeoutError(f"{name}: no pod of {step} works")


def process_of(pod: str, container: str = "main") -> int:
    """Returns the process of a container on this machine."""
    path = f'jsonpath={{.status.containerStatuses[?(@.name=="{container}")].containerID}}'
    made = kubectl("get", "pod", pod, "-o", path).removeprefix("containerd://").strip()
    tasks = run("ctr", "-n", "k8s.io", "tasks", "ls").splitlines()
    [line] = [line.split() for line in tasks if line.startswith(made)]
    return int(line[1])


# --------------------------------------------------------------------------------------------------------- cases


def prepare() -> None:
    """The photographs and the models into the store, and a local run to compare with."""
    for shard in sorted(PHOTOGRAPHS.glob("*.tar")):
        put(f"raw/{shard.name}", shard.read_bytes())
    # The others are measures, which need no file.
    for model in (value for value in DEMO.values() if (MODELS / value).is_dir()):
        sluice("models", "pull", model, "--from", MODELS / model, "--models", "s3://sluice/models")
    started = time.time()
    options = [word for key, value in DEMO.items() for word in (f"--{key}", value)]
    sluice("run", "--input", "s3://sluice/raw", "--output", "s3://sluice/curated/local", "--run", "s3://sluice/runs/local",
           "--models", "s3://sluice/models", "--shards-per-partition", "1", *options)  # fmt: skip
    say(f"local run: {time.time() - started:.0f} s, {len(hashes('curated/local'))} files")


def argo() -> None:
    """The default pipeline, from nothing and again."""
    say(f"argo, from nothing: {told(finished(submit('argo')))}; {compared('argo')}")
    say(f"argo, up to date: {told(finished(submit('argo')))}; {compared('argo')}")


def argo_file() -> None:
    """A pipeline file of a user's."""
    printed = sluice("dag", "--pipeline", HERE / "photos.toml", "--format", "argo")
    kubectl("apply", "-f", "-", input=printed)
    name = submit("photos", template="sluice-photos", demo=False)
    options = ["--set", "input=s3://sluice/raw", "--set", "output=s3://sluice/curated/photos-local"]
    sluice("run", "--pipeline", HERE / "photos.toml", "--run", "s3://sluice/runs/photos-local", "--models", "s3://sluice/models", *options)
    say(f"argo, a pipeline file: {told(finished(name))}; {compared('photos', 'photos-local')}")


def listed_input() -> None:
    """Inputs by reference: a list in the store."""
    names = [f"s3://sluice/raw/{shard.name}" for shard in sorted(PHOTOGRAPHS.glob("*.tar"))]
    put("short.txt", "\n".join(names).encode())
    found = finished(submit("listed", input="@s3://sluice/short.txt"))
    say(f"argo, inputs by reference: {told(found)}; {compared('listed')}")


def jobs() -> None:
    """The default pipeline as Jobs, by a Kustomization of a user's, and an undone share."""
    values = {"run": "s3://sluice/runs/jobs", "input": "s3://sluice/raw", "output": "s3://sluice/curated/jobs", "tasks": "4"}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "jobs.yaml").write_text((REPOSITORY / "workflows/kubernetes/curate.yaml").read_text())
        patch = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sluice-run"}, "data": values | {"shards-per-partition": "1"} | DEMO}
        Path(folder, "kustomization.yaml").write_text(json.dumps({"resources": ["jobs.yaml"], "patches": [{"patch": json.dumps(patch)}]}))
        for what in ("from nothing", "up to date"):
            started = time.time()
            run(REPOSITORY / "workflows/kubernetes/run.sh", folder, env=os.environ | {"KUBECTL": f"kubectl -n {NAMESPACE}", "POLL": "1"})
            count = len(kubectl("get", "pods", "-l", "batch.kubernetes.io/job-name", "-o", "name").split())
            say(f"jobs, {what}: {time.time() - started:.0f} s, {count} pods; {compared('jobs')}")


def parameters() -> None:
    """A misspelt parameter, and places that would be lost."""
    for what, given in (("misspelt", {"min-aesthetics": "5"}), ("local run", {"run": "/tmp/run"}), ("local output", {"output": "/tmp/out"})):
        found = finished(submit("wrong", **given))
        assert found["status"]["phase"] == "Failed", told(found)
        say(f"{what} {given}: {told(found)}")


def account() -> None:
    """A missing service account, and missing credentials."""
    kubectl("delete", "serviceaccount", "sluice")
    found = finished(submit("account"))
    say(f"no service account: {told(found)}")
    kubectl("apply", "-k", REPOSITORY / "workflows/argo")
    secret = kubectl("get", "secret", "sluice-store", "-o", "json")
    kubectl("delete", "secret", "sluice-store")
    found = finished(submit("secret"))
    say(f"no secret: {told(found)}")
    kubectl("apply", "-f", "-", input=secret)


def fault(name: str, step: str, cause, **parameters: str) -> None:
    """A run in the middle of which something happens while a step works."""
    made = submit(name, **parameters)
    cause(running(made, step))
    found = finished(made)
    say(f"{name}, at {step}: {told(found)}; {compared(name)}")


def kill() -> None:
    """SIGKILL to a program: 137."""
    fault("kill", "embed", lambda pod: run("pkill", "-9", "-P", process_of(pod)))


def deleted() -> None:
    """A pod deleted: SIGTERM, 143, or the pod is gone."""
    fault("deleted", "embed", lambda pod: kubectl("delete", "pod", pod, "--wait=false"))


def evicted() -> None:
    """A pod evicted through the API, as a drain does it."""

    def evict(pod: str) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
        run("kubectl", "create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", "-f", "-", input=json.dumps(body))

    fault("evicted", "embed", evict)


def store_away() -> None:
    """The store stopped for 60 s: 75, and tries again."""
    store = int((CLUSTER / "run/store.pid").read_text())

    def away(_: str) -> None:
        os.kill(store, 19)
        time.sleep(60)
        os.kill(store, 18)

    fault("store-away", "embed", away)


def controller() -> None:
    """The controller restarted in the middle."""
    fault("controller", "embed", lambda _: kubectl("delete", "pod", "-l", "app=workflow-controller", "--wait=false", namespace="argo"))


def kubelet() -> None:
    """The kubelet killed: it comes back, and the pods live on."""
    fault("kubelet", "embed", lambda _: os.kill(int((CLUSTER / "run/node1.kubelet.pid").read_text()), 9))


def memory() -> None:
    """A step with too little memory: killed, 137, the same again on each try."""
    template = json.loads(kubectl("get", "workflowtemplate", "sluice-curate", "-o", "json"))
    for pod in template["spec"]["templates"]:
        if pod["name"] == "embed":
            pod["container"]["resources"] = {"requests": {"cpu": "1", "memory": "24Mi"}, "limits": {"cpu": "1", "memory": "24Mi"}}
            pod["retryStrategy"] |= {"limit": "1"}
    kubectl("apply", "-f", "-", input=json.dumps(template))
    found = finished(submit("memory"))
    assert found["status"]["phase"] == "Failed", told(found)
    kubectl("apply", "-k", REPOSITORY / "workflows/argo")
    again = finished(submit("memory"))
    say(f"out of memory at embed: {told(found)}\n    then with enough: {told(again)}; {compared('memory')}")


def node() -> None:
    """A node lost: its kubelet, containers and runtime killed, and the node object deleted."""
    run(HERE / "node.sh", "node2", "10.88.0.2")
    for _ in range(120):
        if " Ready" in run("kubectl", "get", "node", "node2", "--no-headers", check=False):
            break
        time.sleep(1)
    run("kubectl", "cordon", "node1")

    def lose(_: str) -> None:
        run("kubectl", "uncordon", "node1")
        socket = CLUSTER / "run/node2.sock"
        (CLUSTER / "run/node2.stop").touch()
        os.kill(int((CLUSTER / "run/node2.kubelet.pid").read_text()), 9)
        for line in run("ctr", "-a", socket, "-n", "k8s.io", "tasks", "ls").splitlines()[1:]:
            subprocess.run(["kill", "-9", line.split()[1]], check=False)
        os.kill(int((CLUSTER / "run/node2.containerd.pid").read_text()), 9)
        time.sleep(45)
        run("kubectl", "delete", "node", "node2")

    fault("node", "embed", lose)


CASES = {
    case.__name__.replace("_", "-"): case
    for case in (prepare, argo, argo_file, listed_input, jobs, parameters, account, kill, deleted, evicted, store_away, controller, kubelet, memory, node)
}


def main() -> int:
    if sys.argv[1:] == ["--list"]:
        for name, case in CASES.items():
            print(f"{name:12} {(case.__doc__ or '').splitlines()[0]}")
        return 0
    failed = []
    for name in sys.argv[1:] or CASES:
        try:
            CASES[name]()
        except Exception as e:
            failed.append(name)
            say(f"FAILED {name}: {e}")
    say(f"{len(failed)} cases failed: {', '.join(failed)}" if failed else "all cases passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
