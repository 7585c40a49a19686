"""The YAML that `sluice dag --format argo` prints, and workflows/argo: schema, Argo's linter, the DAG, retries, Kustomize. No program
of a step runs here, and everything is read back from the YAML."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

import places
from expressions import Argo, Ours, expand
from interpreter import ancestors, dependencies, documents

COMPONENTS = ["cluster", "gpu", "spot", "limits", "small", "logs", "kueue"]
# The programs' exit codes, Argo's "unknown" and a lost node, and whether each is retried.
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


def curate() -> dict:
    """Returns the shipped WorkflowTemplate."""
    return yaml.safe_load((places.ARGO / "curate.yaml").read_text())


def pods(document: dict) -> dict[str, dict]:
    """Returns the templates of a workflow's pods, by name."""
    return {t["name"]: t for t in document["spec"]["templates"] if "container" in t}


def tasks(document: dict) -> dict[str, dict]:
    """Returns the tasks of a workflow's DAG, by name."""
    [template] = [t for t in document["spec"]["templates"] if t["name"] == document["spec"]["entrypoint"]]
    return {task["name"]: task for task in template["dag"]["tasks"]}


def kustomized(*components: str) -> str:
    """Returns what `kubectl apply -k` would apply, of a folder that refers to ours."""
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
        # Kustomize treats every kind that it does not know as one with a namespace.
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
        self.assertEqual(checked, 4)

    def test_a_pipeline_of_a_users(self):
        self.assertEqual(self.errors(yaml.safe_load(places.printed("argo", places.PIPELINE))), [])

    @unittest.skipUnless(shutil.which(places.KUBECTL), "no kubectl")
    def test_components(self):
        for components in ([name] for name in COMPONENTS):
            for document in yaml.safe_load_all(kustomized(*components)):
                if document["kind"] in self.validators:
                    self.assertEqual(self.errors(document), [])

    def test_a_misspelt_field_is_caught(self):
        document = curate()
        self.assertEqual(self.errors(document), [])
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
            "an unknown template": ('template: "embed"', 'template: "embeds"'),
            "an unknown dependency": ('depends: "read"\n', 'depends: "reads"\n'),
            "an unknown parameter": ("{{workflow.parameters.max-nsfw}}", "{{workflow.parameters.max-nfsw}}"),
            "a parameter left out": ('      - {name: "output", ', '      - {name: "outputs", '),
            "an output of a later step": ("tasks['dedup-fit'].outputs", "tasks['export-plan'].outputs"),
            "an output that does not exist": ("tasks['partition'].outputs.parameters.result", "tasks['partition'].outputs.parameters.count"),
            "an expression that does not parse": ("asInt(workflow.parameters['max-tasks'])", "asInt(workflow.parameters['max-tasks']"),
            "a template of no type": ("  templates:\n", '  templates:\n    - {name: aesthetics, nodeSelector: {node-kind: spot}}\n'),
            "a misspelt field": ("withSequence:", "withSequenze:"),
        }
        text = (places.ARGO / "curate.yaml").read_text()
        accepted = {}
        for what, (old, new) in broken.items():
            self.assertIn(old, text, what)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "curate.yaml"
                file.write_text(text.replace(old, new))
                others = [path for path in places.SHIPPED + places.EXAMPLES if path.name != "curate.yaml"]
                if self.lint([*others, file])[0] == 0:
                    accepted[what] = yaml.safe_load(file.read_text())
        # Argo looks into an expression when it runs. The tests do before: with its own code, and the outputs of earlier tasks.
        self.assertEqual(
            set(accepted),
            {"an output of a later step", "an output that does not exist", "an expression that does not parse"},
        )
        evaluator = Argo(places.LINTER)
        self.assertEqual(unresolved(curate(), evaluator), [])
        for what, document in accepted.items():
            self.assertTrue(unresolved(document, evaluator), what)
        evaluator.close()

    def test_a_pipeline_of_a_users(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mine.yaml"
            file.write_text(places.printed("argo", places.PIPELINE))
            code, said = self.lint([file])
            self.assertEqual(code, 0, said)


def unresolved(document: dict, evaluator) -> list[str]:
    """Returns the tasks of a workflow that cannot be filled in with what is there when they start."""
    values = {f"workflow.parameters.{p['name']}": "1" for p in document["spec"]["arguments"]["parameters"]}
    needed = dict.fromkeys(tasks(document), 1)
    result = json.dumps({"fan_out": {"partitions": 4, "cluster-groups": 4, "output-shards": 4}, "needed": needed})
    wrong = []
    for name, task in tasks(document).items():
        single = {other for other in ancestors(tasks(document), name) if "withSequence" not in tasks(document)[other]}
        outputs = {f"tasks.{other}.outputs.parameters.result": result for other in single}
        try:
            filled = json.dumps(evaluator.substitute(task, values | outputs))
            if "{{" in filled.replace("{{item}}", ""):
                wrong.append(name)
        except ValueError:
            wrong.append(name)
    return wrong


class Graph(unittest.TestCase):
    """The YAML is the DAG of `sluice dag`: of the default pipeline."""

    pipeline: Path | None = None

    @classmethod
    def setUpClass(cls):
        cls.dag = places.dag(cls.pipeline)
        cls.document = yaml.safe_load(places.printed("argo", cls.pipeline))
        cls.tasks, cls.pods = tasks(cls.document), pods(cls.document)
        cls.steps = [step for step in cls.dag["steps"] if step["name"] in cls.tasks]

    def test_steps_and_edges(self):
        steps = {step["name"]: set(step["after"]) for step in self.steps}
        self.assertEqual(steps, {name: dependencies(task) for name, task in self.tasks.items()})
        self.assertEqual(list(self.tasks), [step["name"] for step in self.steps])
        # Light steps in a row are one pod: those without a pod of their own.
        for before, step in zip(self.dag["steps"], self.dag["steps"][1:]):
            if step["name"] not in self.tasks:
                self.assertEqual((step["resources"], step["counted_by"], step["after"]), ("light", None, [before["name"]]))
        self.assertEqual({name: name for name in self.pods}, {name: task["template"] for name, task in self.tasks.items()})

    def test_fan_out(self):
        first = self.dag["steps"][0]["name"]
        for step in self.steps:
            task = self.tasks[step["name"]]
            needed = f"asInt(jsonpath(tasks['{first}'].outputs.parameters.result, '$.needed.{step['name']}'))"
            if step["counted_by"] is None:
                self.assertEqual(set(task) - {"depends", "when"}, {"name", "template"})
                self.assertIn(task.get("when"), (None, f"{{{{={needed}}}}} != 0"))
                continue
            arguments = {p["name"]: p["value"] for p in task["arguments"]["parameters"]}
            count = task["withSequence"]["count"].replace(f"{needed} * ", "")
            self.assertNotEqual(count, task["withSequence"]["count"])
            self.assertEqual(arguments, {"task-index": "{{item}}", "task-count": count})
            self.assertEqual(list(task["withSequence"]), ["count"])
            if "$" not in step["counted_by"].get("value", "$"):
                continue  # A number in the file.
            for evaluator in evaluators():
                for units, most, count in ((5, 64, 5), (100_000, 64, 64), (0, 64, 1), (3, 1, 1), (None, 64, 1)):
                    self.assertEqual(self.count(evaluator, step, units, most), count, f"{step['name']}: {units} units, at most {most}")
                # A step without work has no pods.
                self.assertEqual(self.count(evaluator, step, 5, 64, needed=0), 0)
                evaluator.close()

    def count(self, evaluator, step: dict, units: int | None, most: int, needed: int = 1) -> int:
        values = {f"workflow.parameters.{p['name']}": "" for p in self.dag["parameters"]}
        values |= {"workflow.parameters.run": "r", "workflow.parameters.max-tasks": str(most)}
        counter = step["counted_by"]
        result = {"program": "p", "outputs": {"paths": ['a "b"']}, "fan_out": {step["fan_out"]: units if units is not None else 1}}
        first = f"tasks.{self.dag['steps'][0]['name']}.outputs.parameters.result"
        values[first] = json.dumps({"needed": {step["name"]: needed}})
        if "value" in counter:
            [name] = re.fullmatch(r"\$\{([\w-]+)\}", counter["value"]).groups()
            values[f"workflow.parameters.{name}"] = "" if units is None else str(units)
        else:
            self.assertIn(counter["step"], ancestors(self.tasks, step["name"]))
            # Only this step's: an expression that asked another one would fail.
            counted = f"tasks.{counter['step']}.outputs.parameters.result"
            values[counted] = json.dumps(json.loads(values.get(counted, "{}")) | result)
        return int(evaluator.substitute(self.tasks[step["name"]]["withSequence"], values)["count"])

    def test_a_count_that_is_missing_is_an_error(self):
        step = next(step for step in self.dag["steps"] if step["fan_out"] == "output-shards")
        wrong = copy.deepcopy(step) | {"fan_out": "partitions"}
        for evaluator in evaluators():
            with self.assertRaises((ValueError, KeyError)):
                self.count(evaluator, wrong, 5, 64)
            evaluator.close()

    def test_arguments(self):
        """Every word reaches the program as the DAG has it, with the parameters' defaults and with other values."""
        defaults = {p["name"]: self.default(p) or "" for p in self.dag["parameters"]}
        written = {p["name"]: p.get("value", "") for p in self.document["spec"]["arguments"]["parameters"]}
        values = {name: f"<{name}>" for name in defaults}
        for evaluator in evaluators():
            for given, meant in ((written, defaults), (values, values)):
                given, meant = ({"gpus": "0"} | one | {"run": "s3://b/r"} for one in (given, meant))
                lines = {step["name"]: self.words(evaluator, step, given) for step in self.steps}
                for name, line in lines.items():
                    step = next(step for step in self.dag["steps"] if step["name"] == name)
                    if line[:2] != ["sluice", "steps"]:
                        self.assertEqual(line, [*self.command(step, meant), "--result", "/tmp/result.json"], name)
                self.several(lines, meant)
            evaluator.close()

    def several(self, lines: dict[str, list[str]], meant: dict[str, str]):
        """The command lines in pods of several steps: of those that are done, and of those that are looked at."""
        steps = [step["name"] for step in self.dag["steps"]]
        counted = [step["name"] for step in self.dag["steps"] if step["counted_by"]]
        for name, line in lines.items():
            if line[:2] != ["sluice", "steps"]:
                continue
            at = line.index("--")
            names = [steps[0], *steps[1 : steps.index(counted[-1]) + 1]] if name == steps[0] else steps[steps.index(name) :]
            marks = "?" if name == steps[0] else "+"
            expected = []
            for other in names:
                step = next(step for step in self.dag["steps"] if step["name"] == other)
                before = [] if not expected else [marks, other] if marks == "?" else [marks]
                expected += [*before, *self.command(step | {"counted_by": None}, meant)]
            self.assertEqual(line[at + 1 :], expected, name)
            self.assertEqual(line[at - 2 : at], ["--result", "/tmp/result.json"])
            if name == steps[0]:
                given, known = (line[i].split("=")[1].split(",") for i in (2, 3))
                self.assertEqual(set(known), {p["name"] for p in self.document["spec"]["arguments"]["parameters"]})
                self.assertIn("run", given)

    def words(self, evaluator, step: dict, values: dict[str, str]) -> list[str]:
        """Returns the command line of a step's pod, where a file of arguments is one option with all of its text."""
        scope = {f"workflow.parameters.{name}": value for name, value in values.items()}
        own = {"inputs.parameters.task-index": "3", "inputs.parameters.task-count": "8"}
        pod = evaluator.substitute(evaluator.substitute(self.pods[step["name"]], scope), scope | own)
        container = pod["container"]
        variables = {entry["name"]: entry["value"] for entry in container.get("env", [])}
        words = [expand(word, variables) for word in container["command"] + container["args"]]
        for artifact in pod.get("inputs", {}).get("artifacts", []):
            while (word := f"@{artifact['path']}") in words:
                at = words.index(word)
                words[at - 1 : at + 1] = [f"{words[at - 1]}={artifact['raw']['data']}"]
        return words

    @staticmethod
    def command(step: dict, values: dict[str, str]) -> list[str]:
        """Returns the command line that the DAG means."""
        share = ["--task-index=3", "--task-count=8"] if step["counted_by"] else []
        fill = lambda word: re.sub(r"\$\{([\w-]+)\}", lambda m: values.get(m[1], m[0]), word)  # noqa: E731
        words = [step["program"], *([step["subcommand"]] if step["subcommand"] else []), f"--run={values['run']}", *share]
        return [*words, *map(fill, step["arguments"])]

    @staticmethod
    def default(parameter: dict) -> str | None:
        if parameter["required"]:
            return None
        return parameter["default"] or ""

    def test_parameters(self):
        parameters = self.document["spec"]["arguments"]["parameters"]
        wanted = {p["name"]: p["required"] for p in self.dag["parameters"]} | {"run": True, "max-tasks": False, "gpus": False}
        self.assertEqual({p["name"]: "value" not in p for p in parameters}, wanted)
        self.assertTrue(all(p["description"] for p in parameters))
        self.assertFalse(any("{{" in p["description"] for p in parameters))
        # What a pod can be started by alone, with the entrypoint: no input without a value.
        self.assertTrue(all("value" in p for pod in self.pods.values() for p in pod.get("inputs", {}).get("parameters", [])))

    def test_resources(self):
        for step in self.steps:
            wanted = self.dag["resources"][step["resources"]]
            resources = self.pods[step["name"]]["container"]["resources"]
            self.assertEqual(resources["requests"], {"cpu": str(wanted["cpus"]), "memory": f"{wanted['memory_mib']}Mi"})
            self.assertEqual(resources["limits"], resources["requests"])

    def test_labels(self):
        for step in self.steps:
            labels = {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/component": step["name"], "sluice/resources": step["resources"]}
            self.assertEqual(self.pods[step["name"]]["metadata"]["labels"], labels)

    def test_pods_are_held_tight(self):
        self.assertTrue(self.document["spec"]["securityContext"]["runAsNonRoot"])
        self.assertEqual([list(volume) for volume in self.document["spec"]["volumes"]], [["name", "emptyDir"]])
        for pod in self.pods.values():
            security = pod["container"]["securityContext"]
            self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
            self.assertTrue(security["readOnlyRootFilesystem"])
            self.assertFalse(security["allowPrivilegeEscalation"])
            self.assertNotIn("securityContext", pod)
            # The files that are written are on a volume.
            for parameter in pod.get("outputs", {}).get("parameters", []):
                self.assertTrue(parameter["valueFrom"]["path"].startswith("/tmp/"))
            self.assertEqual([m["mountPath"] for m in pod["container"]["volumeMounts"]], ["/tmp"])

    def test_hundreds_of_pods_put_nothing_into_the_status(self):
        for step in self.steps:
            self.assertEqual("outputs" in self.pods[step["name"]], step["counted_by"] is None)

    def test_retries(self):
        """Every outcome of a pod."""
        policy = self.dag["retry"]
        self.assertEqual({int(code) for (_, code), again in OUTCOMES.items() if again} - {-1, 0}, set(policy["exit_codes"]))
        for evaluator in evaluators():
            for pod in self.pods.values():
                strategy = pod["retryStrategy"]
                for (status, code), again in OUTCOMES.items():
                    last = {"lastRetry.status": status, "lastRetry.exitCode": code, "lastRetry.duration": "1", "lastRetry.message": "m"}
                    self.assertEqual(evaluator.decide(strategy["expression"], last), again, (status, code))
                refused = {"lastRetry.status": "Error", "lastRetry.exitCode": "-1", "lastRetry.duration": "1"}
                refused["lastRetry.message"] = "pods \"x\" is forbidden: error looking up service account sluice/sluice"
                self.assertFalse(evaluator.decide(strategy["expression"], refused))
                self.assertEqual(strategy["retryPolicy"], "Always")
                self.assertEqual(strategy["limit"], str(policy["limit"]))
                self.assertEqual(strategy["backoff"]["duration"], f"{policy['first_seconds']}s")
                self.assertEqual(strategy["backoff"]["cap"], f"{policy['longest_seconds']}s")
            evaluator.close()


class UsersGraph(Graph):
    """The YAML of a pipeline file is its DAG, also where its texts mean something to Argo, Kubernetes or YAML."""

    pipeline = places.PIPELINE


class Files(unittest.TestCase):
    def test_the_shipped_files_are_what_the_program_prints(self):
        for file, format in ((places.ARGO / "curate.yaml", "argo"), (places.JOBS / "curate.yaml", "kubernetes")):
            what = f"sluice dag --format {format} > {file.relative_to(places.REPOSITORY)}"
            self.assertEqual(file.read_text(), places.printed(format), f"out of date: {what}")


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
        for template in (d for d in found if "Workflow" in d["kind"]):
            self.assertEqual(template["kind"], "ClusterWorkflowTemplate")
            self.assertNotIn("namespace", template["metadata"])
        # One mutex for all namespaces.
        [template] = [d for d in found if d["metadata"]["name"] == "sluice-curate"]
        self.assertEqual([mutex["namespace"] for mutex in template["spec"]["synchronization"]["mutexes"]], ["sluice-runs"])

    def test_queues_and_logs(self):
        for template in (d for d in yaml.safe_load_all(kustomized("kueue", "logs")) if "Workflow" in d["kind"]):
            self.assertTrue(template["spec"]["archiveLogs"])
            self.assertEqual(template["spec"]["podMetadata"]["labels"], {"kueue.x-k8s.io/queue-name": "sluice"})
            self.assertEqual(template["spec"]["podPriorityClassName"], "sluice")

    def test_numbers_of_an_operator_are_not_applied_again(self):
        self.assertNotIn("ConfigMap", {d["kind"] for d in yaml.safe_load_all(kustomized("limits"))})

    def test_a_small_node(self):
        found = list(yaml.safe_load_all(kustomized("small")))
        [template] = [d for d in found if d["metadata"]["name"] == "sluice-curate"]
        for pod in pods(template).values():
            self.assertEqual(pod["container"]["resources"]["requests"], {"cpu": "250m", "memory": "512Mi"})

    def test_patches_change_the_templates_that_they_name(self):
        for component, key, steps in (
            ("gpu", "nodeSelector", {"embed", "aesthetic", "nsfw"}),
            ("spot", "nodeSelector", {"read", "embed", "aesthetic", "nsfw"}),
            ("limits", "synchronization", {"read", "embed", "aesthetic", "nsfw", "dedup-match", "export-write"}),
        ):
            for others in ([], ["cluster"]):
                found = yaml.safe_load_all(kustomized(*others, component))
                [template] = [d for d in found if d["metadata"]["name"] == "sluice-curate"]
                templates, shipped = ({t["name"]: t for t in d["spec"]["templates"]} for d in (template, curate()))
                self.assertEqual(set(templates), set(shipped))
                self.assertEqual({name for name, t in templates.items() if key in t}, steps, component)
                for name in set(shipped) - steps:
                    self.assertEqual(templates[name] | {"container": None}, shipped[name] | {"container": None})
                for name in steps:
                    self.assertEqual(templates[name]["container"]["args"], shipped[name]["container"]["args"])


if __name__ == "__main__":
    unittest.main()
