"""The Jobs of workflows/kubernetes: equal to the DAG, filled in by Kustomize, and at work one after the other."""

from __future__ import annotations

import collections
import copy
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
from interpreter import documents
from test_run import NEEDED, SETTINGS, variables


def jobs() -> list[dict]:
    return documents((places.JOBS / "jobs").glob("*.yaml"))


def settings() -> dict[str, str]:
    return yaml.safe_load((places.JOBS / "settings.yaml").read_text())["data"]


class Definition(unittest.TestCase):
    def test_schema(self):
        """Kubernetes' own, with unknown fields refused."""
        import kubernetes_validate

        others = documents([places.JOBS / "settings.yaml", places.ARGO / "rbac.yaml", places.ARGO / "components/limits/limits.yaml"])
        for document in [*jobs(), *others]:
            kubernetes_validate.validate(document, "1.33", strict=True)
        wrong = copy.deepcopy(jobs()[1])
        wrong["spec"]["backofLimitPerIndex"] = 4
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, "1.33", strict=True)

    def test_steps_and_arguments(self):
        dag = places.dag()
        self.assertEqual([f"sluice-{step['name']}" for step in dag["steps"]], [job["metadata"]["name"] for job in jobs()])
        for step, job in zip(dag["steps"], jobs(), strict=True):
            [container] = job["spec"]["template"]["spec"]["containers"]
            words = " ".join(container["command"] + container["args"])
            wanted = [step["program"], *([step["subcommand"]] if step["subcommand"] else []), "--run=$(run)"]
            wanted += ["--task-count=$(tasks)"] if step["counted_by"] else []
            wanted += [f"{a['flag']}=$({a['parameter']})" for a in step["arguments"]]
            self.assertEqual(words.replace("--input @/etc/sluice/input", "--input=$(input)"), " ".join(wanted))
            self.assertEqual("completionMode" in job["spec"], step["counted_by"] is not None)
        given = {p["name"]: "false" if p["switch"] else p["default"] or "" for p in dag["parameters"] if not p["required"]}
        self.assertEqual({k: v for k, v in settings().items() if k not in ("run", "tasks", "input", "output")}, given)

    def test_retries(self):
        policy = places.dag()["retry"]
        for job in jobs():
            ignore, fail = job["spec"]["podFailurePolicy"]["rules"]
            self.assertEqual(ignore, {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]})
            self.assertEqual(fail["action"], "FailJob")
            self.assertEqual(fail["onExitCodes"], {"containerName": "step", "operator": "NotIn", "values": policy["exit_codes"]})
            indexed = "completionMode" in job["spec"]
            self.assertEqual(job["spec"]["backoffLimitPerIndex" if indexed else "backoffLimit"], policy["limit"])
            # Without it Kubernetes refuses a failure policy.
            self.assertEqual(job["spec"]["template"]["spec"]["restartPolicy"], "Never")

    @unittest.skipUnless(shutil.which(places.KUBECTL), "no kubectl")
    def test_kustomize(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(places.JOBS, folder, dirs_exist_ok=True)
            file = Path(folder) / "settings.yaml"
            file.write_text(re.sub(r'tasks: "\d+"', 'tasks: "7"', file.read_text()))
            made = subprocess.run([places.KUBECTL, "kustomize", folder], check=True, capture_output=True, text=True).stdout
        found = [d for d in yaml.safe_load_all(made) if d["kind"] == "Job"]
        wanted = copy.deepcopy(jobs())
        for job in wanted:
            if "completions" in job["spec"]:
                job["spec"] |= {"completions": 7, "parallelism": 7}
        by_name = lambda all: {d["metadata"]["name"]: d for d in all}  # noqa: E731
        self.assertEqual(by_name(found), by_name(wanted))


KUBECTL = """#!/bin/sh
# Stands for kubectl: every Job completes but that of nsfw.
echo "$*" >>"$LOG"
case "$1 $3" in
    kustomize*) exec kubectl "$@" ;;
    "get sluice-nsfw") echo "FailureTarget Failed" ;;
    "get "*) echo "SuccessCriteriaMet Complete" ;;
esac
"""


@unittest.skipUnless(shutil.which(places.KUBECTL), "no kubectl")
class Script(unittest.TestCase):
    """run.sh"""

    def steps(self, *words: str) -> tuple[int, list[str], str]:
        with tempfile.TemporaryDirectory() as folder:
            kubectl, log = Path(folder) / "kubectl", Path(folder) / "log"
            kubectl.write_text(KUBECTL)
            kubectl.chmod(0o755)
            environment = os.environ | {"KUBECTL": str(kubectl), "LOG": str(log), "POLL": "0"}
            done = subprocess.run([places.JOBS / "run.sh", *words], env=environment, capture_output=True, text=True)
            return done.returncode, re.findall(r"component=(\S+)$", log.read_text(), re.M), done.stderr

    def test_order_and_failure(self):
        code, applied, said = self.steps()
        self.assertEqual((code, applied), (1, ["partition", "read", "embed", "aesthetic", "nsfw"]))
        self.assertIn("step nsfw failed; go on with:", said)

    def test_going_on(self):
        code, applied, _ = self.steps(str(places.JOBS), "dedup-exact")
        self.assertEqual(code, 0)
        self.assertEqual(applied, [step["name"] for step in places.dag()["steps"]][5:])


@unittest.skipUnless(all(path.exists() for path in NEEDED), "see test_run")
class AtWork(unittest.TestCase):
    """The Jobs' command lines as processes, in order, with the failure policy of their YAML."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        data = {"run": "run", "output": "out", "input": f"{places.PHOTOGRAPHS}\n", "models": str(places.MODELS), "tasks": "2"}
        self.settings = settings() | SETTINGS | data
        self.pods = collections.Counter()

    def pod(self, job: dict, index: int | None) -> tuple[int, str]:
        [container] = job["spec"]["template"]["spec"]["containers"]
        fill = lambda word: re.sub(r"\$\(([\w-]+)\)", lambda m: self.settings.get(m[1], m[0]), word)  # noqa: E731
        (self.folder / "input").write_text(self.settings["input"])
        words = [fill(word).replace("@/etc/sluice/", f"@{self.folder}/") for word in container["args"]]
        index_variable = {} if index is None else {"JOB_COMPLETION_INDEX": str(index)}
        done = subprocess.run(
            [places.PROGRAMS / container["command"][0], *words], cwd=self.folder, env=variables() | index_variable, capture_output=True, text=True
        )
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

    def test_all(self):
        killed = lambda name, index, number: (137, "") if (name, index, number) == ("sluice-read", 1, 0) else None  # noqa: E731
        for job in jobs():
            self.job(job, killed)
        self.assertEqual((self.pods["sluice-read"], self.pods["sluice-embed"], self.pods["sluice-report"]), (3, 2, 1))
        verified = subprocess.run([places.PROGRAMS / "sluice", "verify", "--run", "run"], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(verified.returncode, 0, verified.stdout + verified.stderr)

    def test_permanent_errors(self):
        with self.assertRaisesRegex(RuntimeError, "sluice-read: FailJob: exit 3"):
            self.job(jobs()[1])
        self.assertLessEqual(self.pods["sluice-read"], 2)


if __name__ == "__main__":
    unittest.main()
