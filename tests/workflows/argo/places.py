"""Where the tests find things."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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

# What `kubectl apply -f workflows/argo/` takes.
SHIPPED = sorted(ARGO.glob("*.yaml"))
EXAMPLES = sorted((ARGO / "examples").glob("*.yaml"))

sys.path.insert(0, str(ARGO))


def dag() -> dict:
    """The one definition, from the program."""
    program = os.environ.get("SLUICE_PROGRAM", PROGRAMS / "sluice")
    return json.loads(subprocess.run([program, "dag"], check=True, capture_output=True, text=True).stdout)
