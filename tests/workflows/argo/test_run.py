"""The shipped templates at work: the whole DAG on an S3 server, with what can happen to pods on the way."""

from __future__ import annotations

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

import places
from expressions import Argo, Ours
from interpreter import Failed, Fault, Interpreter, documents
from seaweedfs import SeaweedFs, free_ports

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


@unittest.skipUnless(all(path.exists() for path in NEEDED), f"not there: {[str(p) for p in NEEDED if not p.exists()]}")
class Run(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = SeaweedFs(places.WEED)
        cls.evaluator = Argo(places.LINTER) if places.LINTER.exists() else Ours()
        cls.addClassCleanup(cls.server.stop)
        cls.addClassCleanup(cls.evaluator.close)

    def interpreter(self) -> Interpreter:
        store = self.server.variables | {"SLUICE_MODELS": str(places.MODELS)}
        return Interpreter(documents(places.SHIPPED + places.EXAMPLES), self.evaluator, places.PROGRAMS, store, variables())

    def parameters(self, name: str) -> dict[str, str]:
        bucket = self.server.bucket
        return SETTINGS | {"run": f"{bucket}/{name}/run", "input": f"{bucket}/{name}/raw", "output": f"{bucket}/{name}/curated"}

    def upload(self, name: str, shards: list[Path]):
        for shard in shards:
            self.server.put(f"{name}/raw/{shard.name}", shard.read_bytes())

    def test_whole_dag(self):
        """A first part of the data, more data with faults, nothing new; each time the same run."""
        shards = sorted(places.PHOTOGRAPHS.glob("*.tar"))
        parameters = self.parameters("whole") | {"max-tasks": "3"}

        self.upload("whole", shards[:-1])
        first = self.interpreter()
        first.submit("WorkflowTemplate", "sluice-curate", parameters)
        self.assertEqual({a.phase for a in first.attempts}, {"Succeeded"})
        fanned = {name: sum(a.template == name for a in first.attempts) for name in ("read", "dedup-exact", "dedup-fit", "dedup-match")}
        # 3 partitions, 3 ranges; one group of clusters, for so few images.
        self.assertEqual(fanned, {"read": 3, "dedup-exact": 3, "dedup-fit": 1, "dedup-match": 1})

        self.upload("whole", shards[-1:])
        [nobody] = free_ports(1)
        faults = {
            # The store does not answer: the program gives up by itself, with 75.
            ("curate.read(0)", 0): Fault({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{nobody}", "SLUICE_STORE_RETRY_FOR": "1"}),
            # Killed, as for memory, in the middle of the work.
            ("curate.embed(0)", 0): Fault(kill_after=0.15),
            # The node is lost, and nobody knows the exit code.
            ("curate.export-write(0)", 0): Fault(lose_after=0.01),
            ("curate.export-write(0)", 1): Fault(lose_after=0.01),
        }
        second = self.interpreter()
        second.faults = faults
        outputs = second.submit("WorkflowTemplate", "sluice-curate", parameters)
        counts = json.loads(outputs["result"])["counts"]
        self.assertEqual((counts["in"], counts["in"] - counts["kept"]), (177, sum(counts["dropped"].values())))
        failed = {(a.name, a.number): (a.phase, a.exit_code) for a in second.attempts if a.phase != "Succeeded"}
        self.assertEqual(
            failed,
            {
                ("curate.read(0)", 0): ("Failed", "75"),
                ("curate.embed(0)", 0): ("Failed", "137"),
                ("curate.export-write(0)", 0): ("Error", "-1"),
                ("curate.export-write(0)", 1): ("Error", "-1"),
            },
        )
        # Of what was there already nothing was read or embedded again.
        for step in ("read", "embed", "nsfw"):
            units = [a.result["units"] for a in second.attempts if a.template == step and a.phase == "Succeeded"]
            self.assertEqual(sum(u["total"] for u in units), len(shards), step)
            self.assertEqual(sum(u["done"] for u in units), 1, step)

        environment = self.server.variables | variables()
        verified = subprocess.run(
            [places.PROGRAMS / "sluice", "verify", "--run", parameters["run"]], env=environment, capture_output=True, text=True
        )
        self.assertEqual(verified.returncode, 0, verified.stdout + verified.stderr)
        self.compare_with_local_run("whole", shards)

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

    def compare_with_local_run(self, name: str, shards: list[Path]):
        """`sluice run` on local disk gives the same bytes."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "raw").mkdir()
            for shard in shards:
                (Path(folder) / "raw" / shard.name).symlink_to(shard)
            line = [places.PROGRAMS / "sluice", "run", "--input", f"{folder}/raw", "--run", "run", "--output", "curated", "--models", places.MODELS]
            line += [word for key, value in SETTINGS.items() for word in (f"--{key}", value)]
            subprocess.run(line, cwd=folder, env=variables(), check=True, capture_output=True)
            local = {path.name: path.read_bytes() for path in (Path(folder) / "curated").iterdir()}
            # The card says where the data came from, of a local folder its name.
            there = f"`{self.server.bucket}/{name}/raw`"
            local["README.md"] = local["README.md"].decode().replace("`raw`", there).encode()
        self.assertEqual(sorted(local), self.server.list(f"{name}/curated"))
        self.assertGreater(sum(file.endswith(".tar") for file in local), 2)
        self.assertEqual(local["README.md"].decode(), self.server.get(f"{name}/curated/README.md").decode())
        differ = [file for file in local if local[file] != self.server.get(f"{name}/curated/{file}")]
        self.assertEqual(differ, [])

    def test_permanent_errors_are_not_tried_again(self):
        """Exit 2 and exit 3 end the workflow with the first pod."""
        shards = sorted(places.PHOTOGRAPHS.glob("*.tar"))
        self.upload("wrong", shards[:1])
        runs = self.interpreter()
        with self.assertRaisesRegex(Failed, "embed.*exit 2 after 1 tries.*no-such-model"):
            runs.submit("WorkflowTemplate", "sluice-curate", self.parameters("wrong") | {"embedder": "no-such-model"})
        # A stage by itself, whose input is not there.
        runs = self.interpreter()
        with self.assertRaisesRegex(Failed, "exit 3 after 1 tries"):
            runs.submit("WorkflowTemplate", "sluice-read", {"run": f"{self.server.bucket}/nothing/run"})
        self.assertEqual(len(runs.attempts), 1)

    def test_a_stage_alone(self):
        """Stage templates by themselves, and several inputs."""
        shards = sorted(places.PHOTOGRAPHS.glob("*.tar"))
        self.upload("alone", shards[:2])
        run = f"{self.server.bucket}/alone/run"
        runs = self.interpreter()
        inputs = "\n".join(f"{self.server.bucket}/alone/raw/{shard.name}" for shard in shards[:2])
        runs.submit("WorkflowTemplate", "sluice-partition", {"run": run, "input": inputs})
        runs.submit("WorkflowTemplate", "sluice-read", {"run": run, "tasks": "5"})
        reads = [a.result["units"]["done"] for a in runs.attempts if a.template == "read"]
        self.assertEqual((len(reads), sum(reads)), (5, 2))

    def test_what_must_be_given_is_asked_for(self):
        with self.assertRaisesRegex(Failed, "output"):
            self.interpreter().submit("WorkflowTemplate", "sluice-curate", {"run": "r", "input": "i"})


if __name__ == "__main__":
    unittest.main()
