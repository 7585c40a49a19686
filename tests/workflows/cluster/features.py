"""What the READMEs of the engines promise, on the cluster: what is refused, what waits, and the components."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from pathlib import Path

import hub
from faults import second_node
from jobs import run_jobs
from kit import (
    BRIDGE,
    DEMO,
    ENDED,
    HERE,
    MODELS,
    NAMESPACE,
    REPOSITORY,
    STORE,
    apply_with,
    compared,
    finished,
    hashes,
    kubectl,
    listed,
    local_run,
    pods,
    remove,
    row,
    run,
    sluice,
    submit,
    told,
    wait_until,
    workflow,
)

SECOND = "sluice-two"
IMAGE = "docker.io/library/sluice:0.1.0"
# The demo's embedder as a repository of the Hub, with its preprocessing in the format of transformers.
REPOSITORY_OF_HUB = "demo/lite0"
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "rescale_factor": 1.0,
    "image_mean": [127.0] * 3,
    "image_std": [128.0] * 3,
}


def refused(what: str, submitted: str, namespace: str = NAMESPACE, most_pods: int = 1, named: str = "") -> None:
    """Waits for a workflow that must fail, early, and say why."""
    found = finished(submitted, namespace)
    assert found["status"]["phase"] in ("Failed", "Error"), told(found)
    assert len(pods(found)) <= most_pods and named in told(found), told(found)
    row(what, told(found), "nothing written")


def parameters() -> None:
    """A misspelt parameter, and places that would be lost."""
    refused("misspelt: -p min-aesthetics=5", submit("wrong", **{"min-aesthetics": "5"}), named="min-aesthetics")
    refused("a place in the pod: -p run=/tmp/run", submit("wrong", run="/tmp/run"), named="/tmp/run")
    refused("a place in the pod: -p output=/tmp/out", submit("wrong", output="/tmp/out"), named="/tmp/out")


def account() -> None:
    """A missing service account, and missing credentials."""
    kubectl("delete", "serviceaccount", "sluice")
    try:
        refused("no service account", submit("account"), most_pods=5)
    finally:
        kubectl("apply", "-k", REPOSITORY / "workflows/argo")
    secret = json.loads(kubectl("get", "secret", "sluice-store", "-o", "json"))
    kubectl("delete", "secret", "sluice-store")
    try:
        refused("no secret", submit("secret"), most_pods=5)
    finally:
        secret["metadata"] = {"name": "sluice-store"}
        kubectl("apply", "-f", "-", input=json.dumps(secret))


def requeue() -> None:
    """The controller's pause between two steps, 10 s, made shorter as the README has it: a small run, and an empty one."""
    kubectl("set", "env", "deployment/workflow-controller", "DEFAULT_REQUEUE_TIME=2s", namespace="argo")
    kubectl("rollout", "status", "deployment/workflow-controller", "--timeout=120s", namespace="argo")
    remove("requeue")
    for what in ("from nothing", "up to date"):
        row(f"Argo, DEFAULT_REQUEUE_TIME=2s, {what}", told(finished(submit("requeue"))), compared("requeue"))


def mutex() -> None:
    """Two workflows on one run, in one namespace; then in two, by a ClusterWorkflowTemplate."""
    run(HERE / "argo.sh", SECOND)
    apply_with("cluster", namespace=NAMESPACE)
    for template, namespace in (("sluice-curate", NAMESPACE), ("cluster/sluice-curate", SECOND)):
        first = submit("argo", template=template)
        second = submit("argo", template=template, namespace=namespace)
        wait_until("the second workflow waits", lambda: "aiting for" in workflow(second, namespace).get("status", {}).get("message", ""), 60)
        ends = [finished(first), finished(second, namespace)]
        assert ends[0]["status"]["finishedAt"] <= min(pod["startedAt"] for pod in pods(ends[1])), "both worked at a time"
        where = "one namespace" if namespace == NAMESPACE else "two namespaces, components/cluster"
        row(f"two workflows on one run, {where}", f"the second waits; {told(ends[0])}; {told(ends[1])}", compared("argo"))


def models() -> None:
    """Models from a Hub into the store by pods: the template sluice-models, and the Job."""
    onnx = (MODELS / DEMO["embedder"] / "model.onnx").read_bytes()
    address = f"hf://{REPOSITORY_OF_HUB}"
    files = {"onnx/model.onnx": onnx, "preprocessor_config.json": json.dumps(PROCESSOR).encode()}
    with hub.serving(BRIDGE, REPOSITORY_OF_HUB, files) as (endpoint, requests):
        kubectl("create", "configmap", "sluice-store", f"--from-literal=HF_ENDPOINT={endpoint}")
        try:
            found = finished(submit("models", template="sluice-models", models=address))
            assert found["status"]["phase"] == "Succeeded", told(found)
            row("sluice-models, from a Hub", told(found), f"{len(requests)} requests to the Hub")
            with tempfile.TemporaryDirectory() as folder:
                job = Path(folder, "models.yaml")
                shipped = (REPOSITORY / "workflows/kubernetes/models.yaml").read_text()
                job.write_text(shipped.replace("pull, clip-vit-l14, laion-aesthetic-v2, laion-nsfw]", f"pull, mine, --from, '{address}']"))
                began = time.time()
                done = run_jobs(job)
                assert done.returncode == 0, done.stderr[-2000:]
                row("the Job sluice-models, from a Hub", f"Complete in {time.time() - began:.0f} s", "the model in the store")
                job.write_text(job.read_text().replace(address, "hf://demo/none"))
                began = time.time()
                done = run_jobs(job)
                assert done.returncode == 1 and "demo/none" in done.stderr, done.stderr[-2000:]
                [reason] = [line for line in done.stderr.splitlines() if "exit 2" in line][:1]
                row("the Job sluice-models, of a model that is not there", f"fails in {time.time() - began:.0f} s: {reason[:300]}", "nothing written")
        finally:
            kubectl("delete", "configmap", "sluice-store")
    assert not [line for line in requests if line.startswith(f"{BRIDGE} ")], requests
    stored = [path for path, hash in hashes("models").items() if hash == hashlib.sha256(onnx).hexdigest()]
    assert len(stored) == 3, stored  # efficientnet-lite0, hf://demo/lite0, mine
    sluice("models", "check", "--models", "s3://sluice/models")


def components() -> None:
    """components/limits and kueue: the semaphores hold, an operator's numbers stay, pods have the queue. With a model that pods pulled."""
    model = {"embedder": f"hf://{REPOSITORY_OF_HUB}"}
    local_run("hub-local", **model)
    run(HERE / "argo.sh", SECOND)
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "sluice"}, "value": 1000}
    kubectl("apply", "-f", "-", input=json.dumps(priority))
    apply_with("limits", "kueue", namespace=SECOND)
    refused("components/limits without its ConfigMap", submit("components", namespace=SECOND), SECOND, named="sluice-limits")
    kubectl("create", "-f", REPOSITORY / "workflows/argo/components/limits/limits.yaml", namespace=SECOND)
    kubectl("patch", "configmap", "sluice-limits", "-p", json.dumps({"data": {"read": "1"}}), namespace=SECOND)
    apply_with("limits", "kueue", namespace=SECOND)
    remove("components")
    made, most, queued = submit("components", namespace=SECOND, **model), 0, False
    while workflow(made, SECOND).get("status", {}).get("phase") not in ENDED:
        of_read = f"workflows.argoproj.io/workflow={made},app.kubernetes.io/component=read"
        there = json.loads(kubectl("get", "pods", "-l", of_read, "-o", "json", namespace=SECOND))["items"]
        at_work = [pod for pod in there if pod["status"]["phase"] in ("Pending", "Running")]
        most = max(most, len(at_work))
        queued |= any(pod["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == "sluice" and pod["spec"]["priority"] == 1000 for pod in at_work)
        time.sleep(1)
    found = workflow(made, SECOND)
    assert (most, queued) == (1, True), (most, queued, told(found))
    happened = f"read: 1 of sluice-limits holds after the folder is applied again; pods in the queue, with priority; {told(found)}"
    row("components/limits and components/kueue, embedder from the Hub", happened, compared("components", "hub-local"))


def logs() -> None:
    """components/logs: the logs of all pods in the artifact repository."""
    run(HERE / "argo.sh", SECOND)
    key = {name: {"name": "sluice-store", "key": variable} for name, variable in (("accessKeySecret", "AWS_ACCESS_KEY_ID"), ("secretKeySecret", "AWS_SECRET_ACCESS_KEY"))}
    s3 = {"endpoint": STORE.removeprefix("http://"), "insecure": True, "bucket": "sluice", "keyFormat": "logs/{{workflow.name}}/{{pod.name}}", **key}
    chosen = {"workflows.argoproj.io/default-artifact-repository": "store"}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "artifact-repositories", "annotations": chosen}, "data": {"store": json.dumps({"s3": s3})}}
    kubectl("apply", "-f", "-", namespace=SECOND, input=json.dumps(settings))
    apply_with("logs", namespace=SECOND)
    found = finished(submit("listed", namespace=SECOND, **{"max-tasks": "2"}), SECOND)
    kept = listed(f"logs/{found['metadata']['name']}")
    assert len(kept) == len(pods(found)), (kept, told(found))
    row("components/logs", f"{told(found)}; {len(kept)} logs in the store", "-")


def small() -> None:
    """components/small: a node of 2 CPUs."""
    run(HERE / "argo.sh", SECOND)
    apply_with("small", namespace=SECOND)
    remove("small")
    with second_node(cpus=2):
        found = finished(submit("small", namespace=SECOND, **{"max-tasks": "2"}), SECOND)
    row("components/small, a node of 2 CPUs", told(found), compared("small"))


def certificates() -> None:
    """A pod whose image has no CA certificates, and a store at http://."""
    container = {
        "name": "verify",
        "image": IMAGE,
        "args": ["verify", "--quick", "--run", "s3://sluice/runs/local"],
        "envFrom": [{"secretRef": {"name": "sluice-store"}}],
        "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "volumeMounts": [{"name": "none", "mountPath": "/etc/ssl/certs"}],
    }
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": security, "containers": [container], "volumes": [{"name": "none", "emptyDir": {}}]}
    kubectl("delete", "pod", "certificates", "--ignore-not-found")
    kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "certificates"}, "spec": spec}))
    phase = lambda: kubectl("get", "pod", "certificates", "-o", "jsonpath={.status.phase}")  # noqa: E731
    began = time.time()
    wait_until("the pod ends", lambda: phase() in ("Succeeded", "Failed"), 120)
    assert phase() == "Succeeded", kubectl("logs", "certificates")
    row("no CA certificates in the image, store at http://", f"verify: exit 0 after {time.time() - began:.0f} s", "-")


CASES = (parameters, account, requeue, mutex, models, components, logs, small, certificates)
