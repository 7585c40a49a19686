#!/usr/bin/env python3
"""Runs the code of the chapter "Use the results" of GUIDE.md on a run and its output.

    python3 -m venv .cache/results
    .cache/results/bin/pip install -r tests/readers/use_the_results.txt
    PATH=$PWD/.cache/results/bin:$PWD/target/release:$PATH python3 tests/readers/use_the_results.py demo/run demo/curated

Every block runs separately, in a folder in which `out` is the output and `out.run` the run. The script fails when a
block fails.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = "Use the results"


def blocks(text):
    """(language, code) of the fenced blocks of the chapter."""
    chapter = re.search(rf"^## {CHAPTER}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
    return re.findall(r"^```(\w*)\n(.*?)^```$", chapter, re.M | re.S)


def main():
    run, output = (Path(place).absolute() for place in sys.argv[1:3])
    found = blocks((ROOT / "GUIDE.md").read_text())
    if not found:
        sys.exit(f"GUIDE.md has no code in its chapter {CHAPTER!r}")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "out").symlink_to(output)
        Path(folder, "out.run").symlink_to(run)
        quiet = {"HF_HUB_OFFLINE": "1", "HF_HOME": folder, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        for language, code in found:
            command = ["python3", "-c", code] if language == "python" else ["bash", "-euxc", code]
            subprocess.run(command, cwd=folder, env=os.environ | quiet, check=True)
    print(f"{len(found)} blocks ran")


if __name__ == "__main__":
    main()
