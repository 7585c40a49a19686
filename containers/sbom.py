#!/usr/bin/env python3
"""Writes the bill of materials of each program: OUT/sluice-read.cdx.json and so on, as CycloneDX JSON.

cargo-cyclonedx lists the crates of a program on this platform. This script adds what else its image contains: ONNX Runtime
where the program loads it, and the certificate authorities. The same lock file gives the same bytes: the output has no
times, no serial numbers and no path of this machine.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

CYCLONEDX = "0.5.9"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SOURCES = ["Cargo.toml", "Cargo.lock", "shared", "stages", "workflows/local", "tests"]
CERTIFICATES = HERE / "certificates.txt"
RUNTIMES = {"cpu": ROOT / "shared/model/convert/onnxruntime.txt", "cuda": HERE / "onnxruntime-cuda.txt"}
LICENCES = {"certifi": "MPL-2.0", "onnxruntime": "MIT", "onnxruntime-gpu": "MIT"}


def installed(folder):
    """Returns cargo-cyclonedx in a folder. Compiles it if it is missing, without optimisation: that takes half of the time."""
    tool = folder / "bin/cargo-cyclonedx"
    if tool.exists():
        said = subprocess.run([tool, "cyclonedx", "--version"], capture_output=True, text=True)
        if said.stdout.split()[-1:] == [CYCLONEDX]:
            return tool
    package = f"cargo-cyclonedx@{CYCLONEDX}"
    subprocess.run(["cargo", "install", "--quiet", "--debug", "--locked", "--force", "--root", folder, package], check=True)
    return tool


def pinned(requirements):
    """Returns the packages that a requirements file pins, as components."""
    components = []
    for name, version in re.findall(r"^([\w-]+)==(\S+)", requirements.read_text(), re.MULTILINE):
        purl = f"pkg:pypi/{name}@{version}"
        component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "scope": "required"}
        if name in LICENCES:
            component["licenses"] = [{"license": {"id": LICENCES[name]}}]
        components.append(component | {"purl": purl})
    return components


def completed(text, workspace, accelerator):
    """Returns the output of cargo-cyclonedx, without paths of this machine and with the components that are not crates."""
    text = re.sub(r"\?download_url=file:[^\"]*", "", text.replace(str(workspace), "/sluice"))
    bom = json.loads(text)
    del bom["metadata"]["timestamp"]
    added = pinned(CERTIFICATES)
    if any(component["name"] == "ort" for component in bom["components"]):
        added += pinned(RUNTIMES[accelerator])
    bom["components"] += added
    program = bom["metadata"]["component"]["bom-ref"]
    for dependency in bom["dependencies"]:
        if dependency["ref"] == program:
            dependency.setdefault("dependsOn", []).extend(component["bom-ref"] for component in added)
    bom["dependencies"] += [{"ref": component["bom-ref"]} for component in added]
    return json.dumps(bom, indent=1) + "\n"


def write(tool, accelerator, out):
    """Writes the bills of all programs."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # The tool writes next to each Cargo.toml, so it works on a copy.
        workspace = Path(folder).resolve()
        ignored = shutil.ignore_patterns("node_modules", "target", "__pycache__")
        for source in SOURCES:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, workspace / source, ignore=ignored)
            else:
                shutil.copy(ROOT / source, workspace / source)
        command = [tool, "cyclonedx", "--manifest-path", workspace / "Cargo.toml", "--format", "json", "-qq"]
        subprocess.run(
            [*command, "--spec-version", "1.5", "--describe", "binaries", "--no-build-deps"],
            check=True,
            env=os.environ | {"SOURCE_DATE_EPOCH": "0"},
        )
        for found in sorted(workspace.glob("*/*/*_bin.cdx.json")):
            name = found.name.replace("_bin", "")
            (out / name).write_text(completed(found.read_text(), workspace, accelerator))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, required=True, help="the folder of cargo-cyclonedx")
    parser.add_argument("--accelerator", choices=RUNTIMES, default="cpu")
    parser.add_argument("out", type=Path, nargs="?", help="if missing, only the tool is compiled")
    args = parser.parse_args()
    tool = installed(args.tools.resolve())
    if args.out:
        write(tool, args.accelerator, args.out)


if __name__ == "__main__":
    main()
