#!/usr/bin/env python3
"""Writes each program's bill of materials: OUT/sluice-read.cdx.json and so on, in CycloneDX's JSON.

cargo-cyclonedx tells what Cargo.lock puts into a program on this platform. Added here is what its image holds besides:
ONNX Runtime where the program loads it, and the certificate authorities. Same lock file, same bytes: no times, no serial
numbers, no path of the machine.
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
    """cargo-cyclonedx in a folder; compiled into it when it is not there. Without optimisation that takes half of the time."""
    tool = folder / "bin/cargo-cyclonedx"
    if tool.exists():
        said = subprocess.run([tool, "cyclonedx", "--version"], capture_output=True, text=True)
        if said.stdout.split()[-1:] == [CYCLONEDX]:
            return tool
    package = f"cargo-cyclonedx@{CYCLONEDX}"
    subprocess.run(["cargo", "install", "--quiet", "--debug", "--locked", "--force", "--root", folder, package], check=True)
    return tool


def pinned(requirements):
    """The packages that a requirements file pins, as components."""
    components = []
    for name, version in re.findall(r"^([\w-]+)==(\S+)", requirements.read_text(), re.MULTILINE):
        purl = f"pkg:pypi/{name}@{version}"
        component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "scope": "required"}
        if name in LICENCES:
            component["licenses"] = [{"license": {"id": LICENCES[name]}}]
        components.append(component | {"purl": purl})
    return components


def completed(text, workspace, accelerator):
    """What cargo-cyclonedx wrote, without this machine and with what is no crate."""
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
        # The tool writes beside each Cargo.toml: into a copy, then.
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
    parser.add_argument("--tools", type=Path, required=True, help="where cargo-cyclonedx is, or is put")
    parser.add_argument("--accelerator", choices=RUNTIMES, default="cpu")
    parser.add_argument("out", type=Path, nargs="?", help="without it, only the tool is made")
    args = parser.parse_args()
    tool = installed(args.tools.resolve())
    if args.out:
        write(tool, args.accelerator, args.out)


if __name__ == "__main__":
    main()
