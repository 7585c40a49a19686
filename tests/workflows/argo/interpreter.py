"""Runs a WorkflowTemplate: its DAG and its fan-out as Argo does them, each pod a process of the real programs.

A test aid for machines without a cluster: no Kubernetes, no retries, raw artifacts only, and only the syntax that our templates use. It
refuses other syntax. Tags and expressions are evaluated by Argo's own code if it was built (expressions.py). What happens when pods
fail is tested on a real cluster (tests/workflows/cluster).
"""

from __future__ import annotations

import concurrent.futures
import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from expressions import expand


class Failed(Exception):
    """A workflow that did not succeed."""


@dataclass
class Attempt:
    """One pod."""

    name: str
    template: str
    command: list[str]
    phase: str = "Running"
    exit_code: str = "-1"
    seconds: float = 0.0
    message: str = ""
    progress: str = ""
    result: dict = field(default_factory=dict)


def documents(paths) -> list[dict]:
    return [document for path in sorted(paths) for document in yaml.safe_load_all(Path(path).read_text()) if document]


def ancestors(tasks: dict[str, dict], name: str) -> set[str]:
    """The tasks that a task waits for, and those that these wait for."""
    direct = dependencies(tasks[name])
    if unknown := direct - set(tasks):
        raise ValueError(f"{name} waits for unknown {unknown}")
    return direct.union(*(ancestors(tasks, other) for other in direct))


def dependencies(task: dict) -> set[str]:
    return set(re.findall(r"[A-Za-z0-9][\w-]*", task.get("depends", "")))


class Interpreter:
    """`programs`: their folder. `store`: the contents of the secret that the pods take their variables from."""

    def __init__(self, documents: list[dict], evaluator, programs: Path, store: dict[str, str], variables: dict[str, str], pods: int = 2):
        self.documents = {(d["kind"], d["metadata"].get("name")): d for d in documents}
        self.evaluator, self.programs, self.store, self.variables = evaluator, programs, store, variables
        self.places = threading.Semaphore(pods)
        self.attempts: list[Attempt] = []

    # ------------------------------------------------------------------------------------- workflows

    def submit(self, kind: str, name: str, parameters: dict[str, str] | None = None, entrypoint: str | None = None) -> dict[str, str]:
        """Runs a WorkflowTemplate with parameters, or a Workflow, and returns its outputs. `entrypoint`: another template to run."""
        spec = self.documents[kind, name]["spec"]
        given = dict(parameters or {})
        if reference := spec.get("workflowTemplateRef"):
            given = {p["name"]: p["value"] for p in spec["arguments"]["parameters"]} | given
            spec = self.documents["WorkflowTemplate", reference["name"]]["spec"]
        scope = {}
        for parameter in spec.get("arguments", {}).get("parameters", []):
            value = given.pop(parameter["name"], parameter.get("value"))
            if value is None:
                raise Failed(f"spec.arguments.{parameter['name']}.value is required")
            scope[f"workflow.parameters.{parameter['name']}"] = str(value)
        # Argo accepts parameters of any name, and the inputs of the template that is run.
        scope |= {f"workflow.parameters.{name}": given.pop(name) for name in sorted(given) if not entrypoint}
        entrypoint = entrypoint or spec["entrypoint"]
        [inputs] = [t.get("inputs", {}).get("parameters", []) for t in spec["templates"] if t["name"] == entrypoint]
        if unknown := set(given) - {p["name"] for p in inputs}:
            raise Failed(f"unknown parameters {sorted(unknown)}")
        return self._template(spec, entrypoint, given, scope, entrypoint)

    def _template(self, spec: dict, name: str, arguments: dict, scope: dict, path: str) -> dict[str, str]:
        template = next(t for t in spec["templates"] if t["name"] == name)
        inputs = {}
        for parameter in template.get("inputs", {}).get("parameters", []):
            value = arguments.get(parameter["name"], parameter.get("value"))
            if value is None:
                raise Failed(f"{path}: inputs.parameters.{parameter['name']} was not supplied")
            inputs[f"inputs.parameters.{parameter['name']}"] = str(value)
        if "dag" in template:
            return self._dag(template, spec, scope | inputs, path)
        if "container" in template:
            return self._pod({"volumes": spec["volumes"]} | template, scope | inputs, path)
        raise NotImplementedError(f"{path}: {sorted(template)}")

    def _dag(self, template: dict, spec: dict, scope: dict, path: str) -> dict[str, str]:
        tasks = {task["name"]: task for task in template["dag"]["tasks"]}
        above = {name: ancestors(tasks, name) for name in tasks}
        outputs: dict[str, dict] = {}
        failures: list[Exception] = []
        with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
            running: dict[concurrent.futures.Future, str] = {}
            while True:
                begun = set(running.values()) | set(outputs)
                for name in tasks:
                    if not failures and name not in begun and dependencies(tasks[name]) <= set(outputs):
                        seen = {f"tasks.{a}.outputs.parameters.{k}": v for a in above[name] for k, v in outputs[a].items()}
                        running[pool.submit(self._task, tasks[name], spec, scope | seen, f"{path}.{name}")] = name
                if not running:
                    break
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    if error := future.exception():
                        failures.append(error)
                    else:
                        outputs[name] = future.result()
        if failures:
            raise failures[0]
        seen = {f"tasks.{name}.outputs.parameters.{key}": value for name, own in outputs.items() for key, value in own.items()}
        wanted = template.get("outputs", {}).get("parameters", [])
        return {p["name"]: self.evaluator.substitute(p["valueFrom"]["parameter"], scope | seen) for p in wanted}

    def _task(self, task: dict, spec: dict, scope: dict, path: str) -> dict[str, str]:
        task = self.evaluator.substitute(task, scope)
        items: list[str | None] = [None]
        if "withSequence" in task:
            items = [str(i) for i in range(int(task.pop("withSequence")["count"]))]
        if "when" in task:
            one, other = re.fullmatch(r"(\S+) != (\S+)", task.pop("when")).groups()
            if one == other:
                return {}  # Skipped, as a sequence without items is.
        if unknown := set(task) - {"name", "depends", "template", "arguments"}:
            raise NotImplementedError(f"{path}: {unknown}")
        # What a template knows of the workflow are its parameters.
        outside = {key: value for key, value in scope.items() if key.startswith("workflow.")}

        def one(item: str | None) -> dict[str, str]:
            own = self.evaluator.substitute(task, {} if item is None else {"item": item})
            arguments = {p["name"]: p["value"] for p in own.get("arguments", {}).get("parameters", [])}
            return self._template(spec, task["template"], arguments, outside, path if item is None else f"{path}({item})")

        if items == [None]:
            return one(None)
        with concurrent.futures.ThreadPoolExecutor(max(1, len(items))) as pool:
            list(pool.map(one, items))
        return {}

    # ------------------------------------------------------------------------------------------ pods

    def _pod(self, template: dict, scope: dict, path: str) -> dict[str, str]:
        # As Argo: first the workflow's parameters, then all others, also in values of the first.
        outside = {key: value for key, value in scope.items() if key.startswith("workflow.")}
        template = self.evaluator.substitute(self.evaluator.substitute(template, outside), scope)
        if "{{" in json.dumps(template):
            raise Failed(f"{path}: unresolved {re.findall(r'{{.*?}}', json.dumps(template))}")
        container = template["container"]
        with tempfile.TemporaryDirectory(prefix="sluice-pod-") as folder, self.places:
            root = Path(folder)
            mounted = {}
            for mount in container.get("volumeMounts", []):
                volume = next(v for v in template["volumes"] if v["name"] == mount["name"])
                assert "emptyDir" in volume, volume
                mounted[mount["mountPath"]] = root / mount["name"]
                (root / mount["name"]).mkdir()
            for i, artifact in enumerate(template.get("inputs", {}).get("artifacts", [])):
                mounted[artifact["path"]] = root / f"artifact-{i}"
                mounted[artifact["path"]].write_text(artifact["raw"]["data"])

            def here(word: str) -> str:
                """A path of the container as one of this machine. What is not mounted is not there, or cannot be written."""
                at, bare = ("@", word[1:]) if word.startswith("@") else ("", word)
                for inside, outside in mounted.items():
                    if bare == inside or bare.startswith(f"{inside}/"):
                        return f"{at}{outside}{bare[len(inside):]}"
                assert not bare.startswith("/etc/") and not at, f"{path}: {word} is not mounted"
                return word

            variables = self.variables | self._environment(container)
            command = [expand(word, variables) for word in container["command"] + container["args"]]
            attempt = Attempt(path, template["name"], command)
            self.attempts.append(attempt)
            progress = root / "progress"
            program = shutil.which(command[0], path=str(self.programs))
            if not program:
                raise Failed(f"{path}: no program {command[0]}")
            started = time.time()
            process = subprocess.Popen(
                [program, *map(here, command[1:])],
                env=variables | {"ARGO_PROGRESS_FILE": str(progress), "KUBERNETES_SERVICE_HOST": "10.96.0.1"}, cwd=root, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            out, err = process.communicate()
            attempt.seconds = round(time.time() - started, 3)
            attempt.progress = progress.read_text() if progress.exists() else ""
            attempt.message = (out or err).strip()[-2048:]
            attempt.exit_code = str(process.returncode)
            if process.returncode != 0:
                attempt.phase = "Failed"
                raise Failed(f"{path}: exit {attempt.exit_code}: {attempt.message}")
            attempt.phase = "Succeeded"
            attempt.result = json.loads(out.strip().splitlines()[-1])
            outputs = template.get("outputs", {}).get("parameters", [])
            return {parameter["name"]: Path(here(parameter["valueFrom"]["path"])).read_text().rstrip("\n") for parameter in outputs}

    def _environment(self, container: dict) -> dict[str, str]:
        variables = {}
        for source in container.get("envFrom", []):
            reference = source.get("secretRef") or source["configMapRef"]
            if "secretRef" in source and reference["name"] == "sluice-store":
                variables |= self.store
            else:
                assert reference["optional"], reference
        return variables | {entry["name"]: entry["value"] for entry in container.get("env", [])}
