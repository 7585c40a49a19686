"""The DAG as `sluice dag` prints it, and YAML that a person likes to read. For the generators of the workflow files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# How the containers are held, whatever runs them. containers/README.md says why this is enough.
USER = 65532
POD_SECURITY = {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

# A task that takes longer hangs, or should have been several.
DEADLINE_SECONDS = 3 * 24 * 3600


def load(source: str | None = None) -> dict:
    """The DAG: from a file, from stdin (`-`), or from the program `sluice`, which is the source of all."""
    if source == "-":
        return json.load(sys.stdin)
    if source:
        return json.loads(Path(source).read_text())
    built = [REPOSITORY / "target" / kind / "sluice" for kind in ("release", "debug")]
    named = os.environ.get("SLUICE_PROGRAM")
    programs = [Path(named)] if named else sorted((p for p in built if p.exists()), key=lambda p: -p.stat().st_mtime)
    if not programs:
        sys.exit("no program `sluice`: run `make build`, or name a file with what `sluice dag` prints: --dag FILE")
    return json.loads(subprocess.run([programs[0], "dag"], check=True, capture_output=True, text=True).stdout)


def version() -> str:
    """The version that the images are tagged with: the workspace's."""
    section = ""
    for line in (REPOSITORY / "Cargo.toml").read_text().splitlines():
        if line.startswith("["):
            section = line.strip()
        if section == "[workspace.package]" and line.startswith("version"):
            return line.split('"')[1]
    sys.exit("Cargo.toml names no version")


def stages(dag: dict) -> list[str]:
    """The stages in the DAG's order, each once."""
    return list(dict.fromkeys(step["stage"] for step in dag["steps"]))


def parameters(dag: dict) -> dict[str, dict]:
    return {parameter["name"]: parameter for parameter in dag["parameters"]}


def default(parameter: dict) -> str | None:
    """What stands for a parameter that was not given; none: it must be given. The programs drop an option with nothing behind `=`."""
    if parameter["required"]:
        return None
    return "false" if parameter["switch"] else parameter["default"] or ""


class Flow:
    """A mapping or list on one line."""

    def __init__(self, value):
        self.value = value


class Comment:
    """A comment: a key of a mapping (its value is ignored), or an entry of a list."""

    def __init__(self, text: str):
        self.text = text


def scalar(value) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    plain = value and value == value.strip() and all(c.isalnum() or c in "-_./" for c in value)
    number_or_word = value.lower() in {"true", "false", "null", "yes", "no", "on", "off", "y", "n"} or value[:1] in "-.0123456789"
    return value if plain and not number_or_word else json.dumps(value, ensure_ascii=False)


def flow(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(v) for v in value) + "]"
    return scalar(value)


def lines(value, indent: int = 0) -> list[str]:
    """A mapping or list in block style."""
    pad = " " * indent
    out: list[str] = []
    entries = value.items() if isinstance(value, dict) else ((None, entry) for entry in value)
    for key, entry in entries:
        comment = key if isinstance(key, Comment) else entry if isinstance(entry, Comment) else None
        if comment:
            out += [f"{pad}# {line}".rstrip() for line in comment.text.splitlines()]
            continue
        head = f"{pad}{scalar(key)}:" if key is not None else f"{pad}-"
        if isinstance(entry, Flow):
            out.append(f"{head} {flow(entry.value)}")
        elif isinstance(entry, (dict, list)) and entry:
            below = lines(entry, indent + 2)
            if key is None:  # the first line of a list's entry stands behind its dash
                below[0] = f"{head} {below[0].lstrip()}"
                out += below
            else:
                out += [head, *below]
        elif isinstance(entry, (dict, list)):
            out.append(f"{head} {flow(entry)}")
        else:
            out.append(f"{head} {scalar(entry)}")
    return out


def documents(header: str, *values) -> str:
    """A YAML file: a comment, then documents."""
    head = [f"# {line}".rstrip() for line in header.strip().splitlines()]
    bodies = ["\n".join(lines(value)) for value in values]
    return "\n".join(head) + "\n" + "\n---\n".join(bodies) + "\n"


def write(files: dict[Path, str], check: bool) -> int:
    """Writes files, or with `check` says which differ. Returns the exit code."""
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(REPOSITORY)} is not what the generator makes: run it", file=sys.stderr)
        else:
            path.write_text(files[path])
            print(f"wrote {path.relative_to(REPOSITORY)}", file=sys.stderr)
    return int(check and bool(stale))
