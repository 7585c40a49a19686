#!/usr/bin/env python3
"""The report of a large run, and the commands that inspect it: time, peak memory, size of the page.

    .cache/venv/bin/python tests/bench/scale.py --keep FOLDER
    .cache/venv/bin/python tests/bench/report.py FOLDER/run

The run is one of scale.py, or any other with the scores `aesthetic` and `nsfw`; `--programs` as there. Fails when a page is
larger than 5 MB or a process uses more than `--memory` MB, for any size of the run.
"""

import re
import sys
import tempfile
from pathlib import Path

import paired
from paired import Side

PAGE = 5_000_000


def first_image(run, programs):
    """Returns the name of an embedded image."""
    command = [programs / "sluice", "inspect", run / "embed/embeddings", "--json", "--head=1", "--columns=image_id"]
    return re.search(r'"image_id":"([^"]*)"', paired.subprocess.check_output(command, text=True))[1]


def main():
    parser = paired.arguments(__doc__, rounds=1)
    parser.add_argument("run", type=Path)
    parser.add_argument("--programs", type=Path, default=paired.PROGRAMS)
    parser.add_argument("--memory", type=int, default=256, help="memory limit of a process in MB")
    args = parser.parse_args()
    programs, run = args.programs.absolute(), args.run.absolute()
    with tempfile.TemporaryDirectory() as folder:
        page, at = run / "report/index.html", Path(folder)
        sluice = [programs / "sluice"]
        score = "aesthetic=0.0..0.01"
        commands = {
            "report --no-images": ([programs / "sluice-report", "--run", run, "--no-images"], page),
            "report": ([programs / "sluice-report", "--run", run, "--force"], page),
            "gallery --score": ([*sluice, "gallery", "--run", run, "--score", score, "--output", at / "a.html"], at / "a.html"),
            "gallery --duplicates": ([*sluice, "gallery", "--run", run, "--duplicates", "--output", at / "b.html"], at / "b.html"),
            "search": ([*sluice, "search", "--run", run, first_image(run, programs), "--top", 100], None),
            "try --min": ([*sluice, "try", "--run", run, "--min", "aesthetic=0.1"], None),
            "try --keep-fraction": ([*sluice, "try", "--run", run, "--keep-fraction", "aesthetic=0.5"], None),
        }
        figures, wrong = {}, []
        print("| command | seconds | CPU s | peak MB | page MB |\n|---|---|---|---|---|", flush=True)
        for name, (command, made) in commands.items():
            figures[name] = one = paired.once(Side(name, command))
            size = made.stat().st_size if made else 0
            shown = f"{size / 1e6:.2f}" if made else ""
            print(f"| `{name}` | {one.seconds:.1f} | {one.cpu:.1f} | {one.peak_mb:.0f} | {shown} |", flush=True)
            if size > PAGE or one.peak_mb > args.memory:
                wrong.append(f"{name}: {one.peak_mb:.0f} MB, a page of {size} bytes")
    paired.keep({name: [one] for name, one in figures.items()}, args.json)
    sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
