"""The places of what the tests need: the variables that `make test-airflow` sets, or else defaults in the repository.

Each function skips the test, with the reason, where something is missing. With `CI` set it fails the test.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "workflows" / "airflow"


def there(what: str, variable: str | None, default: Path, how: str) -> Path:
    """Returns the place that a variable names, or the default."""
    place = Path(os.environ[variable]) if variable and variable in os.environ else default
    if not place.exists():
        missing = f"no {what} at {place} ({how}{f', or set {variable}' if variable else ''})"
        if os.environ.get("CI"):
            pytest.fail(f"CI lacks something: {missing}")
        pytest.skip(f"SKIPPED: {missing}")
    return place.absolute()


@cache
def programs() -> Path:
    """Returns the folder of the programs. Fails if they are older than the sources."""
    folder = there("programs", "SLUICE_PROGRAMS", ROOT / "target" / "release", "make build")
    for name in ("sluice", "sluice-partition", "sluice-embed"):
        there(name, None, folder / name, "make build")
    known = subprocess.run([folder / "sluice", "dag"], capture_output=True, text=True, check=False)
    assert known.returncode == 0, f"{folder / 'sluice'} is older than these sources: make build"
    return folder


@cache
def with_pipelines() -> Path:
    """Returns the folder of the programs, if they take pipeline files."""
    folder = programs()
    known = subprocess.run([folder / "sluice", "dag", "--help"], capture_output=True, text=True, check=True)
    if "--pipeline" not in known.stdout:
        pytest.skip(f"SKIPPED: {folder / 'sluice'} has no `dag --pipeline` (make build)")
    there("sluice-score", None, folder / "sluice-score", "make build")
    return folder


def models() -> Path:
    """Returns the folder of the models."""
    folder = there("models", "SLUICE_MODELS", ROOT / ".cache" / "models", "make models")
    for name in ("efficientnet-lite0", "opennsfw"):
        there(name, None, folder / name / "model.onnx", "make models")
    return folder


def onnxruntime() -> Path:
    """Returns ONNX Runtime's library."""
    default = ROOT / ".cache" / "onnxruntime" / "libonnxruntime.so"
    return there("ONNX Runtime", "ORT_DYLIB_PATH", default, "make tools")


def server() -> Path:
    """Returns the program of SeaweedFS."""
    return there("weed", None, Path(os.environ.get("SLUICE_SERVERS", ROOT / ".cache/servers/bin")) / "weed", "make servers")


def demo() -> list[Path]:
    """Returns the demo's shards."""
    folder = there("demo shards", "SLUICE_DEMO_INPUT", ROOT / "demo" / "input", "make demo-data")
    return sorted(folder.glob("*.tar"))
