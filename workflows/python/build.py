"""Puts the compiled program `sluice` into the wheel, which becomes one for this platform."""

import os
import platform
import re
import subprocess
import sysconfig
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# A folder with the compiled program. Without it, cargo compiles.
PROGRAMS = "SLUICE_PROGRAMS"


class Programs(BuildHookInterface):
    def initialize(self, version, build_data):
        program = self.program()
        build_data["shared_scripts"] = {str(program): "sluice"}
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(program)}"

    def program(self) -> Path:
        if folder := os.environ.get(PROGRAMS):
            return Path(folder).absolute() / "sluice"
        subprocess.run(["cargo", "build", "--release", "--locked", "--package", "sluice"], cwd=self.root, check=True)
        target = os.environ.get("CARGO_TARGET_DIR", "target")
        return Path(self.root, target, "release", "sluice")


def platform_tag(program: Path) -> str:
    """Returns the platform that the program needs: on Linux, the oldest glibc that has its symbols."""
    versions = re.findall(rb"GLIBC_2\.(\d+)", program.read_bytes())
    if not versions:
        return re.sub(r"[.-]", "_", sysconfig.get_platform())
    return f"manylinux_2_{max(map(int, versions))}_{platform.machine()}"
