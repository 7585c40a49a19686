"""The faults: one function each. A run of the default pipeline, in the middle of which something happens while a step works. In the end
it must be sound, with the bytes of a local run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

from kit import CLUSTER, HERE, NAMESPACE, compared, failures, finished, kubectl, pods, process_of, remove, row, run, running, seconds, submit, told, wait_until, workflow

# The step that takes longest: what happens slowly still happens in the middle of it.
LONG = "nsfw"


def fault(name: str, what: str, step: str, cause: Callable[[str], object], spec: dict | None = None) -> str:
    """Starts a run and causes something when a pod of a step works. Returns the name of the workflow."""
    remove(name)
    made = submit(name, spec=spec, **{"max-tasks": "2"})
    cause(running(made, step))
    found = finished(made)
    row(f"{what}, at {step}", told(found), compared(name))
    return made


def service(name: str) -> int:
    """Returns the process that up.sh or node.sh started."""
    return int((CLUSTER / f"run/{name}.pid").read_text())


@contextlib.contextmanager
def stopped(name: str) -> Iterator[None]:
    """Stops a process of the cluster, and lets it go on."""
    process = service(name)
    os.kill(process, 19)
    try:
        yield
    finally:
        os.kill(process, 18)


def kill() -> None:
    """SIGKILL to a program. The pod that it leaves goes with its workflow, here after minutes, as shipped after a day."""
    shortly = {"ttlStrategy": {"secondsAfterSuccess": 120}}
    made = fault("kill", "kill -9 of the program", "embed", lambda pod: run("pkill", "-9", "-P", process_of(pod)), spec=shortly)
    left = lambda: kubectl("get", "pods", "-l", f"workflows.argoproj.io/workflow={made}", "-o", "jsonpath={.items[*].status.phase}").split()  # noqa: E731
    assert "Failed" in left(), left()
    wait_until("the failed pod is gone", lambda: not left(), 300)
    row("the failed pod of a workflow that succeeded", "kept with its workflow, gone with it", "-")


def deleted() -> None:
    """A pod deleted."""
    fault("deleted", "pod deleted", "embed", lambda pod: kubectl("delete", "pod", pod, "--wait=false"))


def evicted() -> None:
    """A pod evicted through the API, as a drain does it."""

    def evict(pod: str) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
        run("kubectl", "create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", "-f", "-", input=json.dumps(body))

    fault("evicted", "pod evicted, as by a drain", "embed", evict)


def exit_75() -> None:
    """The store away for longer than a program waits: 75."""
    impatient = {"SLUICE_STORE_TIMEOUT": "2", "SLUICE_STORE_RETRY_FOR": "3"}

    def away(_: str) -> None:
        with stopped("store"):
            time.sleep(20)

    kubectl("patch", "secret", "sluice-store", "-p", json.dumps({"stringData": impatient}))
    try:
        fault("exit-75", "store away for 20 s, a program waits 3 s", "embed", away)
    finally:
        kubectl("patch", "secret", "sluice-store", "-p", json.dumps({"data": dict.fromkeys(impatient)}))


def store_away() -> None:
    """The store away for less than a program waits."""

    def away(_: str) -> None:
        with stopped("store"):
            time.sleep(60)

    fault("store-away", "store away for 60 s, a program waits 120 s", "embed", away)


def controller() -> None:
    """Argo's controller restarted in the middle."""
    fault("controller", "Argo's controller killed, and started anew by its Deployment", "embed", kill_controller)


def kill_controller(_: str) -> None:
    kubectl("delete", "pod", "-l", "app=workflow-controller", "--grace-period=0", "--force", namespace="argo")


def is_ready(node: str) -> bool:
    return " Ready" in run("kubectl", "get", "node", node, "--no-headers", check=False)


def kubelet() -> None:
    """The kubelet killed and away until its node is NotReady."""

    def away(_: str) -> None:
        pause = CLUSTER / "run/node1.pause"
        pause.touch()
        os.kill(service("node1.kubelet"), 9)
        try:
            wait_until("node1 is NotReady", lambda: not is_ready("node1"), 120)
            time.sleep(10)
        finally:
            pause.unlink()

    fault("kubelet", "kubelet killed, node NotReady for 10 s", "embed", away)


@contextlib.contextmanager
def second_node(cpus: int = 16) -> Iterator[None]:
    """Starts node2, on which the pods go until the end of the block."""
    run(HERE / "node.sh", "node2", "10.88.0.2", env=os.environ | {"CPUS": str(cpus)})
    try:
        wait_until("node2 is Ready", lambda: is_ready("node2"), 180)
        kubectl("cordon", "node1")
        yield
    finally:
        kubectl("uncordon", "node1")
        end_node("node2")
        kubectl("delete", "node", "node2", "--ignore-not-found")


def end_node(name: str) -> None:
    """Ends a node as a power cut does: kubelet, containers and runtime, at once."""
    (CLUSTER / f"run/{name}.stop").touch()
    socket = CLUSTER / f"run/{name}.sock"
    tasks = run("ctr", "-a", socket, "-n", "k8s.io", "tasks", "ls", check=False).splitlines()[1:]
    own = [str(service(f"{name}.{part}")) for part in ("kubelet", "containerd")]
    subprocess.run(["kill", "-9", *own, *(line.split()[1] for line in tasks)], check=False, capture_output=True)


def node() -> None:
    """A node lost, and its object deleted once it is NotReady."""

    def lose(pod: str) -> None:
        # A pod that Argo has not seen at work is made once more; one that it has seen is an error, and tried again. The program waits
        # until then.
        run("pkill", "-STOP", "-P", process_of(pod))
        seen = lambda node: node["templateName"] == LONG and node["phase"] == "Running"  # noqa: E731
        wait_until("Argo sees the pod at work", lambda: any(map(seen, pods(workflow(pod.split(f"-{LONG}-")[0])))), 60)
        kubectl("uncordon", "node1")
        end_node("node2")
        wait_until("node2 is NotReady", lambda: not is_ready("node2"), 120)
        kubectl("delete", "node", "node2")

    with second_node():
        made = fault("node", "node lost; its object deleted when it is NotReady", LONG, lose)
    # Argo makes the pod again under the name that it had, so the workflow does not show it.
    selector = f"reason=WorkflowNodeError,involvedObject.name={made}"
    seen = kubectl("get", "events", "--field-selector", selector, "-o", 'jsonpath={range .items[*]}{.message}{"; "}{end}')
    assert f"{LONG}(" in seen and "pod deleted" in seen, seen
    row("the node lost, in Argo's events", seen.strip("; "), "-")


def disk() -> None:
    """The disk of a node full: the kubelet evicts the pods at work, and no pod starts there until it has space again.

    Some megabytes stay free, because a kubelet that cannot write evicts nothing.
    """
    folder = CLUSTER / "data/node2/kubelet"
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=1g", "cluster-disk", folder)

    def is_noticed() -> bool:
        # Pods that end make space again.
        with contextlib.suppress(OSError), (folder / "full").open("ab") as file:
            while shutil.disk_usage(folder).free > 32 << 20:
                file.write(bytes(1 << 20))
                file.flush()
        pressure = "jsonpath={.status.conditions[?(@.type=='DiskPressure')].status}"
        return kubectl("get", "node", "node2", "-o", pressure) == "True"

    def fill(_: str) -> None:
        wait_until("the kubelet notices", is_noticed, 180)
        time.sleep(20)
        (folder / "full").unlink()
        kubectl("uncordon", "node1")

    try:
        with second_node():
            fault("disk", "disk of a node full", LONG, fill)
    finally:
        run("umount", "-l", folder)


def memory() -> None:
    """A step with too little memory: killed on each try; then with enough."""
    template = json.loads(kubectl("get", "workflowtemplate", "sluice-curate", "-o", "json"))
    template["metadata"] = {"name": "sluice-tight"}
    for pod in template["spec"]["templates"]:
        if pod["name"] == "embed":
            pod["container"]["resources"] = {"requests": {"cpu": "1", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "96Mi"}}
            pod["retryStrategy"] |= {"limit": "1"}
    kubectl("apply", "-f", "-", input=json.dumps(template))
    remove("memory")
    found = finished(submit("memory", template="sluice-tight", **{"max-tasks": "1"}))
    assert found["status"]["phase"] == "Failed", told(found)
    again = finished(submit("memory", **{"max-tasks": "2"}))
    row("too little memory, at embed", f"Failed in {seconds(found)} s: {'; '.join(failures(found))}. Again with enough: {told(again)}", compared("memory"))


CASES = (kill, deleted, evicted, memory, exit_75, store_away, controller, kubelet, node, disk)
