"""The Jobs that `sluice dag --format kubernetes` prints: equal to the DAG, under a Kustomization, and at work one after the other."""

from __future__ import annotations

import collections
import copy
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

import places
from expressions import expand
from interpreter import documents
from test_run import NEEDED, SETTINGS, variables

SHIPPED = places.JOBS / "curate.yaml"


def split(stream: str) -> tuple[dict[str, str], list[dict]]:
    """Returns the parameters and the Jobs of a stream of YAML."""
    settings, *jobs = yaml.safe_load_all(stream)
    return settings["data"], jobs


def container(job: dict) -> dict:
    [container] = job["spec"]["template"]["spec"]["containers"]
    return container


class Definition(unittest.TestCase):
    """The default pipeline."""

    pipeline: Path | None = None

    @classmethod
    def setUpClass(cls):
        cls.stream, cls.dag = places.printed("kubernetes", cls.pipeline), places.dag(cls.pipeline)
        cls.settings, cls.jobs = split(cls.stream)

    def test_schema(self):
        """Kubernetes' own, with unknown fields refused."""
        import kubernetes_validate

        others = documents([places.ARGO / "rbac.yaml", places.ARGO / "components/limits/limits.yaml"])
        for document in [*yaml.safe_load_all(self.stream), *others]:
            kubernetes_validate.validate(document, "1.33", strict=True)
        wrong = copy.deepcopy(self.jobs[1])
        wrong["spec"]["backofLimitPerIndex"] = 4
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, "1.33", strict=True)

    def test_steps(self):
        self.assertEqual([f"sluice-{step['name']}" for step in self.dag["steps"]], [job["metadata"]["name"] for job in self.jobs])
        for step, job in zip(self.dag["steps"], self.jobs, strict=True):
            labels = {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/component": step["name"], "sluice/resources": step["resources"]}
            self.assertEqual(job["metadata"]["labels"], labels | {"sluice/fan-out": step["fan_out"]})
            self.assertEqual(job["spec"]["template"]["metadata"]["labels"], labels)
            self.assertEqual(job["spec"].get("completionMode") == "Indexed", step["counted_by"] is not None)
            wanted = self.dag["resources"][step["resources"]]
            resources = container(job)["resources"]
            self.assertEqual(resources["requests"], {"cpu": str(wanted["cpus"]), "memory": f"{wanted['memory_mib']}Mi"})
            self.assertEqual(resources["limits"], resources["requests"])

    def test_parameters(self):
        given = {p["name"]: p["default"] or "" for p in self.dag["parameters"] if not p["required"]}
        self.assertEqual({name: value for name, value in self.settings.items() if name in given}, given)
        self.assertEqual(set(self.settings) - set(given), {"run", "tasks", "input", "output"})

    def test_arguments(self):
        """Every word reaches the program as the DAG has it."""
        fill = lambda word: re.sub(r"\$\{([\w-]+)\}", lambda m: self.settings.get(m[1], m[0]), word)  # noqa: E731
        for step, job in zip(self.dag["steps"], self.jobs, strict=True):
            words = [expand(word, self.settings) for word in container(job)["command"] + container(job)["args"]]
            for at in [at for at, word in enumerate(words) if word.startswith("@/etc/sluice/")]:
                words[at - 1 : at + 1] = [f"{words[at - 1]}={self.settings[words[at].rpartition('/')[2]]}"]
            wanted = [step["program"], *([step["subcommand"]] if step["subcommand"] else []), f"--run={self.settings['run']}"]
            wanted += ["--task-count=64"] if step["counted_by"] else []
            self.assertEqual(words, wanted + [fill(word) for word in step["arguments"]])

    def test_retries(self):
        policy = self.dag["retry"]
        for job in self.jobs:
            ignore, fail = job["spec"]["podFailurePolicy"]["rules"]
            self.assertEqual(ignore, {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]})
            self.assertEqual(fail["action"], "FailJob")
            self.assertEqual(fail["onExitCodes"], {"containerName": "step", "operator": "NotIn", "values": policy["exit_codes"]})
            indexed = "completionMode" in job["spec"]
            self.assertEqual(job["spec"]["backoffLimitPerIndex" if indexed else "backoffLimit"], policy["limit"])
            # Without it Kubernetes refuses a failure policy.
            self.assertEqual(job["spec"]["template"]["spec"]["restartPolicy"], "Never")

    def test_pods_are_held_tight(self):
        for job in self.jobs:
            pod = job["spec"]["template"]["spec"]
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertFalse(pod["automountServiceAccountToken"])
            security = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            self.assertEqual(container(job)["securityContext"], security)


class UsersDefinition(Definition):
    """A pipeline file, with texts that mean something to Kubernetes or YAML."""

    pipeline = places.PIPELINE


KUBECTL = """#!/bin/sh
# Replaces kubectl: every Job completes except that of nsfw.
echo "$*" >>"$LOG"
[ "$1" != apply ] || cp "$3" "$APPLIED"
case "$1 $3" in
    kustomize*) exec kubectl "$@" ;;
    "get sluice-nsfw") echo "FailureTarget Failed" ;;
    "get "*) echo "SuccessCriteriaMet Complete" ;;
esac
"""


@unittest.skipUnless(shutil.which(places.KUBECTL), "no kubectl")
class Script(unittest.TestCase):
    """run.sh"""

    def run_sh(self, *words: str) -> tuple[int, list[str], str]:
        """Returns its exit code, the steps that it applied, and what it said. `self.applied` is what it took them from."""
        with tempfile.TemporaryDirectory() as folder:
            kubectl, log = Path(folder) / "kubectl", Path(folder) / "log"
            kubectl.write_text(KUBECTL)
            kubectl.chmod(0o755)
            log.touch()
            environment = os.environ | {"KUBECTL": str(kubectl), "LOG": str(log), "APPLIED": f"{folder}/applied", "POLL": "0"}
            done = subprocess.run([places.JOBS / "run.sh", *words], env=environment, capture_output=True, text=True)
            if (applied := Path(folder) / "applied").exists():
                self.applied = list(yaml.safe_load_all(applied.read_text()))
            return done.returncode, re.findall(r"component=(\S+)$", log.read_text(), re.M), done.stderr

    def test_order_and_failure(self):
        code, applied, said = self.run_sh()
        steps = [step["name"] for step in places.dag()["steps"]]
        self.assertEqual((code, applied), (1, steps[: steps.index("nsfw") + 1]))
        self.assertIn("step nsfw failed; go on with:", said)
        # As the file has them.
        by_name = lambda all: {d["metadata"]["name"]: d for d in all}  # noqa: E731
        self.assertEqual(by_name(self.applied), by_name(documents([SHIPPED])))

    def test_going_on(self):
        code, applied, _ = self.run_sh(str(SHIPPED), "dedup-fit")
        self.assertEqual(code, 0)
        steps = [step["name"] for step in places.dag()["steps"]]
        self.assertEqual(applied, steps[steps.index("dedup-fit") :])

    def test_a_step_that_is_not_there(self):
        code, applied, said = self.run_sh(str(SHIPPED), "embedding")
        self.assertEqual((code, applied), (2, []))
        self.assertIn("no step embedding; the steps are: partition read", said)

    def test_the_job_of_models(self):
        """It has no parameters."""
        models = places.JOBS / "models.yaml"
        code, applied, said = self.run_sh(str(models))
        self.assertEqual((code, applied), (0, ["models"]), said)
        self.assertEqual(self.applied, documents([models]))

    def test_a_kustomization(self):
        """Images and parameters of the user's own; and as many pods as `tasks` says."""
        patch = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sluice-run"}, "data": {"tasks": "7", "eps": "$$(x)"}}
        value = {"resources": ["jobs.yaml"], "images": [{"name": "sluice", "newName": "registry.example/sluice"}], "patches": [{"patch": json.dumps(patch)}]}
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(SHIPPED, Path(folder) / "jobs.yaml")
            (Path(folder) / "kustomization.yaml").write_text(json.dumps(value))
            code, applied, _ = self.run_sh(folder, "report")
        self.assertEqual((code, applied), (0, ["report"]))
        settings, *found = self.applied
        shipped, wanted = split(SHIPPED.read_text())
        self.assertEqual(settings["data"], shipped | {"tasks": "7", "eps": "$$(x)"})
        for job in wanted:
            container(job)["image"] = container(job)["image"].replace("sluice", "registry.example/sluice")
            if "completions" in job["spec"]:
                job["spec"] |= {"completions": 7, "parallelism": 7}
        self.assertEqual(found, wanted)


@unittest.skipUnless(all(path.exists() for path in NEEDED), "see test_run")
class AtWork(unittest.TestCase):
    """The Jobs' command lines as processes, in order, with the failure policy of their YAML."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.pods = collections.Counter()

    def take(self, stream: str, settings: dict[str, str]) -> list[dict]:
        """Takes the parameters of a stream, and returns its Jobs."""
        own, jobs = split(stream)
        data = {"run": "run", "output": "out", "input": f"{places.PHOTOGRAPHS}\n", "models": str(places.MODELS), "tasks": "2"}
        self.settings = own | settings | data
        return jobs

    def pod(self, job: dict, index: int | None) -> tuple[int, str]:
        (self.folder / "input").write_text(self.settings["input"])
        words = [expand(word, self.settings) for word in container(job)["args"]]
        words = [f"@{self.folder}/input" if word == "@/etc/sluice/input" else word for word in words]
        index_variable = {} if index is None else {"JOB_COMPLETION_INDEX": str(index)}
        line = [places.PROGRAMS / container(job)["command"][0], *words]
        done = subprocess.run(line, cwd=self.folder, env=variables() | index_variable, capture_output=True, text=True)
        return done.returncode, done.stdout

    def job(self, job: dict, fault=lambda name, index, number: None):
        """Runs one; raises when it fails, as the Job controller would see it."""
        spec, name = job["spec"], job["metadata"]["name"]
        codes = spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]

        def one(index: int | None):
            for number in range(spec.get("backoffLimitPerIndex", spec.get("backoffLimit")) + 1):
                self.pods[name] += 1
                code, said = fault(name, index, number) or self.pod(job, index)
                if code == 0:
                    return
                if code not in codes:
                    raise RuntimeError(f"{name}: FailJob: exit {code}: {said}")
            raise RuntimeError(f"{name}: too many tries")

        if spec.get("completionMode") != "Indexed":
            return one(None)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, range(int(self.settings["tasks"]))))

    def run_all(self, jobs: list[dict]):
        killed = lambda name, index, number: (137, "") if (name, index, number) == ("sluice-read", 1, 0) else None  # noqa: E731
        for job in jobs:
            self.job(job, killed)
        self.assertEqual((self.pods["sluice-read"], self.pods["sluice-embed"], self.pods["sluice-report"]), (3, 2, 1))
        verified = subprocess.run([places.PROGRAMS / "sluice", "verify", "--run", "run"], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(verified.returncode, 0, verified.stdout + verified.stderr)

    def test_all(self):
        self.run_all(self.take(SHIPPED.read_text(), SETTINGS))

    def test_a_pipeline_of_a_users(self):
        self.run_all(self.take(places.printed("kubernetes", places.PIPELINE), {}))

    def test_permanent_errors(self):
        jobs = self.take(SHIPPED.read_text(), SETTINGS)
        with self.assertRaisesRegex(RuntimeError, "sluice-read: FailJob: exit 3"):
            self.job(jobs[1])
        self.assertLessEqual(self.pods["sluice-read"], 2)


if __name__ == "__main__":
    unittest.main()
