"""workflows/plan.py: within the limits, and its page in the README up to date."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
import unittest

import places

PLAN = places.REPOSITORY / "workflows/plan.py"


def plan(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-B", PLAN, *flags], capture_output=True, text=True)


class Plan(unittest.TestCase):
    def test_a_billion_images_exceed_nothing(self):
        done = plan()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(f"```text\n{done.stdout}```", (places.REPOSITORY / "workflows/README.md").read_text(), "workflows/README.md is not up to date")

    def test_defaults_follow_the_size(self):
        done = plan("--images", "1e6", "--gpu-images-per-second", "500")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("100 shards", done.stdout)
        self.assertIn("1 GPU hours", done.stdout)

    def test_scorers_cost_what_they_run(self):
        file = '''
            steps = [
                { stage = "read" }, { stage = "embed" },
                { stage = "score", name = "head", model = "laion-aesthetic" },
                { stage = "score", name = "classifier", model = "opennsfw" },
                { stage = "score", name = "command", command = "cat" },
                { stage = "score", name = "table", import = "scores.csv" },
                { stage = "export" },
            ]'''
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as pipeline:
            pipeline.write(textwrap.dedent(file))
            pipeline.flush()
            done = plan("--pipeline", pipeline.name)
        lines = {words[0]: words for line in done.stdout.splitlines() if (words := line.split())}
        hours = {name: int(lines[name][5].replace(",", "")) for name in ("head", "classifier", "command", "table")}
        self.assertEqual(hours["classifier"], hours["command"], done.stdout)
        self.assertGreater(hours["classifier"], 100 * hours["head"])
        self.assertLess(hours["table"], hours["head"])

    def test_limits_are_seen(self):
        for flags, limit in (
            (["--max-tasks", "2000", "--shards-per-partition", "10"], "argo: nodes"),
            (["--max-tasks", "2000", "--shards-per-partition", "10"], "max_map_length"),
            (["--max-tasks", "2000", "--shards-per-partition", "10"], "bytes of the workflow"),
            (["--no-limits"], "s3: GET"),
            (["--images-per-shard", "1e6"], "s3: parts"),
            (["--shards-per-partition", "1000"], "s3: bytes of a single PUT"),
            (["--embed-cpus", "4"], "activeDeadlineSeconds"),
        ):
            done = plan(*flags)
            self.assertEqual(done.returncode, 1, flags)
            exceeded = [line for line in done.stdout.splitlines() if "EXCEEDED" in line]
            self.assertTrue(any(limit in line for line in exceeded), (flags, exceeded))


if __name__ == "__main__":
    unittest.main()
