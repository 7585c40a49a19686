"""The YAML of workflows/argo: schema, Argo's linter, references, the DAG, retries, Kustomize. Nothing runs here.

Everything is read back from the files; of the generator only `--check` is asked.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import yaml

import places
from expressions import Argo, Ours
from interpreter import ancestors, dependencies, documents

COMPONENTS = ["cluster", "gpu", "spot", "limits"]
# The exit codes of the programs' table, Argo's "unknown", and what becomes of them. And a node that is lost.
OUTCOMES = {
    ("Failed", "1"): False,
    ("Failed", "2"): False,
    ("Failed", "3"): False,
    ("Failed", "75"): True,
    ("Failed", "137"): True,
    ("Failed", "143"): True,
    ("Failed", "-1"): True,
    ("Error", "-1"): True,
    ("Error", "0"): True,
    ("Error", "1"): False,
    ("Error", "2"): False,
    ("Error", "3"): False,
    ("Failed", "64"): False,
    ("Failed", "101"): False,
    ("Failed", "127"): False,
}


def evaluators() -> list:
    return [Ours(), *([Argo(places.LINTER)] if places.LINTER.exists() else [])]


def kustomized(*components: str) -> str:
    """What `kubectl apply -k` would apply, of a folder that refers to ours."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(places.ARGO, Path(folder) / "argo")
        mine = Path(folder) / "mine"
        mine.mkdir()
        shutil.copy(places.ARGO / "components/images.yaml", mine)
        value = {
            "resources": ["../argo"],
            "components": [f"../argo/components/{name}" for name in components],
            "images": [{"name": "sluice", "newName": "registry.example/team/sluice", "newTag": "1.2.3"}],
            "configurations": ["images.yaml"],
        }
        # Kustomize takes every kind that it does not know for one that lies in a namespace.
        if "cluster" not in components:
            value["namespace"] = "curation"
        (mine / "kustomization.yaml").write_text(json.dumps(value))
        made = subprocess.run([places.KUBECTL, "kustomize", str(mine)], capture_output=True, text=True)
        if made.returncode:
            raise AssertionError(made.stderr)
        return made.stdout


class Schema(unittest.TestCase):
    """Argo's schema as hera has it, with unknown fields refused."""

    @classmethod
    def setUpClass(cls):
        import jsonschema
        from hera.workflows import models

        def strict(schema: dict) -> dict:
            for definition in [*schema.get("$defs", {}).values(), schema]:
                if definition.get("type") == "object" and "properties" in definition:
                    definition.setdefault("additionalProperties", False)
            return schema

        kinds = ("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow")
        schemas = {kind: strict(getattr(models, kind).model_json_schema(by_alias=True)) for kind in kinds}
        cls.validators = {kind: jsonschema.Draft202012Validator(schema) for kind, schema in schemas.items()}

    def errors(self, document: dict) -> list[str]:
        errors = self.validators[document["kind"]].iter_errors(document)
        return [f"{document['metadata'].get('name')}: {'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in errors]

    def test_files(self):
        checked = 0
        for document in documents(places.SHIPPED + places.EXAMPLES):
            if document["kind"] in self.validators:
                self.assertEqual(self.errors(document), [])
                checked += 1
        self.assertEqual(checked, 11)

    @unittest.skipUnless(shutil.which(places.KUBECTL), "no kubectl")
    def test_components(self):
        for components in ([name] for name in COMPONENTS):
            for document in yaml.safe_load_all(kustomized(*components)):
                if document["kind"] in self.validators:
                    self.assertEqual(self.errors(document), [])

    def test_a_misspelt_field_is_caught(self):
        document = next(d for d in documents(places.SHIPPED) if d["metadata"]["name"] == "sluice-read")
        document["spec"]["templates"][1]["retryStrategy"]["retyPolicy"] = "Always"
        self.assertTrue(self.errors(document))


@unittest.skipUnless(places.LINTER.exists(), "no Go, so no linter of Argo's")
class Lint(unittest.TestCase):
    """Argo's own offline linter."""

    def lint(self, files: list[Path], changed: dict[str, str] | None = None) -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as folder:
            copies = []
            for file in files:
                copies.append(shutil.copy(file, Path(folder) / f"{file.parent.name}-{file.name}"))
            for name, text in (changed or {}).items():
                (Path(folder) / name).write_text(text)
            done = subprocess.run([places.LINTER, *copies], capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr

    def test_files(self):
        self.assertEqual(self.lint(places.SHIPPED + places.EXAMPLES)[0], 0, self.lint(places.SHIPPED + places.EXAMPLES)[1])

    @unittest.skipUnless(shutil.which(places.KUBECTL), "no kubectl")
    def test_components(self):
        for components in ([], *([name] for name in COMPONENTS), COMPONENTS):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "all.yaml"
                file.write_text(kustomized(*components))
                code, said = self.lint([file])
                self.assertEqual(code, 0, said)

    def test_broken_templates_are_refused(self):
        """What no schema sees."""
        broken = {
            "an unknown template": ("template: embed}", "template: embeds}"),
            "an unknown reference": ("name: sluice-embed,", "name: sluice-embeds,"),
            "an unknown dependency": ("depends: read\n", "depends: reads\n"),
            "an unknown parameter": ("{{workflow.parameters.max-nsfw}}", "{{workflow.parameters.max-nfsw}}"),
            "an output of a later step": ("tasks['dedup-fit'].outputs", "tasks['export-plan'].outputs"),
            "an output that does not exist": ("tasks['partition'].outputs.parameters.result", "tasks['partition'].outputs.parameters.count"),
            "an expression that does not parse": ("asInt(workflow.parameters['max-tasks'])", "asInt(workflow.parameters['max-tasks']"),
            "a required input left out": ('                - {name: output, value: "{{workflow.parameters.output}}"}\n', ""),
            "a misspelt field": ("withSequence:", "withSequenze:"),
        }
        curate = (places.ARGO / "curate.yaml").read_text()
        accepted = {}
        for what, (old, new) in broken.items():
            self.assertIn(old, curate, what)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "curate.yaml"
                file.write_text(curate.replace(old, new))
                others = [path for path in places.SHIPPED + places.EXAMPLES if path.name != "curate.yaml"]
                if self.lint([*others, file])[0] == 0:
                    accepted[what] = yaml.safe_load(file.read_text())
        # What stands in an expression Argo looks at when it runs. So do we, before: with its own code, and the outputs of earlier tasks.
        self.assertEqual(
            set(accepted),
            {"an output of a later step", "an output that does not exist", "an expression that does not parse"},
        )
        evaluator = Argo(places.LINTER)
        self.assertEqual(unresolved(yaml.safe_load(curate), evaluator), [])
        for what, document in accepted.items():
            self.assertTrue(unresolved(document, evaluator), what)
        evaluator.close()


def unresolved(document: dict, evaluator) -> list[str]:
    """The tasks of sluice-curate that cannot be filled in with what is there when they start."""
    tasks = {task["name"]: task for task in document["spec"]["templates"][0]["dag"]["tasks"]}
    values = {f"workflow.parameters.{p['name']}": "1" for p in document["spec"]["arguments"]["parameters"]}
    result = json.dumps({"fan_out": {"partitions": 4, "cluster-groups": 4, "output-shards": 4}})
    wrong = []
    for name, task in tasks.items():
        single = {other for other in ancestors(tasks, name) if "withSequence" not in tasks[other]}
        outputs = {f"tasks.{other}.outputs.parameters.result": result for other in single}
        try:
            filled = json.dumps(evaluator.substitute(task, values | outputs))
            if "{{" in filled.replace("{{item}}", ""):
                wrong.append(name)
        except ValueError:
            wrong.append(name)
    return wrong


class Graph(unittest.TestCase):
    """The DAG of the YAML is the one of `sluice dag`."""

    @classmethod
    def setUpClass(cls):
        cls.dag = places.dag()
        cls.templates = {d["metadata"]["name"]: d for d in documents(places.SHIPPED) if d["kind"] == "WorkflowTemplate"}
        cls.tasks = {t["name"]: t for t in cls.templates["sluice-curate"]["spec"]["templates"][0]["dag"]["tasks"]}

    def pod(self, task: dict) -> dict:
        reference = task["templateRef"]
        templates = self.templates[reference["name"]]["spec"]["templates"]
        return next(t for t in templates if t["name"] == reference["template"])

    def test_files_are_what_the_generator_makes(self):
        for folder in (places.ARGO, places.JOBS):
            done = subprocess.run([sys.executable, "-B", folder / "generate.py", "--check"], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_steps_and_edges(self):
        steps = {step["name"]: set(step["after"]) for step in self.dag["steps"]}
        self.assertEqual(steps, {name: dependencies(task) for name, task in self.tasks.items()})
        self.assertEqual(list(self.tasks), [step["name"] for step in self.dag["steps"]])

    def test_fan_out(self):
        for step in self.dag["steps"]:
            task = self.tasks[step["name"]]
            arguments = {p["name"]: p["value"] for p in task["arguments"]["parameters"]}
            if step["counted_by"] is None:
                self.assertNotIn("withSequence", task)
                self.assertNotIn("task-count", arguments)
                continue
            self.assertEqual(arguments["task-index"], "{{item}}")
            self.assertEqual(arguments["task-count"], task["withSequence"]["count"])
            self.assertEqual(list(task["withSequence"]), ["count"])
            for evaluator in evaluators():
                for units, most, tasks in ((5, 64, 5), (100_000, 64, 64), (0, 64, 1), (3, 1, 1), (None, 64, 1)):
                    self.assertEqual(self.count(evaluator, step, units, most), tasks, f"{step['name']}: {units} units, at most {most}")
                evaluator.close()

    def count(self, evaluator, step: dict, units: int | None, most: int) -> int:
        values = {f"workflow.parameters.{p['name']}": "" for p in self.dag["parameters"]}
        values |= {"workflow.parameters.run": "r", "workflow.parameters.max-tasks": str(most)}
        counter = step["counted_by"]
        result = {"program": "p", "outputs": {"paths": ['a "b"']}, "fan_out": {step["fan_out"]: units if units is not None else 1}}
        if "parameter" in counter:
            values[f"workflow.parameters.{counter['parameter']}"] = "" if units is None else str(units)
        else:
            self.assertIn(counter["step"], ancestors(self.tasks, step["name"]))
            # Only this step's: an expression that asked another one would fail.
            values[f"tasks.{counter['step']}.outputs.parameters.result"] = json.dumps(result)
        return int(evaluator.substitute(self.tasks[step["name"]]["withSequence"], values)["count"])

    def test_a_count_that_is_missing_is_an_error(self):
        step = next(step for step in self.dag["steps"] if step["name"] == "dedup-match")
        wrong = copy.deepcopy(step) | {"fan_out": "partitions"}
        for evaluator in evaluators():
            with self.assertRaises((ValueError, KeyError)):
                self.count(evaluator, wrong, 5, 64)
            evaluator.close()

    def test_arguments(self):
        known = {parameter["name"]: parameter for parameter in self.dag["parameters"]}
        for step in self.dag["steps"]:
            task, pod = self.tasks[step["name"]], self.pod(self.tasks[step["name"]])
            self.assertEqual(task["templateRef"]["name"], f"sluice-{step['stage']}")
            container = pod["container"]
            self.assertEqual(container["command"], [step["program"]])
            words = list(container["args"])
            if step["subcommand"]:
                self.assertEqual(words.pop(0), step["subcommand"])
            paths = {a["path"]: a["raw"]["data"] for a in pod["inputs"].get("artifacts", [])}
            flags = {}
            while words:
                flag, equals, value = words.pop(0).partition("=")
                value = value if equals else words.pop(0)
                flags[flag] = paths.pop(value[1:]) if value.startswith("@") else value
            self.assertEqual(paths, {})
            # The flag's input is what the DAG hands on of the workflow's parameter.
            handed = {p["name"]: p["value"] for p in task["arguments"]["parameters"]}
            inputs = {p["name"]: p.get("value") for p in pod["inputs"]["parameters"]}
            self.assertEqual(set(handed), set(inputs), step["name"])
            self.assertEqual(flags.pop("--result"), "/tmp/result.json")
            read = {flag: re.fullmatch(r"\{\{inputs\.parameters\.([\w-]+)\}\}", value)[1] for flag, value in flags.items()}
            own = {"--run": "run"} | ({"--task-index": "task-index", "--task-count": "task-count"} if step["counted_by"] else {})
            wanted = {a["flag"]: a["parameter"] for a in step["arguments"]}
            self.assertEqual(read, own | wanted, step["name"])
            for name in wanted.values():
                self.assertEqual(handed[name], f"{{{{workflow.parameters.{name}}}}}")
                self.assertEqual(inputs[name], self.default(known[name]), name)

    @staticmethod
    def default(parameter: dict) -> str | None:
        if parameter["required"]:
            return None
        return "false" if parameter["switch"] else parameter["default"] or ""

    def test_parameters(self):
        parameters = self.templates["sluice-curate"]["spec"]["arguments"]["parameters"]
        found = {p["name"]: p.get("value") for p in parameters}
        wanted = {p["name"]: self.default(p) for p in self.dag["parameters"]} | {"run": None, "max-tasks": "64"}
        self.assertEqual(found, wanted)
        self.assertTrue(all(p["description"] for p in parameters))

    def test_command_lines(self):
        """`--commands`, which the documents' test parses, tells of every step."""
        for folder in (places.ARGO, places.JOBS):
            done = subprocess.run([sys.executable, "-B", folder / "generate.py", "--commands"], check=True, capture_output=True, text=True)
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            for step in self.dag["steps"]:
                begin = [step["program"], *([step["subcommand"]] if step["subcommand"] else [])]
                found = [line for line in lines if line[: len(begin)] == begin]
                flags = {word.split("=")[0] for line in found for word in line}
                self.assertLessEqual({a["flag"] for a in step["arguments"]} | {"--run"}, flags, step["name"])

    def test_resources(self):
        for step in self.dag["steps"]:
            wanted = self.dag["resources"][step["resources"]]
            resources = self.pod(self.tasks[step["name"]])["container"]["resources"]
            self.assertEqual(resources["requests"], {"cpu": str(wanted["cpus"]), "memory": f"{wanted['memory_mib']}Mi"})
            self.assertEqual(resources["limits"], resources["requests"])

    def test_pods_are_held_tight(self):
        for step in self.dag["steps"]:
            pod = self.pod(self.tasks[step["name"]])
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual(pod["container"]["securityContext"]["capabilities"], {"drop": ["ALL"]})
            self.assertTrue(pod["container"]["securityContext"]["readOnlyRootFilesystem"])
            self.assertFalse(pod["container"]["securityContext"]["allowPrivilegeEscalation"])
            # The files that are written lie on a volume.
            for parameter in pod.get("outputs", {}).get("parameters", []):
                self.assertTrue(parameter["valueFrom"]["path"].startswith("/tmp/"))
            self.assertEqual([m["mountPath"] for m in pod["container"]["volumeMounts"]], ["/tmp"])

    def test_hundreds_of_pods_put_nothing_into_the_status(self):
        for step in self.dag["steps"]:
            self.assertEqual("outputs" in self.pod(self.tasks[step["name"]]), step["counted_by"] is None)


class Retries(unittest.TestCase):
    """What is tried again."""

    def test_every_outcome(self):
        policy = places.dag()["retry"]
        self.assertEqual({int(code) for (_, code), again in OUTCOMES.items() if again} - {-1, 0}, set(policy["exit_codes"]))
        pods = [t for d in documents(places.SHIPPED) if d["kind"] == "WorkflowTemplate" for t in d["spec"]["templates"] if "container" in t]
        self.assertEqual(len(pods), len(places.dag()["steps"]))
        for evaluator in evaluators():
            for pod in pods:
                strategy = pod["retryStrategy"]
                for (status, code), again in OUTCOMES.items():
                    last = {"lastRetry.status": status, "lastRetry.exitCode": code, "lastRetry.duration": "1", "lastRetry.message": "m"}
                    self.assertEqual(evaluator.decide(strategy["expression"], last), again, (status, code))
                self.assertEqual(strategy["retryPolicy"], "Always")
                self.assertEqual(strategy["limit"], str(policy["limit"]))
                self.assertEqual(strategy["backoff"]["duration"], f"{policy['first_seconds']}s")
                self.assertEqual(strategy["backoff"]["cap"], f"{policy['longest_seconds']}s")
            evaluator.close()


@unittest.skipUnless(shutil.which(places.KUBECTL), "no kubectl")
class Kustomize(unittest.TestCase):
    """`kubectl apply -k`, and the components."""

    def test_the_folder_itself(self):
        made = subprocess.run([places.KUBECTL, "kustomize", places.ARGO], check=True, capture_output=True, text=True).stdout
        found = list(yaml.safe_load_all(made))
        name = lambda d: (d["kind"], d["metadata"]["name"])  # noqa: E731
        # -f takes the files, -k what the Kustomization names: the same.
        self.assertEqual({name(d): d for d in found}, {name(d): d for d in documents(places.SHIPPED)})

    def test_apply_f_takes_the_same_files(self):
        """`--local` asks no cluster, and goes through a folder as `apply -f` does."""
        line = [places.KUBECTL, "label", "--local", "--output=name", "--filename", str(places.ARGO), "a=b"]
        made = subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()
        self.assertEqual(len(made), len(documents(places.SHIPPED)))

    def test_images(self):
        images = set(re.findall(r"image: (\S+)", kustomized("cluster", "spot", "limits")))
        self.assertEqual(images, {"registry.example/team/sluice:1.2.3"})

    def test_cluster(self):
        found = list(yaml.safe_load_all(kustomized("cluster")))
        self.assertEqual(sorted(d["kind"] for d in found if "Workflow" in d["kind"]), ["ClusterWorkflowTemplate"] * 9)
        [curate] = [d for d in found if d["metadata"]["name"] == "sluice-curate"]
        self.assertTrue(all(t["templateRef"]["clusterScope"] for t in curate["spec"]["templates"][0]["dag"]["tasks"]))
        self.assertTrue(all("namespace" not in d["metadata"] for d in found if d["kind"] == "ClusterWorkflowTemplate"))

    def test_patches_meet_the_pods(self):
        """They name templates by their place."""
        for component, key, stages in (
            ("gpu", "nodeSelector", {"embed", "aesthetic", "nsfw"}),
            ("spot", "nodeSelector", {"read", "embed", "aesthetic", "nsfw"}),
            ("limits", "synchronization", {"read", "embed", "aesthetic", "nsfw", "dedup-match", "export-write"}),
        ):
            found = yaml.safe_load_all(kustomized(component))
            templates = [t for d in found if d["kind"] == "WorkflowTemplate" for t in d["spec"]["templates"]]
            self.assertEqual({t["name"] for t in templates if key in t}, stages, component)
            self.assertTrue(all("container" in t for t in templates if key in t))


if __name__ == "__main__":
    unittest.main()
