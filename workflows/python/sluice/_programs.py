"""The stages' programs: the one binary, started under a stage's name."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Replaces this process by the program whose name it was started under."""
    started = Path(sys.argv[0])
    os.execv(started.resolve().with_name("sluice"), [started.stem, *sys.argv[1:]])
