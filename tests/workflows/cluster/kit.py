"""What the cases share: commands, the store, workflows, pods, and the table of what happened."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import re
import subprocess
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
STORE = os.environ["AWS_ENDPOINT_URL"]
BRIDGE = os.environ["BRIDGE"]
FILER = f"http://{BRIDGE}:28898/buckets/sluice"
NAMESPACE = "sluice"
DEMO = {"embedder": "efficientnet-lite0", "aesthetic": "technical-quality", "nsfw": "opennsfw", "eps": "0.15"}
# The one file of an output that differs from run to run: it states the place of the run.
OWN = {".sluice.json"}
ENDED = ("Succeeded", "Failed", "Error")
ROWS: list[tuple[str, str, str]] = []


def say(text: str) -> None:
    print(time.strftime("%T", time.gmtime()), text, flush=True)


def row(case: str, happened: str, output: str) -> None:
    """Prints what happened, and keeps it for the table."""
    say(f"{case}: {happened}; {output}")
    ROWS.append((case, happened, output))


def table() -> str:
    """Returns the rows as a table in Markdown."""
    lines = [("case", "what happened", "output"), ("---", "---", "---"), *ROWS]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def run(*line: object, check: bool = True, **more) -> str:
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True, **more)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, line))[:300]}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def kubectl(*line: object, namespace: str = NAMESPACE, **more) -> str:
    return run("kubectl", "-n", namespace, *line, **more)


def sluice(*line: object) -> str:
    return run(PROGRAMS / "sluice", *line)


def local_run(name: str, **options: str) -> None:
    """Runs the default pipeline on this machine, with the demo's models or others."""
    words = [word for key, value in (DEMO | options).items() for word in (f"--{key}", value)]
    sluice("run", "--input", "s3://sluice/raw", "--output", f"s3://sluice/curated/{name}", "--run", f"s3://sluice/runs/{name}",
           "--models", "s3://sluice/models", "--shards-per-partition", "1", *words)  # fmt: skip


def wait_until(what: str, is_true, seconds: float, pause: float = 0.5) -> None:
    """Waits for a condition. Fails when it does not hold in time."""
    end = time.time() + seconds
    while not is_true():
        if time.time() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)


# --------------------------------------------------------------------------------------------------- the store


def put(path: str, content: bytes) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{FILER}/{path}", data=content, method="PUT"), timeout=60)


def remove(name: str) -> None:
    """Removes a run and its output, so that the next workflow starts from nothing."""
    for folder in ("runs", "curated"):
        request = urllib.request.Request(f"{FILER}/{folder}/{name}?recursive=true&ignoreRecursiveError=true", method="DELETE")
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=120)


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
    """Returns the hashes of an output's files."""
    found = {}
    for path in listed(folder):
        content = urllib.request.urlopen(f"{FILER}/{path}", timeout=60).read()
        name = path.removeprefix(f"{folder}/")
        if name not in OWN:
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def compared(name: str, other: str = "local", where: str | None = None) -> str:
    """Says how many files of an output are those of another one, which must be all, and that the run is sound."""
    ours, theirs = hashes(f"curated/{name}"), hashes(f"curated/{other}")
    different = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    if different or not ours:
        raise AssertionError(f"{name}: {len(different)} of {len(theirs)} files differ: {different[:5]}")
    sluice("verify", "--quick", "--run", where or f"s3://sluice/runs/{name}")
    return f"{len(ours)} of {len(theirs)} files equal, sound"


# ---------------------------------------------------------------------------------------------------------- Argo


def submit(name: str, template: str = "sluice-curate", demo: bool = True, namespace: str = NAMESPACE, spec: dict | None = None, **parameters: str) -> str:
    """Creates a workflow of a template, which may be a cluster's (`cluster/NAME`), and returns its name. `spec` overrides the template's."""
    values = parameters
    if template != "sluice-models":
        places = {"run": f"s3://sluice/runs/{name}", "input": "s3://sluice/raw", "output": f"s3://sluice/curated/{name}", "max-tasks": "4"}
        values = places | (DEMO | {"shards-per-partition": "1"} if demo else {}) | parameters
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": f"{name}-"},
        "spec": {
            "workflowTemplateRef": {"name": template.removeprefix("cluster/"), "clusterScope": template.startswith("cluster/")},
            "arguments": {"parameters": [{"name": key, "value": value} for key, value in values.items()]},
            **(spec or {}),
        },
    }
    made = kubectl("create", "-f", "-", "-o", "jsonpath={.metadata.name}", namespace=namespace, input=json.dumps(workflow))
    return made.strip()


def workflow(name: str, namespace: str = NAMESPACE) -> dict:
    return json.loads(kubectl("get", "workflow", name, "-o", "json", namespace=namespace))


def finished(name: str, namespace: str = NAMESPACE, seconds: int = 1200) -> dict:
    """Waits for the end of a workflow, and returns it."""
    end = time.time() + seconds
    while time.time() < end:
        found = workflow(name, namespace)
        if found.get("status", {}).get("phase") in ENDED:
            return found
        time.sleep(2)
    raise TimeoutError(f"{name}: {found.get('status', {}).get('progress')} after {seconds} s")


def pods(found: dict) -> list[dict]:
    return [node for node in found["status"].get("nodes", {}).values() if node["type"] == "Pod"]


def seconds(found: dict) -> int:
    parse = lambda text: time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))  # noqa: E731
    return int(parse(found["status"]["finishedAt"]) - parse(found["status"]["startedAt"]))


def reason(message: str) -> str:
    """Returns Argo's message of a pod, with the program's error and without the rest of its log."""
    argo, _, log = message.partition("): ")
    error = re.search(r'"message":"(.*?)","retryable', log, re.DOTALL)
    return " ".join(f"{argo}){': ' + error[1] if error else ''}".split())[:300] if log else message[:300]


def failures(found: dict) -> list[str]:
    """Says which pods did not succeed, and which had none, and why; those of one kind once, with their number."""
    kinds: collections.Counter[str] = collections.Counter()
    for node in found["status"].get("nodes", {}).values():
        if (node["type"], node["phase"]) == ("Skipped", "Error"):
            kinds[f"{node.get('templateName')}: Error, no pod, {node['message'].partition(' errored: ')[2]}"] += 1
    for node in pods(found):
        if node["phase"] not in ("Succeeded", "Omitted"):
            code = (node.get("outputs") or {}).get("exitCode", "none")
            kinds[f"{node.get('templateName')}: {node['phase']}, exit code {code}, {reason(node.get('message', ''))}"] += 1
    return [f"{number} × {kind}" for kind, number in kinds.items()]


def told(found: dict) -> str:
    size = len(json.dumps(found, separators=(",", ":")))
    message = found["status"].get("message", "")
    words = [f"{found['status']['phase']} in {seconds(found)} s, {len(pods(found))} pods, object {size:,} bytes", *failures(found)]
    return "; ".join(words if found["status"]["phase"] == "Succeeded" else [*words, message])


def running(name: str, step: str, limit: int = 400) -> str:
    """Waits until a pod of a step works, and returns its name."""
    for _ in range(limit):
        found = kubectl("get", "pods", "-l", f"workflows.argoproj.io/workflow={name},app.kubernetes.io/component={step}", "-o", "json")
        for pod in json.loads(found)["items"]:
            states = {c["name"]: c["state"] for c in pod["status"].get("containerStatuses", [])}
            if "running" in states.get("main", states.get("step", {})):
                return pod["metadata"]["name"]
        time.sleep(0.3)
    raise TimeoutError(f"{name}: no pod of {step} works")


def apply_with(*components: str, namespace: str) -> None:
    """Applies workflows/argo with some of its components, by a Kustomization as a user has it."""
    with tempfile.TemporaryDirectory() as folder:
        shipped = os.path.relpath(REPOSITORY / "workflows/argo", folder)
        made = {"resources": [shipped], "components": [f"{shipped}/components/{name}" for name in components], "namespace": namespace}
        if "cluster" in components:
            del made["namespace"]
        Path(folder, "kustomization.yaml").write_text(json.dumps(made))
        kubectl("apply", "-k", folder, namespace=namespace)


def process_of(pod: str) -> int:
    """Returns the process of a pod's container `main` on this machine. The program is its child."""
    path = 'jsonpath={.spec.nodeName} {.status.containerStatuses[?(@.name=="main")].containerID}'
    node, made = kubectl("get", "pod", pod, "-o", path).replace("containerd://", "").split()
    tasks = run("ctr", "-a", CLUSTER / f"run/{node}.sock", "-n", "k8s.io", "tasks", "ls").splitlines()
    [line] = [line.split() for line in tasks if line.startswith(made)]
    return int(line[1])
