"""What the READMEs of the engines promise, on the cluster: what is refused, what waits, and the components."""

from __future__ import annotations

import json
import time

from faults import second_node
from kit import (
    HERE,
    NAMESPACE,
    REPOSITORY,
    STORE,
    apply_with,
    compared,
    finished,
    kubectl,
    listed,
    pods,
    remove,
    row,
    run,
    submit,
    told,
    wait_until,
    workflow,
)

SECOND = "sluice-two"
IMAGE = "docker.io/library/sluice:0.1.0"


def refused(what: str, submitted: str, most_pods: int = 1) -> None:
    """Waits for a workflow that must fail, early."""
    found = finished(submitted)
    assert found["status"]["phase"] in ("Failed", "Error"), told(found)
    assert len(pods(found)) <= most_pods, told(found)
    row(what, told(found), "nothing written")


def parameters() -> None:
    """A misspelt parameter, and places that would be lost."""
    refused("misspelt: -p min-aesthetics=5", submit("wrong", **{"min-aesthetics": "5"}))
    refused("a place in the pod: -p run=/tmp/run", submit("wrong", run="/tmp/run"))
    refused("a place in the pod: -p output=/tmp/out", submit("wrong", output="/tmp/out"))


def account() -> None:
    """A missing service account, and missing credentials."""
    kubectl("delete", "serviceaccount", "sluice")
    try:
        refused("no service account", submit("account"), 5)
    finally:
        kubectl("apply", "-k", REPOSITORY / "workflows/argo")
    secret = json.loads(kubectl("get", "secret", "sluice-store", "-o", "json"))
    kubectl("delete", "secret", "sluice-store")
    try:
        refused("no secret", submit("secret"), 5)
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
    apply_with("cluster", NAMESPACE)
    for template, namespace in (("sluice-curate", NAMESPACE), ("cluster/sluice-curate", SECOND)):
        first = submit("argo", template=template)
        second = submit("argo", template=template, namespace=namespace)
        wait_until("the second workflow waits", lambda: "aiting for" in workflow(second, namespace).get("status", {}).get("message", ""), 60)
        ends = [finished(first), finished(second, namespace)]
        assert ends[0]["status"]["finishedAt"] <= min(pod["startedAt"] for pod in pods(ends[1])), "both worked at a time"
        where = "one namespace" if namespace == NAMESPACE else "two namespaces, components/cluster"
        row(f"two workflows on one run, {where}", f"the second waits; {told(ends[0])}; {told(ends[1])}", compared("argo"))


def logs() -> None:
    """components/logs: the logs of all pods in the artifact repository."""
    run(HERE / "argo.sh", SECOND)
    key = {name: {"name": "sluice-store", "key": variable} for name, variable in (("accessKeySecret", "AWS_ACCESS_KEY_ID"), ("secretKeySecret", "AWS_SECRET_ACCESS_KEY"))}
    s3 = {"endpoint": STORE.removeprefix("http://"), "insecure": True, "bucket": "sluice", "keyFormat": "logs/{{workflow.name}}/{{pod.name}}", **key}
    chosen = {"workflows.argoproj.io/default-artifact-repository": "store"}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "artifact-repositories", "annotations": chosen}, "data": {"store": json.dumps({"s3": s3})}}
    kubectl("apply", "-f", "-", namespace=SECOND, input=json.dumps(settings))
    apply_with("logs", SECOND)
    found = finished(submit("listed", namespace=SECOND, **{"max-tasks": "2"}), SECOND)
    kept = listed(f"logs/{found['metadata']['name']}")
    assert len(kept) == len(pods(found)), (kept, told(found))
    row("components/logs", f"{told(found)}; {len(kept)} logs in the store", "-")


def small() -> None:
    """components/small: a node of 2 CPUs."""
    run(HERE / "argo.sh", SECOND)
    apply_with("small", SECOND)
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


CASES = (parameters, account, requeue, mutex, logs, small, certificates)
