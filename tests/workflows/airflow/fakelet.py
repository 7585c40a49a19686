"""A stand-in for the Kubernetes API and a machine, enough for KubernetesPodOperator: pods are created, listed, read, logged,
exec'd into, patched and deleted. A pod's first container runs as a process on this machine. The sidecar that passes results to XCom
is simulated. Images, confinement and limits are tested on a real cluster (tests/workflows/cluster).

    python fakelet.py PORT

Variables:

- FAKELET_PROGRAMS: the folder of the programs
- FAKELET_SECRETS: the cluster's secrets as JSON: {"name": {"VARIABLE": "value"}}

`/_state` lists the pods.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import re
import shutil
import sys
import tempfile
from typing import Any

from aiohttp import web

PROGRAMS = os.environ.get("FAKELET_PROGRAMS", "")
SECRETS: dict[str, dict[str, str]] = json.loads(os.environ.get("FAKELET_SECRETS", "{}"))

Key = tuple[str, str]
pods: dict[Key, dict[str, Any]] = {}
folders: dict[Key, str] = {}
processes: dict[Key, asyncio.subprocess.Process] = {}
logs: dict[Key, list[tuple[datetime.datetime, bytes]]] = {}
codes: dict[Key, int] = {}
seen: list[dict[str, Any]] = []
background: set[asyncio.Task[None]] = set()


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def matches(pod: dict[str, Any], selector: str | None) -> bool:
    labels = pod["metadata"].get("labels") or {}
    for term in filter(None, (selector or "").split(",")):
        if "!=" in term:
            name, value = term.split("!=")
            if labels.get(name) == value:
                return False
        elif term.startswith("!"):
            if term[1:] in labels:
                return False
        elif "=" in term:
            name, value = term.replace("==", "=").split("=", 1)
            if labels.get(name) != value:
                return False
        elif term not in labels:
            return False
    return True


def status(container: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": "running" in state,
        "restartCount": 0,
        "state": state,
        "lastState": {},
        "started": True,
    }


def ended(code: int, reason: str, message: str, started: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "startedAt": started, "finishedAt": now()}}


def variables(container: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        found |= SECRETS[source["secretRef"]["name"]]
    return found | {each["name"]: each.get("value") or "" for each in container.get("env") or []}


def arguments(container: dict[str, Any]) -> list[str]:
    """Returns the arguments as the kubelet passes them: `$(NAME)` is replaced by the variable, `$$` by `$`."""
    given = variables(container)

    def expanded(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else given.get(found[1], found[0])

    return [re.sub(r"\$\$|\$\(([^()]*)\)", expanded, word) for word in container.get("args") or []]


def as_process(container: dict[str, Any], folder: str) -> tuple[list[str], dict[str, str]]:
    """Returns the command and the variables of a container. Mounted folders replace the paths that they are mounted at."""
    words = [*(container.get("command") or []), *arguments(container)]
    given = variables(container)
    for mount in container.get("volumeMounts") or []:
        at, here = mount["mountPath"] + "/", volume(folder, mount["name"]) + "/"
        words = [here + word[len(at) :] if word.startswith(at) else word for word in words]
        given = {name: here + value[len(at) :] if value.startswith(at) else value for name, value in given.items()}
    kept = {name: os.environ[name] for name in ("ORT_DYLIB_PATH", "ORT_DISABLE_TELEMETRY") if name in os.environ}
    words[0] = os.path.join(PROGRAMS, words[0])
    return words, {"PATH": os.environ["PATH"], "HOME": folder} | kept | given


def volume(folder: str, name: str) -> str:
    path = os.path.join(folder, name)
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o777)
    return path


async def run(key: Key) -> None:
    pod = pods[key]
    base, *others = pod["spec"]["containers"]
    folder = folders[key] = tempfile.mkdtemp(prefix="fakelet-")
    words, environment = as_process(base, folder)
    started = now()
    seen.append({"pod": key[1], "image": base["image"], "words": words, "containers": pod["spec"]["containers"]})
    try:
        process = await asyncio.create_subprocess_exec(
            *words, env=environment, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=1 << 20
        )
    except OSError as e:
        pod["status"]["containerStatuses"] = [status(base, ended(128, "StartError", str(e), started))]
        pod["status"]["phase"] = "Failed"
        codes[key] = 128
        return
    processes[key] = process
    pod["status"] = {
        "phase": "Running",
        "startTime": started,
        "conditions": [{"type": each, "status": "True"} for each in ("PodScheduled", "Initialized", "ContainersReady", "Ready")],
        "containerStatuses": [status(each, {"running": {"startedAt": started}}) for each in (base, *others)],
    }
    assert process.stdout
    async for line in process.stdout:
        logs[key].append((datetime.datetime.now(datetime.timezone.utc), line))
    code = await process.wait()
    code = 128 - code if code < 0 else code
    message = last_words(logs[key])
    codes[key] = code
    reason = "Completed" if code == 0 else "Error"
    pod["status"]["containerStatuses"][0] = status(base, ended(code, reason, message, started))
    if not others:
        finish(key)


def last_words(lines: list[tuple[datetime.datetime, bytes]]) -> str:
    """Returns what the program in a container would have written to /dev/termination-log."""
    try:
        return json.dumps(json.loads(lines[-1][1])["error"])
    except (IndexError, KeyError, ValueError):
        return ""


def finish(key: Key) -> None:
    pod = pods.get(key)
    if not pod or key not in codes:
        return
    for each in pod["status"]["containerStatuses"][1:]:
        each["state"] = ended(0, "Completed", "", now())
    pod["status"]["phase"] = "Succeeded" if codes[key] == 0 else "Failed"


def key_of(request: web.Request) -> Key:
    return request.match_info["namespace"], request.match_info["name"]


def refused(code: int, reason: str) -> web.Response:
    return web.json_response({"kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": reason}, status=code)


async def create(request: web.Request) -> web.Response:
    pod = await request.json()
    key = request.match_info["namespace"], pod["metadata"]["name"]
    if key in pods:
        return refused(409, "AlreadyExists")
    pod["metadata"] |= {"namespace": key[0], "uid": os.urandom(8).hex(), "creationTimestamp": now(), "resourceVersion": "1"}
    pod |= {"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Pending", "containerStatuses": [], "startTime": now()}}
    pods[key], logs[key] = pod, []
    task = asyncio.ensure_future(run(key))
    background.add(task)
    task.add_done_callback(background.discard)
    return web.json_response(pod, status=201)


async def list_(request: web.Request) -> web.Response:
    namespace, selector = request.match_info["namespace"], request.query.get("labelSelector")
    items = [pod for key, pod in pods.items() if key[0] == namespace and matches(pod, selector)]
    return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})


async def get(request: web.Request) -> web.Response:
    pod = pods.get(key_of(request))
    return web.json_response(pod) if pod else refused(404, "NotFound")


async def patch(request: web.Request) -> web.Response:
    pod = pods.get(key_of(request))
    if not pod:
        return refused(404, "NotFound")
    labels = ((await request.json()).get("metadata") or {}).get("labels") or {}
    pod["metadata"].setdefault("labels", {}).update(labels)
    return web.json_response(pod)


async def delete(request: web.Request) -> web.Response:
    key = key_of(request)
    pod = pods.pop(key, None)
    if not pod:
        return refused(404, "NotFound")
    process = processes.get(key)
    if process and process.returncode is None:
        process.terminate()
    shutil.rmtree(folders.get(key, "/nonexistent"), ignore_errors=True)
    return web.json_response(pod)


async def log(request: web.Request) -> web.StreamResponse:
    key = key_of(request)
    if key not in pods:
        return refused(404, "NotFound")
    answer = web.StreamResponse(headers={"content-type": "text/plain"})
    await answer.prepare(request)
    sent = 0
    follow, stamped = (request.query.get(name, "").lower() == "true" for name in ("follow", "timestamps"))
    while True:
        while sent < len(logs[key]):
            at, line = logs[key][sent]
            sent += 1
            await answer.write((at.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode() if stamped else b"") + line)
        if not follow or key in codes or key not in pods:
            return answer
        await asyncio.sleep(0.02)


async def exec_(request: web.Request) -> web.WebSocketResponse:
    """Simulates the two commands that Airflow runs in its sidecar: one reads the result, one ends the sidecar."""
    key = key_of(request)
    socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
    await socket.prepare(request)
    success = b"\x03" + json.dumps({"metadata": {}, "status": "Success"}).encode()
    command = request.query.getall("command")
    if len(command) == 3 and "return.json" in command[2]:
        try:
            with open(os.path.join(folders[key], "xcom", "return.json"), "rb") as file:
                result = file.read()
        except FileNotFoundError:
            result = b""
        await socket.send_bytes(b"\x01" + (result or b"__airflow_xcom_result_empty__\n"))
    else:
        async for message in socket:
            sent = message.data if isinstance(message.data, bytes) else message.data.encode()
            if b"kill" in sent:
                break
        finish(key)
        await socket.send_bytes(b"\x01\n")
    await socket.send_bytes(success)
    await socket.close()
    return socket


async def events(_: web.Request) -> web.Response:
    return web.json_response({"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": []})


async def version(_: web.Request) -> web.Response:
    return web.json_response({"major": "1", "minor": "33", "gitVersion": "v1.33.0-fake"})


async def state(_: web.Request) -> web.Response:
    return web.json_response({"left": [name for _, name in pods], "seen": seen})


def main() -> None:
    app = web.Application(client_max_size=1 << 24)
    base = "/api/v1/namespaces/{namespace}"
    app.add_routes(
        [
            web.post(f"{base}/pods", create),
            web.get(f"{base}/pods", list_),
            web.get(f"{base}/pods/{{name}}", get),
            web.patch(f"{base}/pods/{{name}}", patch),
            web.delete(f"{base}/pods/{{name}}", delete),
            web.get(f"{base}/pods/{{name}}/log", log),
            web.get(f"{base}/pods/{{name}}/exec", exec_),
            web.get(f"{base}/events", events),
            web.get("/version", version),
            web.get("/version/", version),
            web.get("/_state", state),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
