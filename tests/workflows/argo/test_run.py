"""The WorkflowTemplates at work, on an S3 server: the shipped one and that of a pipeline file. tests/workflows/cluster has the faults."""

from __future__ import annotations

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

import places
from expressions import Argo, Ours
from interpreter import Failed, Interpreter, documents
from seaweedfs import SeaweedFs

SETTINGS = {
    "embedder": "efficientnet-lite0",
    "aesthetic": "technical-quality",
    "nsfw": "opennsfw",
    "eps": "0.15",
    "images-per-shard": "30",
    "ranges": "3",
    "clusters": "6",
}
NEEDED = [places.PROGRAMS / "sluice", places.WEED, places.LIBRARY, places.MODELS / "opennsfw", places.PHOTOGRAPHS]


def variables() -> dict[str, str]:
    return {"ORT_DYLIB_PATH": str(places.LIBRARY), "ORT_DISABLE_TELEMETRY": "1", "SLUICE_LOG": "warn"}


def computed(receipt: dict) -> int:
    """Returns the rows of a unit that were computed, not taken over from the unit's previous manifest."""
    return receipt["counts"]["in"] - receipt["sums"].get("reused", 0) - receipt["sums"].get("unscored", 0)


@unittest.skipUnless(all(path.exists() for path in NEEDED), f"not there: {[str(p) for p in NEEDED if not p.exists()]}")
class Run(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = SeaweedFs(places.WEED)
        cls.evaluator = Argo(places.LINTER) if places.LINTER.exists() else Ours()
        cls.addClassCleanup(cls.server.stop)
        cls.addClassCleanup(cls.evaluator.close)

    def interpreter(self, templates: list[dict] | None = None) -> Interpreter:
        store = self.server.variables | {"SLUICE_MODELS": str(places.MODELS)}
        return Interpreter(templates or documents(places.SHIPPED + places.EXAMPLES), self.evaluator, places.PROGRAMS, store, variables())

    def parameters(self, name: str) -> dict[str, str]:
        bucket = self.server.bucket
        return SETTINGS | {"run": f"{bucket}/{name}/run", "input": f"{bucket}/{name}/raw", "output": f"{bucket}/{name}/curated"}

    def upload(self, name: str, shards: list[Path]):
        for shard in shards:
            self.server.put(f"{name}/raw/{shard.name}", shard.read_bytes())

    def test_whole_dag(self):
        """A first part of the data, more data, nothing new; each time the same run."""
        shards = sorted(places.PHOTOGRAPHS.glob("*.tar"))
        parameters = self.parameters("whole") | {"max-tasks": "3"}

        self.upload("whole", shards[:-1])
        first = self.interpreter()
        first.submit("WorkflowTemplate", "sluice-curate", parameters)
        self.assertEqual({a.phase for a in first.attempts}, {"Succeeded"})
        fanned = {name: sum(a.template == name for a in first.attempts) for name in ("read", "exact", "dedup-fit", "dedup-match")}
        # 3 partitions, 3 ranges; one group of clusters, for so few images.
        self.assertEqual(fanned, {"read": 3, "exact": 3, "dedup-fit": 1, "dedup-match": 1})

        before = {step: self.receipts("whole", step) for step in ("read", "embed", "aesthetic", "nsfw")}
        self.upload("whole", shards[-1:])
        second = self.interpreter()
        outputs = second.submit("WorkflowTemplate", "sluice-curate", parameters)
        counts = json.loads(outputs["result"])["counts"]
        self.assertEqual((counts["in"], counts["in"] - counts["kept"]), (177, sum(counts["dropped"].values())))
        # No sample of the first part was read, embedded or scored again.
        for step, receipts in before.items():
            if step == "aesthetic":
                continue  # it is computed from the measures of `read`, which costs less than taking rows over
            found = self.receipts("whole", step)
            [new] = [receipt for unit, receipt in found.items() if unit not in receipts]
            again = [receipt for unit, receipt in found.items() if unit in receipts and receipt["fingerprint"] != receipts[unit]["fingerprint"]]
            self.assertEqual(sum(map(computed, again)), 0, step)
            self.assertGreater(computed(new), 0, step)

        self.verify(parameters["run"])
        self.compare_with_local_run("whole", shards, SETTINGS)

        third = self.interpreter()
        third.submit("WorkflowTemplate", "sluice-curate", parameters)
        self.assertEqual(sum(a.result["units"]["done"] for a in third.attempts), 0)
        self.assertEqual({a.phase for a in third.attempts}, {"Succeeded"})
        # The last that Argo would show of a pod is that all is done.
        for attempt in second.attempts:
            if attempt.phase == "Succeeded" and attempt.result["units"]["total"]:
                done, _, total = attempt.progress.strip().splitlines()[-1].partition("/")
                self.assertEqual(done, total, attempt.name)
        progress = {a.progress.strip() for a in second.attempts if a.template == "embed" and a.progress}
        for runs in (first, second, third):
            seconds = sum(a.seconds for a in runs.attempts)
            print(f"argo: {len(runs.attempts)} pods, {seconds:.1f} s of theirs, tags by {type(self.evaluator).__name__}, progress {progress}")

    def receipts(self, name: str, step: str) -> dict[str, dict]:
        """Returns the receipts of a step, by unit."""
        folder = f"{name}/run/{step}/receipts"
        return {unit: json.loads(self.server.get(f"{folder}/{unit}")) for unit in self.server.list(folder)}

    def verify(self, run: str):
        line = [places.PROGRAMS / "sluice", "verify", "--run", run]
        done = subprocess.run(line, env=self.server.variables | variables(), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def compare_with_local_run(self, name: str, shards: list[Path], options: dict[str, str]):
        """`sluice run` on local disk gives the same bytes."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "raw").mkdir()
            for shard in shards:
                (Path(folder) / "raw" / shard.name).symlink_to(shard)
            line = [places.PROGRAMS / "sluice", "run", "--input", f"{folder}/raw", "--run", "run", "--output", "curated", "--models", places.MODELS]
            line += [word for key, value in options.items() for word in (f"--{key}", value)]
            subprocess.run(line, cwd=folder, env=variables(), check=True, capture_output=True)
            local = {path.name: path.read_bytes() for path in (Path(folder) / "curated").iterdir()}
            # The card says where the data came from, of a local folder its name.
            there = f"`{self.server.bucket}/{name}/raw`"
            for name_in in ["README.md", "croissant.json"]:
                local[name_in] = local[name_in].decode().replace("`raw`", there).encode()
        self.assertEqual(sorted(local), self.server.list(f"{name}/curated"))
        self.assertGreater(sum(file.endswith(".tar") for file in local), 2)
        self.assertEqual(local["README.md"].decode(), self.server.get(f"{name}/curated/README.md").decode())
        # The claim names its run.
        compared = [file for file in local if file != ".sluice.json"]
        differ = [file for file in compared if local[file] != self.server.get(f"{name}/curated/{file}")]
        self.assertEqual(differ, [])

    def test_steps_alone(self):
        """A step's template as the entrypoint, and several inputs."""
        shards = sorted(places.PHOTOGRAPHS.glob("*.tar"))
        self.upload("alone", shards[:2])
        inputs = "\n".join(f"{self.server.bucket}/alone/raw/{shard.name}" for shard in shards[:2])
        runs = self.interpreter()
        runs.submit("WorkflowTemplate", "sluice-curate", self.parameters("alone") | {"input": inputs}, entrypoint="partition")
        # What a step does not read may be empty. A share of the work, then all of it.
        for share in ({"task-index": "1", "task-count": "2"}, {}):
            runs.submit("WorkflowTemplate", "sluice-curate", self.parameters("alone") | {"input": "", "output": ""} | share, entrypoint="read")
        units = [(a.template, a.result["units"]["total"], a.result["units"]["done"]) for a in runs.attempts]
        self.assertEqual(units, [("partition", 1, 1), ("read", 1, 1), ("read", 2, 1)])

    def test_a_pipeline_of_a_users(self):
        """A pipeline file: its steps, and its texts, which mean something to Argo and Kubernetes."""
        shards = sorted(places.PHOTOGRAPHS.glob("*.tar"))[:2]
        self.upload("mine", shards)
        template = yaml.safe_load(places.printed("argo", places.PIPELINE))
        runs = self.interpreter([template])
        given = {key: value for key, value in self.parameters("mine").items() if key not in SETTINGS}
        outputs = runs.submit("WorkflowTemplate", template["metadata"]["name"], given | {"max-tasks": "2"})
        self.assertGreater(json.loads(outputs["result"])["counts"]["kept"], 0)
        self.assertEqual({a.phase for a in runs.attempts}, {"Succeeded"})
        self.verify(given["run"])
        self.compare_with_local_run("mine", shards, {"pipeline": str(places.PIPELINE)})

    def test_the_first_pod_refuses_places_that_are_gone_with_the_pods(self):
        self.upload("lost", sorted(places.PHOTOGRAPHS.glob("*.tar"))[:1])
        for place in ("run", "output"):
            runs = self.interpreter()
            with self.assertRaisesRegex(Failed, f"partition: exit 2: .*--{place} /tmp/lost: a folder of this pod, which is deleted with the pod"):
                runs.submit("WorkflowTemplate", "sluice-curate", self.parameters("lost") | {place: "/tmp/lost"})
            self.assertEqual(len(runs.attempts), 1)

    def test_what_must_be_given_is_asked_for(self):
        with self.assertRaisesRegex(Failed, "output"):
            self.interpreter().submit("WorkflowTemplate", "sluice-curate", {"run": "r", "input": "i"})


if __name__ == "__main__":
    unittest.main()
