"""Checks an image's configuration and bill of materials.

podman image inspect IMAGE | check_image.py ROOTFS PROGRAM VERSION
"""

import json
import re
import sys
from pathlib import Path

rootfs, program, version = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
config = json.load(sys.stdin)[0]["Config"]
labels = config["Labels"]
image = "org.opencontainers.image"


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"FAILED: {program}: {what} is {found!r}, not {wanted!r}")


expect("user", config["User"], "65532:65532")
expect("entrypoint", config["Entrypoint"], [f"/usr/local/bin/{program}"])
expect("command", config.get("Cmd"), None)
expect("title", labels[f"{image}.title"], program)
expect("version", labels[f"{image}.version"], version)
expect("licence", labels[f"{image}.licenses"], "Apache-2.0")
expect("what has no description", [name for name in ("description", "revision", "base.name") if not labels[f"{image}.{name}"]], [])
environment = dict(each.split("=", 1) for each in config["Env"])
runs_models = (rootfs / "usr/local/lib/onnxruntime").exists()
expect("ORT_DISABLE_TELEMETRY", environment.get("ORT_DISABLE_TELEMETRY"), "1" if runs_models else None)
library = environment.get("ORT_DYLIB_PATH")
expect("ORT_DYLIB_PATH", bool(library and (rootfs / library.lstrip("/")).exists()), runs_models)

locked = re.findall(r'^name = "(.+)"\nversion = "(.+)"$', Path("Cargo.lock").read_text(), re.MULTILINE)
folder = rootfs / labels["sluice.sbom"].lstrip("/")
files = list((rootfs / "usr/local/bin").iterdir())
links = {path.name: str(path.readlink()) for path in files if path.is_symlink()}
stages = [path.name for path in Path("stages").iterdir()] if program == "sluice" else []
expect("links", links, {f"sluice-{stage}": "sluice" for stage in stages})
expect("programs", [path.name for path in files if path.name not in links], [program])
expect("bill", [path.name for path in folder.iterdir()], [f"{program}.cdx.json"])
for path in folder.iterdir():
    bom = json.loads(path.read_text())
    expect("format", bom["bomFormat"], "CycloneDX")
    expect("subject", bom["metadata"]["component"]["name"], path.name.removesuffix(".cdx.json"))
    crates = {(c["name"], c["version"]) for c in bom["components"] if c["purl"].startswith("pkg:cargo/")}
    expect("crates not in Cargo.lock", sorted(crates - set(locked)), [])
    expect("how many crates", len(crates) > 100, True)
    loads = any(name == "ort" for name, _ in crates)
    expect("ONNX Runtime in the bill", any(c["name"].startswith("onnxruntime") for c in bom["components"]), loads)
    known = {c["bom-ref"] for c in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    named = {ref for d in bom["dependencies"] for ref in [d["ref"], *d.get("dependsOn", [])]}
    expect("dangling references", sorted(named - known), [])
