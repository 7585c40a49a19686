"""Where the tests find things."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
CACHE = REPOSITORY / ".cache"
ARGO = REPOSITORY / "workflows/argo"
JOBS = REPOSITORY / "workflows/kubernetes"
PROGRAMS = REPOSITORY / "target/release"
LINTER = CACHE / "argo/argo-lint"
WEED = CACHE / "servers/bin/weed"
LIBRARY = CACHE / "onnxruntime/libonnxruntime.so"
MODELS = CACHE / "models"
PHOTOGRAPHS = REPOSITORY / "demo/input"
KUBECTL = "kubectl"
# A pipeline of a user's, with texts that mean something to Argo, Kubernetes and YAML.
PIPELINE = HERE / "mine.toml"

# What `kubectl apply -f workflows/argo/` takes.
SHIPPED = sorted(ARGO.glob("*.yaml"))
EXAMPLES = sorted((ARGO / "examples").glob("*.yaml"))


def printed(format: str, pipeline: Path | None = None) -> str:
    """Returns what `sluice dag` prints in a format."""
    program = os.environ.get("SLUICE_PROGRAM", PROGRAMS / "sluice")
    line = [program, "dag", "--format", format, *(["--pipeline", pipeline] if pipeline else [])]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


def dag(pipeline: Path | None = None) -> dict:
    """Returns the DAG that the files are made from."""
    return json.loads(printed("json", pipeline))
